"""The slow stage, once for each file: read, clean and grade documents into data/scored/<source>/<hash>/.

The pipeline is datatrove's; a task is a fixed bundle of files of one source, and its output stands whole under a name
that holds the hash of everything that could change it: settings, input hashes, code, library versions. So work is
skipped exactly when its result is there as it was written, whatever was stopped, changed, damaged or run with other
workers.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from curation.clean import repair, why_rejected
from curation.documents import REASON, drop, is_dropped
from curation.grading import Scorer
from curation.normalise import genre_of
from curation.pull import SourceFile
from curation.settings import CleaningSettings, GradingSettings, SourceSettings
from curation.sources import READERS
from shared.files import sha256_file, write_text, written_whole
from shared.schema import PARQUET_OPTIONS, SCHEMA

TASK_BYTES = 4_000_000  # of input files; from the input alone, so that workers never change a task
BATCH_DOCUMENTS = 512
MAX_REJECT_CHARS = 4000

REJECTED_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("doc_id", "work", "source", "title")),
        pa.field("reason", pa.string(), nullable=False),
        SCHEMA.field("n_words"),
        pa.field("text", pa.string(), nullable=False),  # its beginning
    ]
)


@dataclass(frozen=True)
class ScoreTask:
    """A bundle of files of one source, and where their documents go."""

    source: str
    settings: SourceSettings
    files: tuple[SourceFile, ...]
    scored: Path
    rejected: Path

    @property
    def receipt(self) -> Path:
        """The file that says the task is done, with the hashes of what it wrote."""
        return self.scored.with_suffix(".json")

    def hashes(self) -> dict[str, str]:
        return {"scored": sha256_file(self.scored), "rejected": sha256_file(self.rejected)}

    def is_done(self) -> bool:
        """Do both outputs stand as they were written?"""
        try:
            return bool(json.loads(self.receipt.read_bytes()) == self.hashes())
        except (OSError, ValueError):
            return False


def make_tasks(
    source: str, settings: SourceSettings, files: Iterable[SourceFile], scored: Path, rejected: Path
) -> list[ScoreTask]:
    """Returns the tasks of a source: its files in order, bundled up to TASK_BYTES."""
    bundles: list[list[SourceFile]] = []
    room = 0
    for file in files:
        size = file.path.stat().st_size * (3 if file.path.suffix == ".gz" else 1)
        if size > room:
            bundles.append([])
            room = TASK_BYTES
        bundles[-1].append(file)
        room -= size
    return [
        ScoreTask(source, settings, tuple(bundle), scored / f"{i:05}.parquet", rejected / f"{i:05}.parquet")
        for i, bundle in enumerate(bundles)
    ]


def scoring_pipeline(
    tasks: list[ScoreTask], cleaning: CleaningSettings, classifier_folder: Path, grading: GradingSettings
) -> list[PipelineStep]:
    """Returns the pipeline whose rank r does task r."""
    return [
        ReadDocuments(tasks, cleaning),
        CleanDocuments(cleaning),
        GradeDocuments(classifier_folder, grading),
        WriteDocuments(tasks),
    ]


class ReadDocuments(PipelineStep):
    """Yields the documents of a task's files."""

    name, type = "read", "reader"

    def __init__(self, tasks: list[ScoreTask], cleaning: CleaningSettings) -> None:
        super().__init__()
        self.tasks, self.cleaning = tasks, cleaning

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        read = READERS[task.settings.reader]
        for file in task.files:
            yield from read(file.path, task.source, task.settings, self.cleaning)


class CleanDocuments(PipelineStep):
    """Repairs texts and drops what is no readable English."""

    name, type = "clean", "filter"

    def __init__(self, cleaning: CleaningSettings) -> None:
        super().__init__()
        self.cleaning = cleaning

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            if not is_dropped(document):
                document.text = repair(document.text)
                if reason := why_rejected(document.text, self.cleaning):
                    drop(document, reason)
            yield document


class GradeDocuments(PipelineStep):
    """Adds fk_grade, classifier_grade, grade, p_grade3 and part; verse and talk become genres of their own."""

    name, type = "grade", "annotator"

    def __init__(self, classifier_folder: Path, grading: GradingSettings) -> None:
        super().__init__()
        self.classifier_folder, self.grading = classifier_folder, grading

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        scorer = Scorer(self.classifier_folder, self.grading)
        while batch := list(islice(data, BATCH_DOCUMENTS)):
            kept = [document for document in batch if not is_dropped(document)]
            texts, works = [d.text for d in kept], [d.metadata["work"] for d in kept]
            for document, grading in zip(kept, scorer.grade_texts(texts, works), strict=True):
                document.metadata.update(vars(grading))
                document.metadata["genre"] = genre_of(document.text) or document.metadata["genre"]
            yield from batch


class WriteDocuments(PipelineStep):
    """Writes a task's kept documents and its rejects, and last the receipt that tells the task is done."""

    name, type = "write", "writer"

    def __init__(self, tasks: list[ScoreTask]) -> None:
        super().__init__()
        self.tasks = tasks

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        with ExitStack() as files:
            kept = files.enter_context(_ParquetFile(task.scored, SCHEMA))
            rejected = files.enter_context(_ParquetFile(task.rejected, REJECTED_SCHEMA))
            while batch := list(islice(data, BATCH_DOCUMENTS)):
                kept.write([_scored_row(document) for document in batch if not is_dropped(document)])
                rejected.write([_rejected_row(document) for document in batch if is_dropped(document)])
        write_text(task.receipt, json.dumps(task.hashes()))
        yield from ()


class _ParquetFile:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._files = ExitStack()
        self._path = path

    def __enter__(self) -> "_ParquetFile":
        temporary = self._files.enter_context(written_whole(self._path))
        self._writer = self._files.enter_context(pq.ParquetWriter(temporary, self._schema, **PARQUET_OPTIONS))
        return self

    def write(self, rows: list[dict[str, object]]) -> None:
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def __exit__(self, *error: object) -> bool | None:
        return self._files.__exit__(*error)  # type: ignore[arg-type]


def _scored_row(document: Document) -> dict[str, object]:
    counts = {"n_words": len(document.text.split()), "n_chars": len(document.text)}
    return {"doc_id": document.id, "text": document.text, **document.metadata, **counts}


def _rejected_row(document: Document) -> dict[str, object]:
    facts = {"reason": document.metadata[REASON], "n_words": len(document.text.split())}
    return {"doc_id": document.id, "text": document.text[:MAX_REJECT_CHARS], **document.metadata, **facts}
