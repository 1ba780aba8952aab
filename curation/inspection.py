"""Opens a mix and the pool it was made of in DuckDB, for the commands that look at them.

In: a manifest, its shards, and the files that account.json of its pool names. Out: the views and macros of
composition.sql (train, val, documents), and with add_pool those of all documents there ever were.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from curation.licenses import is_open
from curation.outputs import REJECTED_SCHEMA
from curation.pool import ACCOUNT
from curation.reasons import NOT_OPEN, QUOTES_VAL
from shared.console import UserError
from shared.manifest import Manifest, read_manifest, shard_paths

COMPOSITION_SQL = Path(__file__).with_name("composition.sql")
_KINDS = ("documents", "verdicts", "scored", "index", "rejected", "evaluations", "val_ngrams")


def open_mix(manifest_path: Path) -> duckdb.DuckDBPyConnection:
    """Returns a DuckDB with views train, val and documents. Raises UserError when manifest or shards are not there."""
    shard_paths(manifest_path, read_manifest(manifest_path))
    database = duckdb.connect()
    root = manifest_path.resolve().parent.parent
    database.execute("SET VARIABLE manifest = $path", {"path": str(manifest_path)})
    database.execute("SET VARIABLE root = $root", {"root": str(root)})
    try:
        database.execute(COMPOSITION_SQL.read_text(encoding="utf-8"))
    except duckdb.Error as error:
        hint = f"python -m curation.verify {manifest_path} names what is wrong"
        raise UserError(f"{manifest_path}: {' '.join(str(error).split())}", hint) from None
    return database


def pool_files(manifest_path: Path) -> dict[str, list[Path]]:
    """Returns the files of the pool of a mix by what they hold, as curation.pool left word of them.

    Raises UserError where the data folder of the mix, or a file of its pool, is not there any more.
    """
    manifest = read_manifest(manifest_path)
    shards = next(path.parent for paths in shard_paths(manifest_path, manifest).values() for path in paths)
    again = f"the command that made {manifest_path} makes it again; run.json beside the shards holds it"
    try:
        data = shards.parent.parent  # of shards.MixPlace, wherever it was moved to
        account = json.loads((data / "pools" / manifest.pool_hash / ACCOUNT).read_bytes())
        files = {kind: [data / name for name in account[kind]] for kind in _KINDS}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"the pool that {manifest_path} was made of is not there any more", again) from None
    if missing := next((path for paths in files.values() for path in paths if not path.is_file()), None):
        raise UserError(f"{missing}, of the pool of {manifest_path}, is not there any more", again)
    return files


def add_pool(database: duckdb.DuckDBPyConnection, manifest_path: Path) -> dict[str, list[Path]]:
    """Adds the views of the pool of a mix, and returns the pool's files.

    - cleaned: the documents as they came out of the first stage, before any were compared or graded
    - verdicts: what the search of duplicates said of some of them
    - pool: the graded ones; `split` is train, val, or the reason why a document is in neither
    - rejected: all dropped ones with reason and detail, once each; sums by reason are those of the manifest
    """
    files = pool_files(manifest_path)
    closed = _closed_licenses(database, read_manifest(manifest_path), files["index"])
    columns = ", ".join(REJECTED_SCHEMA.names)
    database.execute(
        f"""
        CREATE OR REPLACE TEMP VIEW cleaned AS SELECT * FROM {_parquet(files["documents"])};
        CREATE OR REPLACE TEMP VIEW verdicts AS SELECT * FROM {_parquet(files["verdicts"])};
        CREATE OR REPLACE TEMP VIEW dropped_on_the_way AS SELECT * FROM {_parquet(files["rejected"])};
        CREATE OR REPLACE TEMP TABLE splits AS
        SELECT doc_id, split = 'val' AS is_held_out,
               CASE WHEN reason IS NOT NULL THEN reason WHEN {closed} THEN '{NOT_OPEN}' ELSE split END AS split
        FROM {_parquet(files["index"])}
        LEFT JOIN (SELECT doc_id, reason FROM dropped_on_the_way WHERE reason = '{QUOTES_VAL}') USING (doc_id);
        CREATE OR REPLACE TEMP VIEW pool AS
        SELECT scored.*, coalesce(split, 'duplicate') AS split
        FROM {_parquet(files["scored"])} scored LEFT JOIN (SELECT doc_id, split FROM splits) USING (doc_id);
        CREATE OR REPLACE TEMP VIEW rejected AS
        SELECT {columns} FROM dropped_on_the_way
        WHERE reason <> '{QUOTES_VAL}' OR doc_id IN (SELECT doc_id FROM splits) -- and no copy of one that quotes
        UNION ALL BY NAME
        SELECT doc_id, work, source, title, split AS reason, license AS detail, n_words, text
        FROM pool WHERE split = '{NOT_OPEN}';
        """
    )
    return files


def _closed_licenses(database: duckdb.DuckDBPyConnection, manifest: Manifest, index: Sequence[Path]) -> str:
    """Returns as SQL whether a document's licence keeps it out of the mix."""
    if manifest.settings.get("mix", {}).get("licenses") != "open":
        return "false"
    licenses = database.execute(f"SELECT DISTINCT license FROM {_parquet(index)}").fetchall()
    return f"license IN ({_quoted([name for (name,) in licenses if not is_open(name)] or [''])})"


def _parquet(paths: Sequence[Path]) -> str:
    return f"read_parquet([{_quoted(map(str, paths))}])"


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(quoted(value) for value in values)


def quoted(value: str) -> str:
    """Returns a text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


VIEWS = "views: train, val, documents; macros: share_by('source'), grade_ratio(), holding('phrase')"


def query(
    database: duckdb.DuckDBPyConnection, sql: str, hint: str = VIEWS
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Returns the column names and rows of a query. Raises UserError with DuckDB's own words where it is wrong."""
    try:
        result = database.sql(sql)
        if result is None:
            return [], []
        return list(result.columns), result.fetchall()
    except duckdb.Error as error:
        raise UserError(" ".join(str(error).split("\n\nLINE")[0].split()), hint) from None


def rows(database: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """Returns the rows of a query of ours by column."""
    names, found = query(database, sql)
    return [dict(zip(names, row, strict=True)) for row in found]


def shortened(text: str, chars: int) -> str:
    """Returns the beginning of a text, cut between words."""
    return text if len(text) <= chars else (text[:chars].rsplit(None, 1) or [""])[0] + " ..."
