"""Writes a mix: parquet shards under names that carry their hash, the manifest, then the dataset card and run record.

The manifest's rename commits the mix. Until then an earlier mix of the same name stands whole: new shards have other
names. Afterwards the old shards are swept.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.database import open_duckdb
from curation.dataset_card import ATTRIBUTION, dataset_card
from curation.grade_classifier import read_record
from curation.licenses import needs_attribution
from curation.mix import MixPlan, document_key
from curation.pool import Pool
from curation.settings import CurationSettings
from curation.versions import mix_version
from shared.console import UserError
from shared.files import TEMPORARY_PREFIX, sha256_file, short_hash, sync_folder, write_text, written_whole
from shared.manifest import (
    RUN_RECORD,
    GradeRatio,
    Manifest,
    ShardEntry,
    SourceEntry,
    read_manifest,
    recorded_manifest,
    write_manifest,
)
from shared.schema import PARQUET_OPTIONS, SCHEMA

ROW_GROUP_DOCUMENTS = 2048


@dataclass(frozen=True)
class MixPlace:
    """Where a mix goes: its manifest, the folder of its shards, and a scratch folder for sorting."""

    manifest: Path
    shards: Path
    scratch: Path

    def relative(self, shard: Path) -> str:
        """Returns a shard's path as the manifest names it: from the folder above the manifest's."""
        return Path(os.path.relpath(shard.resolve(), self.manifest.resolve().parent.parent)).as_posix()

    @property
    def run_record(self) -> Path:
        return self.shards / RUN_RECORD

    def record(self, data_dir: Path) -> dict[str, str]:
        """Returns what run.json says of this place: the manifest, from the shards' folder, data folder and code."""
        manifest = os.path.relpath(self.manifest.resolve(), self.shards.resolve())
        return {"manifest": manifest, "data_dir": str(data_dir.resolve()), "code": mix_version()}

    def is_of_this_code(self) -> bool:
        """Does run.json say that the code of mixes was the same?"""
        try:
            return bool(json.loads(self.run_record.read_bytes())["code"] == mix_version())
        except (OSError, ValueError, KeyError, TypeError):
            return False


def check_place(place: MixPlace) -> None:
    """Raises UserError when the folder of the shards belongs to a mix whose manifest stands elsewhere."""
    owner = recorded_manifest(place.shards)
    if owner is not None and owner != place.manifest.resolve() and owner.is_file():
        raise UserError(
            f"{place.shards} holds the shards of {owner}", "give this mix another --name, or its own --data-dir"
        )


def standing_mix(place: MixPlace, settings: CurationSettings, pool: Pool) -> Manifest | None:
    """Returns the manifest that stands if settings, pool and code were the same, and its shards are whole."""
    try:
        manifest = read_manifest(place.manifest)
    except UserError:
        return None
    if (manifest.settings_hash, manifest.pool_hash) != (settings_hash(settings), pool.hash):
        return None
    root = place.manifest.resolve().parent.parent
    entries = [entry for shards in manifest.splits.values() for entry in shards]
    if any((root / entry.path).resolve().parent != place.shards.resolve() for entry in entries):
        return None  # made with another --data-dir
    are_whole = all((root / e.path).is_file() and sha256_file(root / e.path) == e.sha256 for e in entries)
    return manifest if are_whole and place.is_of_this_code() else None


def settings_hash(settings: CurationSettings) -> str:
    """Returns the hash of all that decides what a mix holds, besides its pool."""
    return short_hash(settings.recorded())


def write_shards(
    pool: Pool, plan: MixPlan, place: MixPlace, shard_words: int, threads: int
) -> dict[str, list[ShardEntry]]:
    """Writes the train and val shards, whole and synced. Returns their manifest entries."""
    train = pool.train["doc_id"].take(plan.order).to_pylist()
    val = sorted(pool.val["doc_id"].to_pylist(), key=lambda doc_id: (document_key(f"val/{doc_id}"), doc_id))
    return {
        "train": list(_write_split("train", train, pool, place, shard_words, threads)),
        "val": list(_write_split("val", val, pool, place, shard_words, threads)),
    }


def _write_split(
    split: str, doc_ids: list[str], pool: Pool, place: MixPlace, shard_words: int, threads: int
) -> Iterator[ShardEntry]:
    n_words = dict(zip(pool.documents["doc_id"].to_pylist(), pool.documents["n_words"].to_pylist(), strict=True))
    if not doc_ids:
        return
    shard_of = (np.cumsum([n_words[doc_id] for doc_id in doc_ids]) - 1) // shard_words
    _, n_docs_of_shards = np.unique(shard_of, return_counts=True)
    with open_duckdb(place.scratch, threads) as database:
        rows = _Rows(database, doc_ids, [str(path) for path in pool.scored])
        for number, n_docs in enumerate(n_docs_of_shards.tolist()):
            yield _write_shard(split, number, n_docs, rows, place)


