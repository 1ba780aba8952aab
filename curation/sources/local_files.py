"""A folder of your own text: .txt and .md (cut into documents), .jsonl, .jsonl.gz and .parquet (a document a row).

Rows need `text`; they may carry title, url, license, genre, subject, work. A bad row loses only itself (rows.py).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.settings import CleaningSettings, SourceSettings
from curation.sources.rows import file_rows, row_documents

SUFFIXES = (".txt", ".md", ".jsonl", ".jsonl.gz", ".parquet")


def read_local_file(
    path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields the documents of one file; what cannot be read is yielded as dropped, with its reason."""
    assert settings.folder is not None, "local files are listed from a folder"
    name = path.relative_to(settings.folder).as_posix()
    if path.suffix.lower() in (".txt", ".md"):
        yield from _read_text(path, name, source, settings, cleaning)
    else:
        yield from row_documents(file_rows(path, settings.text_column), name, source, settings, cleaning)


def _read_text(
    path: Path, name: str, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
        yield drop(make_document(source, settings, name, "0", reason), "bad_encoding")
        return
    paragraphs = [block for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if block.strip()]
    if not paragraphs:
        yield drop(make_document(source, settings, name, "0", ""), "no_text")
    for i, document in enumerate(cut(paragraphs, cleaning, whole=True)):
        yield make_document(source, settings, name, str(i), "\n\n".join(document), title=path.stem)
