"""Tables of texts: .parquet, .jsonl and .txt with <|endoftext|> between texts (.gz too), a document a row.

Rows may carry title, url, license, genre, subject, an id and a work; only the text is needed. A bad row loses only
itself. Stories that language models wrote (genre story) are looked at for what is known to go wrong with them.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document

from curation.clean import repair
from curation.documents import cut, drop, make_document
from curation.settings import CleaningSettings, SourceSettings

END_OF_TEXT = "<|endoftext|>"
MAX_ROW_BYTES = 32_000_000  # of a line or a text; more in one row is no document
_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 1000
_FACTS = ("title", "url", "license", "genre", "subject")
_NAMES = ("work", "generation_id", "id")  # which rows belong together, the first there is; of one answer of a model

Row = tuple[str, Any, str]  # (number in the file, what it holds, reason why it cannot be used or '')


def read_rows(
    path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings, groups: range | None = None
) -> Iterator[Document]:
    """Yields the documents of a file, or of some row groups of a parquet file; bad rows as dropped."""
    rows = file_rows(path, settings.text_column, groups)
    yield from row_documents(rows, path.name, source, settings, cleaning)


def row_documents(
    rows: Iterator[Row], name: str, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields the documents of a file's rows. Of a web page the site is the work, else what the row names, or itself."""
    for number, row, reason in rows:
        text = row.get(settings.text_column) if isinstance(row, dict) else None
        if reason or not isinstance(text, str) or not text.strip():
            shown = "" if row is None or isinstance(row, dict) else str(row)
            yield drop(make_document(source, settings, name, number, shown), reason or "no_text")
            continue
        facts = {key: value for key in _FACTS if isinstance(value := row.get(key), str) and value.isprintable()}
        work = f"{source}/{_work(row, facts.get('genre', settings.genre)) or f'{name}#{number}'}"
        for i, document in enumerate(_documents(text, cleaning)):
            made = make_document(source, settings, name, f"{number}.{i}", document, **facts)
            made.metadata["work"] = work
            reason = _why_no_story(document) if settings.genre == "story" else ""
            yield drop(made, reason) if reason else made


def _documents(text: str, cleaning: CleaningSettings) -> Iterator[str]:
    """Yields a row's text, cut where a text ends within it and where it is longer than a document may be."""
    for part in text.split(END_OF_TEXT):
        if part.strip():
            for paragraphs in cut(re.split(r"\n\s*\n", part.strip()), cleaning, whole=True):
                yield "\n\n".join(paragraphs)


def _work(row: dict[str, Any], genre: str | None) -> str:
    if genre == "web" and isinstance(url := row.get("url"), str) and (host := _host(url)):
        return host
    named = (str(value) for key in _NAMES if isinstance(value := row.get(key), str | int))
    return next((name for name in named if name.strip() and name.isprintable()), "")


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:  # brackets that hold no address
        return ""


# Files -------------------------------------------------------------------------------------------------------------


def file_rows(path: Path, text_column: str = "text", groups: range | None = None) -> Iterator[Row]:
    """Yields the rows of a file by the kind its name tells, holding few of them at a time.

    Row numbers are those of the whole file, whichever row groups are read. What cannot be read is one row with a
    reason: truncated_file, unreadable_file, unreadable_rows (a row group), no_text_column, unknown_kind.
    """
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind == ".parquet":
        yield from _parquet_rows(path, text_column, groups)
        return
    read = {".jsonl": _json_rows, ".json": _json_rows, ".txt": _text_rows}.get(kind)
    if read is None:
        yield "0", None, "unknown_kind"
        return
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for row in read(file, text_column):
                yield row
                number = int(row[0])
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield f"after-{number}", str(error), "truncated_file"


def _parquet_rows(path: Path, text_column: str, groups: range | None) -> Iterator[Row]:
    """Yields the rows of row groups; one that is damaged loses its own rows."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        yield "0", str(error), "unreadable_file"
        return
    columns = [name for name in file.schema_arrow.names if name in (text_column, *_FACTS, *_NAMES)]
    if text_column not in columns:
        yield "0", f"no column {text_column} in {', '.join(file.schema_arrow.names)}"[:200], "no_text_column"
        return
    start = 0
    for i in range(file.num_row_groups):
        if groups is None or i in groups:
            yield from _group_rows(file, i, columns, start)
        start += file.metadata.row_group(i).num_rows


def _group_rows(file: pq.ParquetFile, group: int, columns: list[str], start: int) -> Iterator[Row]:
    number = start
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            for row, reason in _batch_rows(batch):
                yield str(number), row, reason
                number += 1
    except (pa.ArrowException, OSError) as error:
        yield f"after-{number}", str(error), "unreadable_rows"


def _batch_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, str]]:
    try:
        yield from ((row, "") for row in batch.to_pylist())
    except UnicodeDecodeError:  # parquet does not check its strings, and one bad one fails the batch
        for i in range(batch.num_rows):
            try:
                row = batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield str(error), "bad_encoding"
            else:
                yield row, ""


def _json_rows(file: BufferedIOBase, text_column: str) -> Iterator[Row]:
    for number, line in enumerate(_pieces(file, b"\n"), 1):
        if line is None:
            yield str(number), None, "too_big"
        elif line.strip():
            try:
                yield str(number), orjson.loads(line), ""
            except orjson.JSONDecodeError:
                yield str(number), line.decode("utf-8", errors="replace"), "bad_json"


def _text_rows(file: BufferedIOBase, text_column: str) -> Iterator[Row]:
    for number, text in enumerate(_pieces(file, END_OF_TEXT.encode()), 1):
        if text is None:
            yield str(number), None, "too_big"
        elif text.strip():
            try:
                yield str(number), {text_column: text.decode("utf-8-sig").replace("\r\n", "\n")}, ""
            except UnicodeDecodeError as error:
                yield str(number), f"byte {error.start} is not UTF-8", "bad_encoding"


def _pieces(file: BufferedIOBase, end: bytes) -> Iterator[bytes | None]:
    """Yields what stands between the ends in a file; None for what is longer than MAX_ROW_BYTES."""
    rest = b""
    is_too_big = False
    while chunk := file.read1(_CHUNK_BYTES):  # what there is, though the file may break off behind it
        *whole, rest = (rest + chunk).split(end)
        for piece in whole:
            yield None if is_too_big else piece
            is_too_big = False
        if len(rest) > MAX_ROW_BYTES:
            is_too_big = True
        if is_too_big:
            rest = rest[-len(end) :]  # of which the next chunk may hold the other half
    yield None if is_too_big else rest


# Stories -----------------------------------------------------------------------------------------------------------

_STORY_END = re.compile(r"[.!?\u2026][\"'\u201d\u2019)]*\Z|\bthe end\W*\Z", re.IGNORECASE)
_NOT_IN_STORIES = re.compile(r"[<>|{}`=\\#@~^_*\[\]]|https?:")


def _why_no_story(text: str) -> str:
    """Returns the reason why a story is dropped, or ''.

    SimpleStories (Finke et al. 2025, section 1) names encoding artefacts and duplicates in TinyStories, and users of
    the set stories that break off and signs of markup or code.
    """
    from ftfy.badness import is_bad

    text = repair(text)
    if not text.isascii() and is_bad(text):
        return "broken_encoding"
    if _NOT_IN_STORIES.search(text):
        return "markup"
    return "" if _STORY_END.search(text) else "cut_off"
