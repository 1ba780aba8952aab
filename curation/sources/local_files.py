"""A folder of your own text: .txt and .md (cut into documents), .jsonl, .jsonl.gz and .parquet (a document a row).

Rows need `text`; they may carry title, url, license, genre, subject, work. A bad row loses only itself.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.settings import CleaningSettings, SourceSettings

SUFFIXES = (".txt", ".md", ".jsonl", ".jsonl.gz", ".parquet")
_OPTIONAL = ("title", "url", "license", "genre", "subject")


def read_local_file(
    path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields the documents of one file; what cannot be read is yielded as dropped, with its reason."""
    assert settings.folder is not None, "local files are listed from a folder"
    name = path.relative_to(settings.folder).as_posix()

    def bad(position: str, reason: str, text: str = "") -> Document:
        return drop(make_document(source, settings, name, position, text), reason)

    if path.suffix.lower() in (".txt", ".md"):
        yield from _read_text(path, name, source, settings, cleaning, bad)
        return
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _json_rows(path)
    for position, row, reason in rows:
        if reason:
            yield bad(position, reason, str(row or ""))
            continue
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            yield bad(position, "no_text")
            continue
        facts = {key: value for key in _OPTIONAL if isinstance(value := row.get(key), str) and value.isprintable()}
        work = row["work"] if isinstance(row.get("work"), str) else f"{name}#{position}"
        paragraphs = re.split(r"\n\s*\n", text)
        for i, document in enumerate(cut(paragraphs, cleaning, whole=True)):
            made = make_document(source, settings, name, f"{position}.{i}", "\n\n".join(document), **facts)
            made.metadata["work"] = f"{source}/{work}"
            yield made


def _read_text(
    path: Path, name: str, source: str, settings: SourceSettings, cleaning: CleaningSettings, bad: Any
) -> Iterator[Document]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield bad("0", "bad_encoding", f"byte {error.start} is not UTF-8")
        return
    paragraphs = [block for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if block.strip()]
    if not paragraphs:
        yield bad("0", "no_text")
    for i, document in enumerate(cut(paragraphs, cleaning, whole=True)):
        yield make_document(source, settings, name, str(i), "\n\n".join(document), title=path.stem)


def _json_rows(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Yields (line number, object, reason why it cannot be used)."""
    number = 0
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield str(number), orjson.loads(line), ""
                    except orjson.JSONDecodeError:
                        yield str(number), line.decode("utf-8", errors="replace"), "bad_json"
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield f"after-{number}", str(error), "truncated_file"


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any, str]]:
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                yield str(number), row, ""
                number += 1
    except (pa.ArrowException, OSError) as error:
        yield f"after-{number}", str(error), "unreadable_file"
