"""fastText over school grades: trained on labelled texts in a process of its own, used in batches.

A classifier is a folder of fastText models: `all.bin`, and one for each fold, trained without the works of that fold,
so that a labelled text is never graded by a model that read it. classifier.json holds their hashes, which works they
read, and what curation/grading.py fitted on the out-of-fold grades. Rare words are read as their frequency band:
a few thousand labelled texts say little of "mitochondria", and much of words that are as rare.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from curation.settings import ClassifierSettings
from shared.console import Failure, UserError
from shared.files import sha256_file, written_whole

RECORD = "classifier.json"
ALL = "all"
HIGHEST_BIN = 12  # grade 12 and everything above it
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s']+")  # quotation marks that are apostrophes are left out
_LABEL = "__label__"
_BAND = "ZIPF"  # upper case: no word of a text can be taken for a band
_MAX_WORDS_IN_MEMORY = 1_000_000


@dataclass(frozen=True)
class TrainingText:
    """A text to train on: its US grade, the fold whose model must not read it, and how often an epoch has it."""

    text: str
    grade: float
    fold: int
    repeat: int = 1


class _Tokens(dict[str, str]):
    """Token of a text -> token the classifier reads: a common word as it is, a rare one as its frequency band."""

    def __init__(self, rare_zipf: float) -> None:
        super().__init__()
        self._rare_zipf = rare_zipf

    def __missing__(self, token: str) -> str:
        if len(self) > _MAX_WORDS_IN_MEMORY:
            self.clear()
        read = self[token] = self._read(token)
        return read

    def _read(self, token: str) -> str:
        if token[0].isdigit():
            return "0" * min(len(token), 4)
        if not any(map(str.isalpha, token)):
            return token
        frequency = zipf(token)
        return token if frequency >= self._rare_zipf else f"{_BAND}{2 * frequency:.0f}"


def zipf(word: str) -> float:
    """Returns the log 10 of how often a word in lower case stands in a billion words; 0 where it is not known.

    The Zipf scale of van Heuven et al. 2014; "dog's" is as frequent as its own entry, else as dog.
    """
    frequencies = _word_frequencies()
    frequency = frequencies.get(word) or frequencies.get(word.partition("'")[0])
    return math.log10(frequency) + 9 if frequency else 0.0


@cache
def _word_frequencies() -> dict[str, float]:
    from wordfreq import get_frequency_dict

    return dict(get_frequency_dict("en", wordlist="large"))


@cache
def _tokens(rare_zipf: float) -> _Tokens:
    return _Tokens(rare_zipf)


def classifier_line(text: str, rare_zipf: float) -> str:
    """Returns a text as fastText reads it: one line, lower case, punctuation apart, rare words as bands."""
    tokens = _tokens(rare_zipf)
    return " ".join(map(tokens.__getitem__, _TOKEN.findall(text.lower())))


def train_models(
    texts: Sequence[TrainingText], settings: ClassifierSettings, folder: Path, workers: int
) -> dict[str, str]:
    """Trains `all` and the fold models into a folder, so many at a time. Returns the SHA-256 of each model file."""
    lines = [(text.fold, line) for text in texts for line in _training_lines(text, settings.rare_zipf)]
    # fastText reads its input in order; a hash shuffles it, so that no source comes last
    lines.sort(key=lambda line: hashlib.blake2b(line[1].encode(), digest_size=8).digest())

    def train(name: str) -> tuple[str, str]:
        chosen = [line for fold, line in lines if str(fold) != name]
        if len({line.split(" ", 1)[0] for line in chosen}) < 2:
            raise UserError(
                "the labelled texts leave a fold with fewer than two grades", "add label sets to the profile"
            )
        path = folder / f"{name}.bin"
        _fit(chosen, settings, path)
        return path.name, sha256_file(path)

    with ThreadPoolExecutor(workers) as pool:  # of threads that wait for a process each
        return dict(pool.map(train, [ALL, *map(str, range(settings.n_folds))]))


def _training_lines(text: TrainingText, rare_zipf: float) -> list[str]:
    grade = min(max(math.floor(text.grade + 0.5), 0), HIGHEST_BIN)
    return [f"{_LABEL}{grade} {classifier_line(text.text, rare_zipf)}\n"] * text.repeat


def _fit(lines: Iterable[str], settings: ClassifierSettings, path: Path) -> None:
    """Trains one model in a fresh process with one thread.

    fastText reads a block of memory before it writes it; a fresh process with a low mmap threshold gets that block
    from the system, zeroed, and so the same input gives the same bytes. Otherwise it gives other models, or NaN. The
    model comes back through a pipe, because on a full disk fastText saves half of it and says nothing.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file, written_whole(path) as temporary:
        file.writelines(lines)
        file.flush()
        options = {
            "lr": settings.lr,
            "dim": settings.dim,
            "epoch": settings.epoch,
            "minCount": settings.min_count,
            "wordNgrams": settings.word_ngrams,
            "bucket": settings.bucket,
            "loss": "ova",  # a sigmoid for each grade: neighbours need not exclude each other
        }
        job = json.dumps({"input": file.name, **options})
        finished = subprocess.run(
            [sys.executable, "-m", "curation.grade_classifier", job],
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
        )
        if finished.returncode:
            said = finished.stderr.decode(errors="replace").strip()[-300:]
            raise Failure(f"fastText could not train: {said}", "look at lr and epoch of classifier in pipelines.yaml")
        temporary.write_bytes(finished.stdout)


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the record of a trained classifier. It is written last, so where it stands all models do."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    return record


