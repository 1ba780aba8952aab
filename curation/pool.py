"""The pool of a profile: all its scored documents, less exact duplicates, with the held-out works marked.

It is an index without texts (data/pools/<hash>/documents.parquet) beside the rejects of this stage; mixes read it in
milliseconds and fetch texts from the scored files.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.versions import mixing_version
from shared.files import sha256_file, short_hash, write_text, written_whole
from shared.manifest import InputEntry
from shared.schema import PARQUET_OPTIONS, PARTS

VAL_SHARE, VAL_MIN_WORDS, VAL_MAX_SHARE = 0.02, 2500, 0.10
INDEX, DUPLICATES, ACCOUNT = "documents.parquet", "rejected.parquet", "account.json"

# Freer licences first: of two equal texts the one that may be used for more is kept.
_LICENSE_RANK = (
    "list_position(['CC0-1.0', 'CC-PDM-1.0', 'CC-BY-4.0', 'CC-BY-SA-4.0', 'CC-BY-NC-4.0', 'CC-BY-NC-SA-4.0'], license)"
)


@dataclass(frozen=True)
class ScoredSource:
    """The output of the scoring stage for one source, in parquet files that stand whole."""

    name: str
    revision: str
    inputs: InputEntry
    scored: list[Path]
    rejected: list[Path]


@dataclass(frozen=True)
class Pool:
    """An index of documents (no texts) with column `split`, and the account of what never came into it."""

    hash: str
    folder: Path
    sources: list[ScoredSource]
    documents: pa.Table
    documents_in: dict[str, int]
    dropped: dict[str, dict[str, int]]

    @property
    def train(self) -> pa.Table:
        return self.documents.filter(pc.field("split") == "train")

    @property
    def val(self) -> pa.Table:
        return self.documents.filter(pc.field("split") == "val")

    def parts_without_val(self) -> list[str]:
        """Returns the parts of which no document is held out though there are some."""
        there, held = (set(table["part"].to_pylist()) for table in (self.documents, self.val))
        return [part for part in PARTS if part in there and part not in held]


def build_pool(sources: Sequence[ScoredSource], folder: Path, scratch: Path, threads: int) -> Pool:
    """Returns the pool of scored sources, made if need be. Of equal texts the freer, then the earlier, is kept."""
    outputs = [[source.name, *(f"{p.parent.name}/{p.name}" for p in source.scored)] for source in sources]
    pool_hash = short_hash([outputs, mixing_version()])
    home = folder / pool_hash
    if (account := _read_account(home)) is None:
        _make(sources, home, scratch, threads)
        account = _read_account(home)
        assert account is not None, home
    return Pool(
        pool_hash, home, list(sources), pq.read_table(home / INDEX), account["documents_in"], account["dropped"]
    )


def _read_account(home: Path) -> dict[str, Any] | None:
    """Returns the account of a pool if it stands as it was written."""
    try:
        account: dict[str, Any] = json.loads((home / ACCOUNT).read_bytes())
        return account if account["index_sha256"] == sha256_file(home / INDEX) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(sources: Sequence[ScoredSource], home: Path, scratch: Path, threads: int) -> None:
    with open_duckdb(scratch, threads) as database:
        order = pa.table({"source": [s.name for s in sources], "preference": range(len(sources))})
        database.register("preferences", order)
        database.execute(
            f"""
            CREATE TEMP TABLE ranked AS
            SELECT * EXCLUDE (text, preference),
                   row_number() OVER same AS copy, first(doc_id) OVER same AS kept_doc_id
            FROM (SELECT doc_id, work, source, title, license, genre, subject, part, n_words, grade, preference,
                         md5(lower(regexp_replace(text, '\\s+', ' ', 'g'))) AS text
                  FROM read_parquet($paths) JOIN preferences USING (source))
            WINDOW same AS (PARTITION BY text ORDER BY coalesce({_LICENSE_RANK}, 99), preference, doc_id
                            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
            """,
            {"paths": [str(path) for source in sources for path in source.scored]},
        )
        index = database.sql(
            "SELECT * EXCLUDE (copy, kept_doc_id) FROM ranked WHERE copy = 1 ORDER BY doc_id"
        ).to_arrow_table()
        duplicates = database.sql(
            """SELECT doc_id, work, source, title, 'duplicate' AS reason, n_words,
                      'same text as ' || kept_doc_id AS text
               FROM ranked WHERE copy > 1 ORDER BY doc_id"""
        ).to_arrow_table()
    dropped = {source.name: Counter(_reasons(source.rejected)) for source in sources}
    n_scored = Counter({s.name: sum(pq.read_metadata(path).num_rows for path in s.scored) for s in sources})
    documents_in = {s.name: n_scored[s.name] + sum(dropped[s.name].values()) for s in sources}
    for source in duplicates["source"].to_pylist():
        dropped[source]["duplicate"] += 1
    index = index.append_column("split", pa.array(choose_val(index)))
    account: dict[str, Any] = {
        "documents_in": documents_in,
        "dropped": {name: dict(sorted(reasons.items())) for name, reasons in dropped.items()},
    }
    with written_whole(home / INDEX) as temporary:
        pq.write_table(index, temporary, **PARQUET_OPTIONS)
    with written_whole(home / DUPLICATES) as temporary:
        pq.write_table(duplicates, temporary, **PARQUET_OPTIONS)
    account["index_sha256"] = sha256_file(home / INDEX)
    write_text(home / ACCOUNT, json.dumps(account, indent=1) + "\n")


def _reasons(paths: Iterable[Path]) -> list[str]:
    return [reason for path in paths for reason in pq.read_table(path, columns=["reason"])["reason"].to_pylist()]


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


def open_duckdb(scratch: Path, threads: int) -> duckdb.DuckDBPyConnection:
    """Returns a DuckDB that stays within a gigabyte and spills to `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "1GB",
        "threads": threads,
        "temp_directory": str(scratch),
        "preserve_insertion_order": True,
    }
    return duckdb.connect(config=config)