class _Rows:
    """A stream of documents in a given order, taken off in tables of any number.

    DuckDB sorts them, and spills to disk what memory does not hold.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, doc_ids: list[str], paths: list[str]) -> None:
        database.register("selection", pa.table({"doc_id": doc_ids, "position": range(len(doc_ids))}))
        columns = ", ".join(SCHEMA.names)
        self._reader = database.sql(
            f"SELECT {columns} FROM read_parquet($paths) JOIN selection USING (doc_id) ORDER BY position",
            params={"paths": paths},
        ).to_arrow_reader(ROW_GROUP_DOCUMENTS)
        self._rest = SCHEMA.empty_table()

    def take(self, n_rows: int) -> pa.Table:
        """Returns the next `n_rows` rows with the schema of shards."""
        while self._rest.num_rows < n_rows:
            batch = pa.Table.from_batches([self._reader.read_next_batch()]).cast(SCHEMA)
            self._rest = pa.concat_tables([self._rest, batch])
        taken, self._rest = self._rest.slice(0, n_rows), self._rest.slice(n_rows)
        return taken.combine_chunks()


def _write_shard(split: str, number: int, n_docs: int, rows: _Rows, place: MixPlace) -> ShardEntry:
    n_words = n_words_grade3 = 0
    unnamed = place.shards / f"{TEMPORARY_PREFIX}{split}-{number:05}.parquet"
    with written_whole(unnamed) as temporary, pq.ParquetWriter(temporary, SCHEMA, **PARQUET_OPTIONS) as writer:
        for start in range(0, n_docs, ROW_GROUP_DOCUMENTS):
            group = rows.take(min(ROW_GROUP_DOCUMENTS, n_docs - start))
            writer.write_table(group)
            words = np.asarray(group["n_words"], dtype=np.int64)
            n_words += int(words.sum())
            n_words_grade3 += int(words[np.asarray(group["part"]) == "grade3"].sum())
    sha256 = sha256_file(unnamed)
    path = place.shards / f"{split}-{number:05}-{sha256[:8]}.parquet"
    unnamed.replace(path)
    return ShardEntry(
        path=place.relative(path),
        sha256=sha256,
        bytes=path.stat().st_size,
        n_docs=n_docs,
        n_words=n_words,
        n_words_grade3=n_words_grade3,
    )


def make_manifest(
    pool: Pool,
    plan: MixPlan,
    splits: dict[str, list[ShardEntry]],
    name: str,
    settings: CurationSettings,
    classifier: Path,
    missing: list[str],
) -> Manifest:
    """Returns the manifest of a mix whose shards have been written."""
    record = read_record(classifier)
    scorer = {"classifier": classifier.name, **{k: record[k] for k in ("models", "fit", "labels", "syllables")}}
    return Manifest(
        name=name,
        profile=settings.profile,
        settings=settings.recorded(),
        settings_hash=settings_hash(settings),
        pool_hash=pool.hash,
        scorer=scorer,
        grade_ratio=GradeRatio(target=settings.mix.grade_ratio, actual=plan.ratio),
        sources=_sources_in(pool, plan),
        inputs={source.name: source.inputs for source in pool.sources},
        documents_in=pool.documents_in,
        dropped=pool.dropped,
        edited=pool.edited,
        licenses=_words_by_license(pool, plan),
        missing=missing,
        splits=splits,
    )


def _words_by_license(pool: Pool, plan: MixPlan) -> dict[str, int]:
    words = pool.train.take(plan.order).group_by("license").aggregate([("n_words", "sum")])
    pairs = zip(words["license"].to_pylist(), words["n_words_sum"].to_pylist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def attribution(pool: Pool, plan: MixPlan) -> str:
    """Returns the works of a mix whose licence asks that they be named, as CSV; those without a name in one line."""
    documents = pa.concat_tables([pool.train.take(np.unique(plan.order)), pool.val])
    works = documents.group_by(["source", "work", "license"]).aggregate(
        [("title", "min"), ("url", "min"), ("n_words", "sum")]
    )
    rows: dict[tuple[str, ...], list[int]] = {}
    for row in works.to_pylist():
        if needs_attribution(row["license"]):
            named = (row["title_min"] or "", row["url_min"] or "")
            key = (row["source"], *named, row["license"], row["work"] if any(named) else "")
            rows.setdefault(key, []).append(row["n_words_sum"])
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["source", "title", "url", "license", "work", "n_works", "n_words"])
    writer.writerows([*key, len(n_words), sum(n_words)] for key, n_words in sorted(rows.items()))
    return lines.getvalue()


def _sources_in(pool: Pool, plan: MixPlan) -> list[SourceEntry]:
    train = pool.train.take(plan.order)
    entries = []
    for source in pool.sources:
        mine = train.filter(pc.field("source") == source.name)
        grade3 = mine.filter(pc.field("part") == "grade3")
        if mine.num_rows:
            entries.append(
                SourceEntry(
                    name=source.name,
                    license=" AND ".join(sorted(set(mine["license"].to_pylist()))),
                    revision=source.revision,
                    n_docs=mine.num_rows,
                    n_words=pc.sum(mine["n_words"]).as_py(),
                    n_words_grade3=pc.sum(grade3["n_words"]).as_py() or 0,
                )
            )
    return entries


def commit(manifest: Manifest, place: MixPlace, credits: str) -> None:
    """Writes the manifest of a mix whose shards and run record are there: from here on it is the mix."""
    sync_folder(place.shards)
    write_manifest(manifest, place.manifest)
    finish(manifest, place, credits)


def finish(manifest: Manifest, place: MixPlace, credits: str) -> None:
    """Brings the folder of the shards in line with its manifest: card, attribution, no other shards. Does it once."""
    for name, text in (("README.md", dataset_card(manifest)), (ATTRIBUTION, credits)):
        path = place.shards / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    named = {Path(entry.path).name for entries in manifest.splits.values() for entry in entries}
    for path in place.shards.glob("*.parquet"):
        if path.name not in named:
            path.unlink()
