"""The second map: what the search of duplicates left of each task's documents, decontaminated and graded.

Its outputs lie under data/scored/<source>/<hash>/. The hash is of the documents read, the verdicts on them, the
evaluations, the classifier and the settings; the verdicts are a file of the stage before, so it is known once that file
is there. A source whose verdicts another source does not change is not graded again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from curation.decontaminate import NgramIndex
from curation.dedup import VERDICT_SCHEMA, remove_paragraphs
from curation.documents import BATCH_DOCUMENTS, drop, is_dropped, kept_batches
from curation.grading import Scorer
from curation.normalise import genre_of
from curation.outputs import REJECTED_SCHEMA, Outputs, ParquetFile
from curation.reasons import QUOTES
from curation.settings import GradingSettings
from curation.subjects import subject_of
from shared.files import sha256_file, short_hash
from shared.schema import SCHEMA


@dataclass(frozen=True)
class ScoreTask:
    """The documents of one read task, the verdicts on its source, and where what is left of them goes."""

    source: str
    documents: Path
    verdicts: Path
    key: str  # hash of all but the verdicts
    scored_folder: Path  # data/scored/<source>
    rejected_folder: Path  # data/rejected/<source>

    @property
    def scored(self) -> Path:
        return self.scored_folder / self._hash() / self.documents.name

    @property
    def rejected(self) -> Path:
        return self.rejected_folder / self._hash() / self.documents.name

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.scored.with_suffix(".json"), (self.scored, self.rejected))

    def is_done(self) -> bool:
        return self.verdicts.is_file() and self.outputs.are_whole()

    def _hash(self) -> str:
        stands = self.verdicts.stat()
        return short_hash([self.key, _hash_of(self.verdicts, stands.st_size, stands.st_mtime_ns)])


@lru_cache(maxsize=256)
def _hash_of(verdicts: Path, size: int, mtime_ns: int) -> str:
    """Returns the hash of a source's verdicts, read once for all its tasks."""
    return sha256_file(verdicts)


def score_pipeline(
    tasks: Sequence[ScoreTask], min_words: int, evaluations: Path, classifier_folder: Path, grading: GradingSettings
) -> list[PipelineStep]:
    """Returns the pipeline whose rank r does task r."""
    return [
        KeptDocuments(tasks, min_words),
        Decontaminate(evaluations),
        GradeDocuments(classifier_folder, grading),
        WriteScored(tasks),
    ]


class KeptDocuments(PipelineStep):
    """Yields a task's documents without the paragraphs that stand elsewhere; drops those that repeat another."""

    name, type = "without duplicates", "reader"

    def __init__(self, tasks: Sequence[ScoreTask], min_words: int) -> None:
        super().__init__()
        self.tasks, self.min_words = tasks, min_words

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        verdicts = {row["doc_id"]: row for row in _verdicts(task).to_pylist()}
        for batch in pq.ParquetFile(task.documents).iter_batches(batch_size=BATCH_DOCUMENTS):
            for row in batch.to_pylist():
                document = Document(text=row.pop("text"), id=row.pop("doc_id"), metadata=row)
                if verdict := verdicts.get(document.id):
                    n_before = len(document.text.split())
                    if verdict["paragraphs"]:
                        document.metadata[REMOVED] = len(verdict["paragraphs"])
                        document.text = remove_paragraphs(document.text, verdict["paragraphs"])
                    n_left = len(document.text.split())
                    is_torso = verdict["kept_doc_id"] is not None and n_left < LEAST_LEFT * n_before
                    if verdict["reason"]:
                        drop(document, verdict["reason"], verdict["kept_doc_id"])
                    elif n_left < self.min_words or is_torso:
                        drop(document, "repeated_paragraphs", verdict["kept_doc_id"])
                yield document


def _verdicts(task: ScoreTask) -> pa.Table:
    """Returns the verdicts on a task's own documents; a large source has many times more."""
    mine = pq.read_table(task.documents, columns=["doc_id"])["doc_id"].combine_chunks()
    if not len(mine):
        return VERDICT_SCHEMA.empty_table()
    first, last = pc.min(mine), pc.max(mine)
    doc_id = pc.field("doc_id")
    return pq.read_table(task.verdicts, filters=(doc_id >= first) & (doc_id <= last) & doc_id.isin(mine))


LEAST_LEFT = 0.5  # of the words of a document: questions without their story are no text; a page without its menu is
REMOVED = "removed"  # metadata key: how many paragraphs of a document stand elsewhere


class Decontaminate(PipelineStep):
    """Drops documents that hold a passage of an evaluation."""

    name, type = "decontaminate", "filter"

    def __init__(self, evaluations: Path) -> None:
        super().__init__()
        self.evaluations = evaluations

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        index = NgramIndex.load(self.evaluations)
        while batch := list(islice(data, BATCH_DOCUMENTS)):
            kept = [document for document in batch if not is_dropped(document)]
            for document, names in zip(kept, index.find_all([document.text for document in kept]), strict=True):
                if names:
                    drop(document, f"{QUOTES}{names[0]}", ", ".join(names))
            yield from batch


NO_LESSONS = ("verse", "transcript", "story", "novel")  # genres whose words say little about what they teach


class GradeDocuments(PipelineStep):
    """Adds grades and part; verse and talk become genres of their own, and lessons without a subject get one."""

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
                facts = document.metadata
                facts["genre"] = genre_of(document.text) or facts["genre"]
                if facts["subject"] is None and facts["genre"] not in NO_LESSONS:
                    facts["subject"] = subject_of(document.text)
            yield from batch


class WriteScored(PipelineStep):
    """Writes a task's graded documents and its rejects, and last the receipt."""

    name, type = "write", "writer"

    def __init__(self, tasks: Sequence[ScoreTask]) -> None:
        super().__init__()
        self.tasks = tasks

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.tasks[rank]
        if task.is_done():
            return
        reasons: Counter[str] = Counter()
        n_kept = n_removed = 0
        with ExitStack() as files:
            scored = files.enter_context(ParquetFile(task.scored, SCHEMA))
            rejected = files.enter_context(ParquetFile(task.rejected, REJECTED_SCHEMA))
            for kept in kept_batches(data, rejected, reasons):
                scored.write([_scored_row(document) for document in kept])
                n_kept += len(kept)
                n_removed += sum(document.metadata.get(REMOVED, 0) for document in kept)
        counts = {"documents": {"kept": n_kept}, "dropped": reasons, "removed": {"repeated_paragraph": n_removed}}
        task.outputs.seal(counts)
        yield from ()


def _scored_row(document: Document) -> dict[str, object]:
    counts = {"n_words": len(document.text.split()), "n_chars": len(document.text)}
    return {"doc_id": document.id, "text": document.text, **document.metadata, **counts}
