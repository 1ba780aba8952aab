"""A small pipeline for the tests of executors: files of numbers are squared one by one, then added up.

It lies in a module of its own because every executor must be able to import it in another process.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from curation.executor import Stage
from shared.files import sha256_file, write_text


class Outputs:
    """An output, and the receipt that tells it is whole."""

    output: Path

    @property
    def receipt(self) -> Path:
        return self.output.with_suffix(".receipt")

    def is_done(self) -> bool:
        try:
            return self.receipt.read_text() == sha256_file(self.output)
        except OSError:
            return False

    def write(self, text: str) -> None:
        write_text(self.output, text)
        write_text(self.receipt, sha256_file(self.output))


@dataclass(frozen=True)
class SquareTask(Outputs):
    numbers: Path
    output: Path


@dataclass(frozen=True)
class SumTask(Outputs):
    squares: tuple[SquareTask, ...]
    output: Path


class Square(PipelineStep):
    """Writes the squares of a file's numbers. Some words in place of numbers make trouble."""

    name, type = "square", "numbers"

    def __init__(self, tasks: Sequence[SquareTask]) -> None:
        super().__init__()
        self.tasks = tasks

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        if not task.is_done():
            squares = [str(number(word, task) ** 2) for word in task.numbers.read_text().split()]
            if squares:
                task.write(" ".join(squares))
            note(task.output.parent / "runs.log", task.numbers.name)
        yield from ()


class Sum(PipelineStep):
    """Adds up what all squares tasks wrote."""

    name, type = "sum", "numbers"

    def __init__(self, tasks: Sequence[SumTask]) -> None:
        super().__init__()
        self.tasks = tasks

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        if not task.is_done():
            words = [word for squares in task.squares for word in squares.output.read_text().split()]
            task.write(f"{len(words)} numbers, sum of squares {sum(map(int, words))}")
            note(task.output.parent / "runs.log", "sum")
        yield from ()


def number(word: str, task: SquareTask) -> int:
    """Returns the number a word says. `die` kills the process, `die-once` only the first time, `wait` takes long."""
    if word == "die" or (word == "die-once" and not task.output.with_suffix(".died").exists()):
        task.output.parent.mkdir(parents=True, exist_ok=True)
        task.output.with_suffix(".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "wait":
        task.output.parent.mkdir(parents=True, exist_ok=True)
        task.output.with_suffix(".waits").write_text(str(os.getpid()))
        time.sleep(120)
    return 1 if word == "die-once" else int(word)


def note(log: Path, line: str) -> None:
    """Appends a line to a file that several processes write."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"{line}\n")


def make_stages(numbers: Path, outputs: Path) -> list[Stage]:
    """Returns the stages over a folder of .txt files: a map with a task for each, and a shuffle."""
    squares = [SquareTask(path, outputs / path.with_suffix(".squares").name) for path in sorted(numbers.glob("*.txt"))]
    total = SumTask(tuple(squares), outputs / "total.sum")
    return [
        Stage("square it", "map", squares, lambda tasks: [Square(tasks)]),
        Stage("sum", "shuffle", [total], lambda tasks: [Sum(tasks)]),
    ]
