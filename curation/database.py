"""DuckDB within a stated amount of memory, for what sees all documents of a profile at once."""

from pathlib import Path

import duckdb


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