def is_whole(folder: Path) -> bool:
    """Does a classifier stand in the folder as it was trained?"""
    try:
        record = read_record(folder)
        has_all = {"models", "settings", "trained_works", "fit"} <= record.keys()
        return has_all and all(sha256_file(folder / name) == sha256 for name, sha256 in record["models"].items())
    except (OSError, ValueError, AttributeError):
        return False


class GradeClassifier:
    """The models of a folder, checked against the hashes of its record and loaded when first needed."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = record["models"]
        self.rare_zipf: float = record["settings"]["rare_zipf"]
        self.fold_of_work: dict[str, int] = record["trained_works"]

    def predict(self, texts: Sequence[str], works: Sequence[str]) -> list[float | None]:
        """Returns the expected grade of each text over fastText's labels; of works trained on, out of fold.

        None where the model knows no word of it.
        """
        by_model: dict[str, list[int]] = {}
        for i, work in enumerate(works):
            by_model.setdefault(str(self.fold_of_work.get(work, ALL)), []).append(i)
        grades: list[float | None] = [None] * len(texts)
        for name, indexes in by_model.items():
            model = _load(self.folder / f"{name}.bin", self.hashes[f"{name}.bin"])
            lines = [classifier_line(texts[i], self.rare_zipf) + "\n" for i in indexes]
            for i, grade in zip(indexes, _expected_grades(model, lines), strict=True):
                grades[i] = grade
        return grades


@cache
def _load(path: Path, sha256: str) -> Any:
    import fasttext

    if sha256_file(path) != sha256:  # a truncated model would load without a word
        raise UserError(f"{path} is not the model that was trained", f"remove {path.parent} and run again")
    return fasttext.load_model(str(path))


def _expected_grades(model: Any, lines: list[str]) -> list[float | None]:
    labels, probabilities = model.f.multilinePredict(lines, -1, 0.0, "strict")
    grades: list[float | None] = []
    for values, names in zip(probabilities, labels, strict=True):
        p = np.asarray(values, dtype=np.float64)
        grade = p @ np.array([float(name[len(_LABEL) :]) for name in names])
        grades.append(float(grade / p.sum()) if len(p) else None)
    return grades


def _main() -> None:
    import fasttext

    job = json.loads(sys.argv[1])
    fasttext.train_supervised(thread=1, verbose=0, seed=0, **job).save_model("/dev/stdout")


if __name__ == "__main__":
    _main()
