"""The files published sets come in: plain or .gz, an archive of a repository, CSV, a workbook, JSON, parquet.

In: a path, as a mirror holds it or as its publisher serves it. Out: names and bytes, then rows. Neighbours:
label_sets.py, sources/quiz_sets.py and evaluations.py, which know what the rows mean.
"""

import csv
import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

ALL_MEMBERS = re.compile("")
AGAIN = "remove it, and the same command downloads it again; in a mirror, copy it again"  # what mends a broken file


class WrongFormat(ValueError):
    """A file that can be opened, but is not what its set publishes."""


UNREADABLE = (
    WrongFormat,
    UnicodeDecodeError,
    orjson.JSONDecodeError,
    csv.Error,
    SyntaxError,  # of XML: both ElementTree's error and lxml's, which openpyxl may use
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    pa.ArrowException,
)


def why_unreadable(error: Exception) -> str:
    """Returns the message of an error on one line, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def members(path: Path, pattern: re.Pattern[str] = ALL_MEMBERS) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of an archive's members whose name matches, or of a plain file; both unpacked from .gz.

    A name without a suffix is a commit's: the last part of the address a code host serves its archive at.
    """
    if path.name.endswith((".tar.gz", ".tgz")) or not path.suffix:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if pattern.search(member.name) else None
                if file:
                    yield _unpacked(member.name, file.read())
    else:
        yield _unpacked(f"{path.parent.name}/{path.name}", path.read_bytes())


def _unpacked(name: str, data: bytes) -> tuple[str, bytes]:
    return (name.removesuffix(".gz"), gzip.decompress(data)) if name.endswith(".gz") else (name, data)


def decoded(data: bytes) -> str:
    """Returns a text file of a set whose files came from many hands: UTF-8, else Windows' western code page."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def csv_rows(data: bytes, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yields the rows of a CSV file. Raises WrongFormat where it lacks a column."""
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restval="", strict=True)
    _require(columns, rows.fieldnames or ())
    yield from rows


def sheet_rows(data: bytes, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yields the rows of a workbook's first sheet as strings; what is a formula there stays one."""
    import openpyxl

    try:
        sheet = openpyxl.load_workbook(io.BytesIO(data), read_only=True).worksheets[0]
    except (KeyError, IndexError) as error:
        raise WrongFormat("a zip file, but no workbook") from error
    sheet.reset_dimensions()  # the file states them, not always rightly
    rows = sheet.iter_rows(values_only=True)
    header = [str(cell) for cell in next(rows, ())]
    _require(columns, header)
    for row in rows:
        yield {**dict.fromkeys(header, ""), **{k: str(v) for k, v in zip(header, row, strict=False) if v is not None}}


def _require(columns: Iterable[str], there: Iterable[str]) -> None:
    if missing := sorted(set(columns) - set(there)):
        raise WrongFormat(f"no column {', '.join(missing)}")


def json_items(name: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (id, item) of JSON lines, whose ids are their numbers, or of one JSON object by its keys."""
    is_lines = name.endswith(".jsonl")
    content = dict(enumerate(map(orjson.loads, data.splitlines()))) if is_lines else orjson.loads(data)
    if not isinstance(content, dict) or not all(isinstance(item, dict) for item in content.values()):
        raise WrongFormat("JSON, but not of objects")
    yield from ((str(key), item) for key, item in content.items())


def parquet_rows(data: bytes) -> Iterator[dict[str, Any]]:
    """Yields the rows of a parquet file."""
    for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches(batch_size=1000):
        yield from batch.to_pylist()


def field(item: dict[str, Any], name: str) -> str:
    """Returns a field of a JSON item as text, '' where it is missing or null."""
    return "" if item.get(name) is None else str(item[name])
