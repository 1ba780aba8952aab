"""The first stage, a map over files: reads, repairs, masks, cleans, and sketches for the search of duplicates.

A task is a fixed bundle of files of one source. Its outputs lie under data/documents/<source>/<hash>/, where the hash
is of everything that can change them: settings, input files, code, library versions.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from curation.clean import repair, why_rejected
from curation.documents import drop, is_dropped, kept_batches
from curation.outputs import DOCUMENT_SCHEMA, REJECTED_SCHEMA, Outputs, ParquetFile
from curation.pii import mask
from curation.pull import SourceFile
from curation.settings import CleaningSettings, SourceSettings
from curation.sketch import SKETCH_SCHEMA, sketch_documents
from curation.sources import READERS

# Of input files, as if uncompressed; from the input alone, so that workers never change a task. A large source has
# larger tasks, not more of them: every job of a cluster is handed the list of all.
TASK_BYTES, MAX_TASKS = 4_000_000, 4096
READ_BY_GROUPS = ("rows", "wikipedia")  # readers that can read some row groups of a parquet file
MASKED = "masked"  # metadata key: what was masked in a document, by kind


@dataclass(frozen=True)
class FilePart:
    """A file, or some row groups of a parquet file that is too large for one task."""

    file: SourceFile
    groups: range | None = None


@dataclass(frozen=True)
class ReadTask:
    """A bundle of files of one source, and where their documents go."""

    source: str
    settings: SourceSettings
    parts: tuple[FilePart, ...]
    documents: Path
    rejected: Path

    @property
    def sketches(self) -> Path:
        """The file of the documents' sketches, row by row beside them."""
        return self.documents.with_suffix(".sketches.parquet")

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.documents.with_suffix(".json"), (self.documents, self.sketches, self.rejected))

    def is_done(self) -> bool:
        return self.outputs.are_whole()


def make_read_tasks(
    source: str, settings: SourceSettings, files: Iterable[SourceFile], documents: Path, rejected: Path
) -> list[ReadTask]:
    """Returns the tasks of a source: its files in order, bundled up to TASK_BYTES, or more where there are many."""
    files = list(files)
    task_bytes = max(TASK_BYTES, sum(map(_size, files)) // MAX_TASKS)
    bundles: list[list[FilePart]] = []
    room = 0
    for part, size in (sized for file in files for sized in _parts(file, settings, task_bytes)):
        if size > room or not bundles:
            bundles.append([])
            room = task_bytes
        bundles[-1].append(part)
        room -= size
    return [
        ReadTask(source, settings, tuple(bundle), documents / f"{i:05}.parquet", rejected / f"{i:05}.parquet")
        for i, bundle in enumerate(bundles)
    ]


def _size(file: SourceFile) -> int:
    """Returns about how many bytes a file has when it is not compressed."""
    return file.path.stat().st_size * (3 if file.path.suffix in (".gz", ".parquet") else 1)


def _parts(file: SourceFile, settings: SourceSettings, task_bytes: int) -> Iterator[tuple[FilePart, int]]:
    """Yields a file whole, or a large parquet file in runs of row groups, each with its bytes."""
    size = _size(file)
    if settings.reader not in READ_BY_GROUPS or file.path.suffix != ".parquet" or size <= task_bytes:
        yield FilePart(file), size
        return
    try:
        metadata = pq.read_metadata(file.path)
    except (pa.ArrowException, OSError):  # the reader says what is wrong with it
        yield FilePart(file), size
        return
    start = n_bytes = 0
    for i in range(metadata.num_row_groups):
        n_bytes += metadata.row_group(i).total_byte_size
        if n_bytes >= task_bytes or i == metadata.num_row_groups - 1:
            yield FilePart(file, range(start, i + 1)), n_bytes
            start, n_bytes = i + 1, 0


def read_pipeline(tasks: Sequence[ReadTask], cleaning: CleaningSettings) -> list[PipelineStep]:
    """Returns the pipeline whose rank r does task r."""
    return [ReadDocuments(tasks, cleaning), CleanDocuments(cleaning), WriteDocuments(tasks)]


class ReadDocuments(PipelineStep):
    """Yields the documents of a task's files."""

    name, type = "read", "reader"

    def __init__(self, tasks: Sequence[ReadTask], cleaning: CleaningSettings) -> None:
        super().__init__()
        self.tasks, self.cleaning = tasks, cleaning

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        read = READERS[task.settings.reader]
        for part in task.parts:
            groups = {} if part.groups is None else {"groups": part.groups}
            yield from read(part.file.path, task.source, task.settings, self.cleaning, **groups)


class CleanDocuments(PipelineStep):
    """Repairs texts, masks what could find a person, and drops what is no readable English."""

    name, type = "clean", "filter"

    def __init__(self, cleaning: CleaningSettings) -> None:
        super().__init__()
        self.cleaning = cleaning

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            if not is_dropped(document):
                document.text, document.metadata[MASKED] = mask(repair(document.text))
                if reason := why_rejected(document.text, self.cleaning):
                    drop(document, reason)
            yield document


class WriteDocuments(PipelineStep):
    """Writes a task's kept documents with their sketches, its rejects, and last the receipt."""

    name, type = "write", "writer"

    def __init__(self, tasks: Sequence[ReadTask]) -> None:
        super().__init__()
        self.tasks = tasks

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        if task.is_done():
            return
        reasons: Counter[str] = Counter()
        masked: Counter[str] = Counter()
        n_kept = 0
        with ExitStack() as files:
            documents = files.enter_context(ParquetFile(task.documents, DOCUMENT_SCHEMA))
            sketches = files.enter_context(ParquetFile(task.sketches, SKETCH_SCHEMA))
            rejected = files.enter_context(ParquetFile(task.rejected, REJECTED_SCHEMA))
            for kept in kept_batches(data, rejected, reasons):
                documents.write([{"doc_id": d.id, "text": d.text, **d.metadata} for d in kept])
                sketches.write(sketch_documents(kept, with_lines=task.settings.reader == "web"))
                for document in kept:
                    masked.update(document.metadata[MASKED])
                n_kept += len(kept)
        task.outputs.seal({"documents": {"kept": n_kept}, "dropped": reasons, "masked": masked})
        yield from ()
