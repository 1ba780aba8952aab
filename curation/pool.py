"""The pool of a profile: all its graded documents, less exact duplicates, with the held-out works marked.

Two stages make it: a shuffle that chooses the held-out works (data/pools/<hash>/), and a map that looks for their
passages in all other works. It is an index without texts; mixes read it in milliseconds and fetch texts from the scored
files.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from curation.database import open_duckdb
from curation.decontaminate import NgramIndex
from curation.documents import BATCH_DOCUMENTS
from curation.licenses import FREEST_FIRST, is_open
from curation.outputs import MAX_REJECT_CHARS, REJECTED_SCHEMA, Outputs, write_parquet
from curation.read import ReadTask
from curation.reasons import NOT_OPEN, QUOTES_VAL
from curation.score import ScoreTask
from shared.console import table
from shared.files import write_text
from shared.manifest import InputEntry
from shared.schema import PARTS

VAL_SHARE, VAL_MIN_WORDS, VAL_MAX_SHARE = 0.02, 2500, 0.10


@dataclass(frozen=True)
class SourceTasks:
    """The tasks of one source, and what its files were."""

    name: str
    revision: str
    inputs: InputEntry
    read: list[ReadTask]
    score: list[ScoreTask]


@dataclass(frozen=True)
class HoldOutTask:
    """Chooses the held-out works of a pool: its index, exact duplicates, and the index of the held-out passages."""

    sources: tuple[SourceTasks, ...]
    home: Path
    scratch: Path
    threads: int

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.home / "pool.json", (self.index, self.duplicates, self.val_ngrams))

    @property
    def index(self) -> Path:
        return self.home / "documents.parquet"

    @property
    def duplicates(self) -> Path:
        return self.home / "rejected.parquet"

    @property
    def val_ngrams(self) -> Path:
        return self.home / "val.npz"

    def is_done(self) -> bool:
        return self.outputs.are_whole()

    def run(self) -> None:
        """Makes the outputs from the scored files."""
        documents, duplicates = _distinct(self.sources, self.scratch, self.threads)
        documents = documents.append_column("split", pa.array(choose_val(documents)))
        write_parquet(documents, self.index)
        write_parquet(duplicates.cast(REJECTED_SCHEMA), self.duplicates)
        held = documents.filter(pc.field("split") == "val")["doc_id"]
        val = pc.field("doc_id").isin(held.combine_chunks())  # of no chunks, its type would be unknown
        paths = [task.scored for source in self.sources for task in source.score]
        texts = (text for path in paths for text in pq.read_table(path, filters=val)["text"].to_pylist())
        NgramIndex.build({"val": texts}).save(self.val_ngrams)
        self.outputs.seal({"dropped": Counter(duplicates["source"].to_pylist())})


@dataclass(frozen=True)
class OverlapTask:
    """Looks for passages of held-out works in the documents of one scored file."""

    score: ScoreTask
    hold_out: HoldOutTask
    number: int  # among the tasks of all sources

    @property
    def outputs(self) -> Outputs:
        found = self.hold_out.home / "quotes_val" / f"{self.number:06}.parquet"
        return Outputs(found.with_suffix(".json"), (found,))

    def is_done(self) -> bool:
        return self.outputs.are_whole()

    def run(self) -> None:
        """Writes the rejected rows of the documents that quote a held-out work."""
        held = set(
            pq.read_table(self.hold_out.index, columns=["doc_id"], filters=pc.field("split") == "val")[
                "doc_id"
            ].to_pylist()
        )
        index = NgramIndex.load(self.hold_out.val_ngrams)
        rows = []
        for batch in pq.ParquetFile(self.score.scored).iter_batches(batch_size=BATCH_DOCUMENTS):
            others = [row for row in batch.to_pylist() if row["doc_id"] not in held]
            for row, quoted in zip(others, index.find_all([row["text"] for row in others]), strict=True):
                if quoted:
                    rows.append({**row, "reason": QUOTES_VAL, "detail": None, "text": row["text"][:MAX_REJECT_CHARS]})
        write_parquet(pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA), self.outputs.files[0])
        self.outputs.seal({"dropped": {QUOTES_VAL: len(rows)}})


class RunTasks(PipelineStep):
    """Runs tasks that are no streams of documents."""

    name, type = "run", "task"

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__()
        self.tasks = tasks

    @classmethod
    def pipeline(cls, tasks: Sequence[Any]) -> list[PipelineStep]:
        """Returns the pipeline whose rank r runs task r."""
        return [cls(tasks)]

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if not self.tasks[rank].is_done():
            self.tasks[rank].run()
        yield from ()


@dataclass(frozen=True)
class Pool:
    """An index of documents (no texts) with column `split`, and the account of what never came into it."""

    hash: str
    folder: Path
    sources: list[SourceTasks]
    documents: pa.Table
    documents_in: dict[str, int]
    dropped: dict[str, dict[str, int]]  # source -> reason -> documents
    edited: dict[str, dict[str, int]]  # source -> what was masked after reading or cut out before grading -> how often

    @property
    def train(self) -> pa.Table:
        return self.documents.filter(pc.field("split") == "train")

    @property
    def val(self) -> pa.Table:
        return self.documents.filter(pc.field("split") == "val")

    @property
    def scored(self) -> list[Path]:
        """The files that hold the documents with their texts."""
        return [task.scored for source in self.sources for task in source.score]

    def parts_without_val(self) -> list[str]:
        """Returns the parts of which no document is held out though there are some."""
        there, held = (set(table["part"].to_pylist()) for table in (self.documents, self.val))
        return [part for part in PARTS if part in there and part not in held]


def open_pool(
    sources: Sequence[SourceTasks],
    hold_out: HoldOutTask,
    overlaps: Sequence[OverlapTask],
    licenses: str,
    evaluations: Path,
    data: Path,
) -> Pool:
    """Returns the pool that the stages made, and leaves in its folder where all its documents can be read.

    With licenses "open", what is non-commercial or of unknown licence is in neither split. What quotes a held-out work
    is called that, whatever its licence.
    """
    quoting = pa.concat_tables(pq.read_table(task.outputs.files[0], columns=["doc_id", "source"]) for task in overlaps)
    documents = pq.read_table(hold_out.index)
    left_out = {}
    if licenses == "open":
        left_out[NOT_OPEN] = pa.array([not is_open(license) for license in documents["license"].to_pylist()])
    left_out[QUOTES_VAL] = pc.is_in(documents["doc_id"], quoting["doc_id"].combine_chunks())
    for reason, is_left_out in left_out.items():
        split = pc.if_else(is_left_out, reason, documents["split"])
        documents = documents.set_column(documents.column_names.index("split"), "split", split)
    dropped = {source.name: _dropped(source) for source in sources}
    for source, n in hold_out.outputs.counts()["dropped"].items():
        dropped[source]["duplicate"] += n
    for reason in left_out:
        for source in documents.filter(pc.field("split") == reason)["source"].to_pylist():
            dropped[source][reason] += 1
    pool = Pool(
        hold_out.home.name,
        hold_out.home,
        list(sources),
        documents,
        {source.name: _total(source.read, "documents") + _total(source.read, "dropped") for source in sources},
        {name: dict(sorted(reasons.items())) for name, reasons in dropped.items()},
        {source.name: dict(sorted(_edited(source).items())) for source in sources},
    )
    _leave_account(pool, hold_out, overlaps, evaluations, data)
    return pool


def _counts(tasks: Iterable[ReadTask | ScoreTask], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for task in tasks:
        total.update(task.outputs.counts().get(what, {}))
    return total


def _total(tasks: Iterable[ReadTask | ScoreTask], what: str) -> int:
    return _counts(tasks, what).total()


def _dropped(source: SourceTasks) -> Counter[str]:
    return _counts([*source.read, *source.score], "dropped")


def _edited(source: SourceTasks) -> Counter[str]:
    masked = {f"masked {kind}": n for kind, n in _counts(source.read, "masked").items()}
    return Counter(masked) + _counts(source.score, "removed")


ACCOUNT = "account.json"


def _leave_account(
    pool: Pool, hold_out: HoldOutTask, overlaps: Sequence[OverlapTask], evaluations: Path, data: Path
) -> None:
    """Writes where all documents of the pool can be read, kept and dropped ones, for inspection.py."""

    def names(paths: Iterable[Path]) -> list[str]:
        return [path.resolve().relative_to(data.resolve()).as_posix() for path in paths]

    account = {
        "documents": names(task.documents for source in pool.sources for task in source.read),
        "verdicts": names(dict.fromkeys(task.verdicts for source in pool.sources for task in source.score)),
        "scored": names(pool.scored),
        "index": names([hold_out.index]),
        "evaluations": names([evaluations]),
        "val_ngrams": names([hold_out.val_ngrams]),
        "rejected": names(
            [
                *(task.rejected for source in pool.sources for task in source.read),
                *(task.rejected for source in pool.sources for task in source.score),
                hold_out.duplicates,
                *(task.outputs.files[0] for task in overlaps),
            ]
        ),
    }
    text = json.dumps(account, indent=1) + "\n"
    path = pool.folder / ACCOUNT
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _distinct(sources: Sequence[SourceTasks], scratch: Path, threads: int) -> tuple[pa.Table, pa.Table]:
    """Returns the index of distinct documents, and the others as rejected rows. Of equal texts the freer is kept."""
    paths = {"paths": [str(task.scored) for source in sources for task in source.score]}
    with open_duckdb(scratch, threads) as database:
        order = pa.table({"source": [s.name for s in sources], "preference": range(len(sources))})
        database.register("preferences", order)
        database.execute(
            f"""
            CREATE TEMP TABLE ranked AS
            SELECT * EXCLUDE (text, preference),
                   row_number() OVER same AS copy, first(doc_id) OVER same AS kept_doc_id
            FROM (SELECT doc_id, work, source, title, url, license, genre, subject, part, n_words, grade, preference,
                         md5(lower(regexp_replace(text, '\\s+', ' ', 'g'))) AS text
                  FROM read_parquet($paths) JOIN preferences USING (source))
            WINDOW same AS (PARTITION BY text
                            ORDER BY coalesce(list_position({list(FREEST_FIRST)}, license), 99), preference, doc_id
                            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
            """,
            paths,
        )
        index = database.sql(
            "SELECT * EXCLUDE (copy, kept_doc_id) FROM ranked WHERE copy = 1 ORDER BY doc_id"
        ).to_arrow_table()
        duplicates = database.sql(
            f"""SELECT doc_id, work, source, title, 'duplicate' AS reason, kept_doc_id AS detail, n_words,
                       left(text, {MAX_REJECT_CHARS}) AS text
                FROM ranked JOIN (SELECT doc_id, text FROM read_parquet($paths)) USING (doc_id)
                WHERE copy > 1 ORDER BY doc_id""",
            params=paths,
        ).to_arrow_table()
    return index, duplicates


def choose_val(documents: pa.Table) -> list[str]:
    """Returns "val" or "train" for each document. Whole works are held out, by their hash, the same for every mix.

    For each part about VAL_SHARE of its words, at least VAL_MIN_WORDS, at most VAL_MAX_SHARE; works that would
    overshoot are passed over while smaller ones may fit, and taken in a second round where none did.
    """
    totals = {part: _n_words(documents, part) for part in PARTS}
    target = {part: min(max(VAL_SHARE * n, VAL_MIN_WORDS), VAL_MAX_SHARE * n) for part, n in totals.items()}
    by_work: dict[str, Counter[str]] = {}
    columns = (documents[name].to_pylist() for name in ("work", "part", "n_words"))
    for work, part, n_words in zip(*columns, strict=True):
        by_work.setdefault(work, Counter())[part] += n_words
    order = sorted(by_work, key=lambda work: (hashlib.blake2b(f"val/{work}".encode(), digest_size=8).digest(), work))
    chosen: set[str] = set()
    held: Counter[str] = Counter()
    most = {part: VAL_MAX_SHARE * n for part, n in totals.items()}
    for limit in ({part: min(1.25 * target[part], most[part]) for part in PARTS}, most):
        for work in order:
            if work in chosen or not any(held[p] < target[p] and by_work[work][p] for p in PARTS):
                continue
            if all(held[p] + by_work[work][p] <= limit[p] for p in PARTS):
                chosen.add(work)
                held.update(by_work[work])
    return ["val" if work in chosen else "train" for work in documents["work"].to_pylist()]


def _n_words(documents: pa.Table, part: str) -> int:
    return pc.sum(documents.filter(pc.field("part") == part)["n_words"]).as_py() or 0


def supply_table(pool: Pool) -> str:
    """Returns as a table what each source that has files gives to a pool, and under which licence."""
    in_pool = pool.documents.filter(pc.field("split").isin(["train", "val"]))
    rows: list[Sequence[object]] = []
    for name, n_in in pool.documents_in.items():
        mine = in_pool.filter(pc.field("source") == name)
        grade3 = mine.filter(pc.field("part") == "grade3")
        n_words = [pc.sum(kept["n_words"]).as_py() or 0 for kept in (mine, grade3)]
        if n_in:
            licenses = ", ".join(sorted(set(mine["license"].to_pylist())))
            rows.append([name, n_in, n_in - mine.num_rows, mine.num_rows, *n_words, licenses])
    return table(rows, ["source", "documents", "dropped", "kept", "words", "words grade3", "licence"])
