"""Opens a mix in DuckDB with the views and macros of composition.sql, for the commands that look at it."""

from pathlib import Path

import duckdb

from shared.console import UserError
from shared.manifest import read_manifest, shard_paths

COMPOSITION_SQL = Path(__file__).with_name("composition.sql")


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


def query(database: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[tuple[object, ...]]]:
    """Returns the column names and rows of a query. Raises UserError with DuckDB's own words where it is wrong."""
    try:
        result = database.sql(sql)
        if result is None:
            return [], []
        return list(result.columns), result.fetchall()
    except duckdb.Error as error:
        raise UserError(
            " ".join(str(error).split("\n\nLINE")[0].split()),
            "views: train, val, documents; macros: share_by('source'), grade_ratio(), holding('phrase')",
        ) from None
