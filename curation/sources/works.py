"""What readers of files with many works share: lines of a file that may be damaged, and documents of the works found.

Input: a text file, plain or .gz. Output: datatrove Documents. Used by babylm.py and wikipedia.py.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.settings import CleaningSettings, SourceSettings


@dataclass(frozen=True)
class Work:
    """One work of a file: its paragraphs or lines as they are to be read, or why it is left out."""

    name: str
    paragraphs: list[str]
    joint: str = "\n\n"  # between paragraphs; lines of talk and subtitles have "\n"
    title: str | None = None
    url: str | None = None
    genre: str | None = None
    reason: str = ""


@dataclass
class TextFile:
    """A text file, plain or .gz: iterating yields its lines, to where it is whole; what stopped it is in `damage`."""

    path: Path
    damage: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without .gz."""
        return self.path.name.removesuffix(".gz")

    def __iter__(self) -> Iterator[str]:
        open_file = gzip.open if self.path.suffix == ".gz" else open
        with open_file(self.path, "rt", encoding="utf-8-sig", errors="replace") as lines:
            try:
                for line in lines:
                    yield line.replace("\0", "")
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.damage.append(str(error))


def documents_of(
    file: TextFile,
    works: Iterable[Work],
    source: str,
    settings: SourceSettings,
    cleaning: CleaningSettings,
    position_prefix: str = "",
) -> Iterator[Document]:
    """Yields the documents of the works of one file, numbered through; last, as dropped, that the file was damaged."""
    number = 0

    def document(work: Work, text: str) -> Document:
        nonlocal number
        position = f"{position_prefix}{number:05}"
        number += 1
        return make_document(
            source, settings, work.name, position, text, title=work.title, url=work.url, genre=work.genre
        )

    for work in works:
        reason = work.reason or ("" if work.paragraphs else "no_text")
        if reason:
            yield drop(document(work, work.joint.join(work.paragraphs)), reason)
            continue
        for paragraphs in cut(work.paragraphs, cleaning, whole=True):
            yield document(work, work.joint.join(paragraphs))
    for damage in file.damage:
        yield drop(document(Work(file.name, []), damage), "damaged_file")
