"""OpenStax textbooks: CNXML modules, rendered by cnxml.py and cut into documents.

A file is a module (modules/<id>/index.cnxml beside collections/), rows with a module each (.jsonl), or a repository's
archive (.tar.gz). A work is a module, the numbered section of a chapter with its own summary, questions and glossary:
books are too few and too long to hold one out, and a module repeats itself nowhere else.
"""

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.settings import CleaningSettings, SourceSettings
from curation.sources.cnxml import MAX_MODULE_BYTES, BadModule, parse_xml, read_module
from curation.sources.rows import file_rows

MAX_ARCHIVE_BYTES = 400_000_000  # of all modules of an archive, which are held at once; a book has about 5 MB
_SUBJECTS = {  # by a word of a book's name; philosophy and business are no school subject of ours
    "science": "astronomy physics biology chemistry microbiology anatomy neuroscience",
    "social studies": "history government sociology anthropology political economics psychology",
    "maths": "algebra calculus statistics precalculus prealgebra trigonometry mathematics",
}
_SUBJECT_OF = {word: subject for subject, words in _SUBJECTS.items() for word in words.split()}
_MODULE_FILE = re.compile(r"(?:.*/)?modules/([\w.-]+)/index\.cnxml")
_COLLECTION_FILE = re.compile(r"(?:.*/)?collections/[^/]+\.collection\.xml")
_LICENSE_URL = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)")
_LICENSE_NAME = re.compile(r"(?:CC )?(BY(?:-[A-Z]{2})*) (\d\.\d)")


@dataclass
class _Book:
    """What a collection says of a book; modules in its order, with the titles of their chapters."""

    name: str
    title: str
    url: str | None = None
    license: str | None = None
    modules: dict[str, str] = field(default_factory=dict)


@dataclass
class _Module:
    book: _Book
    name: str
    content: bytes = b""
    reason: str = ""  # why it cannot be read


def read_openstax(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the documents of a file's modules; what is left out of a module is a dropped document for each reason."""
    if path.name.endswith(".collection.xml"):
        return  # read with the modules it names
    if path.suffix == ".cnxml":
        modules = _in_folder(path)
    elif ".tar" in path.suffixes:
        modules = _in_archive(path)
    else:
        modules = _in_rows(path)
    for module in modules:
        yield from _documents(module, source, settings, cleaning)


def _documents(
    module: _Module, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    book = module.book
    work = f"{book.name}/{module.name}"
    subject = next((_SUBJECT_OF[word] for word in book.name.split("-") if word in _SUBJECT_OF), None)

    def made(position: str, text: str, title: str = book.title) -> Document:
        return make_document(
            source, settings, work, position, text, title=title, url=book.url, license=book.license, subject=subject
        )

    try:
        if module.reason:
            raise BadModule(module.reason)
        text = read_module(module.content)
    except BadModule as error:
        yield drop(made("0", module.content[:1000].decode("utf-8", errors="replace")), str(error))
        return
    title = ": ".join(filter(None, (book.title, book.modules.get(module.name), text.title)))
    for i, paragraphs in enumerate(cut(text.paragraphs, cleaning, whole=True)):
        if paragraphs:
            yield made(str(i), "\n\n".join(paragraphs), title)
    if not text.paragraphs and not text.left_out:
        yield drop(made("0", "", title), "no_text")
    for reason, parts in text.left_out.items():
        yield drop(made(reason, "\n\n".join(parts), title), reason)


def _in_rows(path: Path) -> Iterator[_Module]:
    seen = set()
    for number, row, reason in file_rows(path, "cnxml"):
        known = row if isinstance(row, dict) else {}
        name, book, place = (_plain(known.get(key)) for key in ("id", "book", "path"))
        described = _Book(
            book or path.name.partition(".")[0],
            book.replace("-", " ").title(),
            f"https://github.com/openstax/{place.partition('/')[0]}" if place.startswith("osbooks-") else None,
            _license(known.get("license")),
        )
        content = known.get("cnxml")
        if not reason and not isinstance(content, str):
            reason = "no_text"
        encoded = content.encode("utf-8", "replace") if isinstance(content, str) else b""
        if not name or (described.name, name) in seen:
            name = f"{name or 'row'}-{number}"
        seen.add((described.name, name))
        yield _Module(described, name, encoded, reason)


def _in_folder(path: Path) -> Iterator[_Module]:
    root = path.parent.parent.parent
    books = _books(file.read_bytes() for file in sorted(root.glob("collections/*.collection.xml")))
    yield _module_of(books, root.name, path.parent.name, path.read_bytes())


def _in_archive(path: Path) -> Iterator[_Module]:
    """Yields the modules of a repository in the order of its books, and then those that no book has."""
    collections: dict[str, bytes] = {}
    modules: dict[str, bytes] = {}
    room = MAX_ARCHIVE_BYTES
    broken = ""
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                module = _MODULE_FILE.fullmatch(member.name)
                if not member.isfile() or not (module or _COLLECTION_FILE.fullmatch(member.name)):
                    continue
                room -= min(member.size, MAX_MODULE_BYTES + 1)
                file = archive.extractfile(member)
                if room < 0 or file is None:
                    continue
                content = file.read(MAX_MODULE_BYTES + 1)
                if module:
                    modules[module[1]] = content
                else:
                    collections[member.name] = content
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        broken = f"{type(error).__name__}: {error}"
    repository = path.name.partition(".")[0]
    books = _books(content for _name, content in sorted(collections.items()))
    order = {name: i for i, name in enumerate(name for book in books for name in book.modules)}
    for name in sorted(modules, key=lambda name: (order.get(name, len(order)), name)):
        yield _module_of(books, repository, name, modules[name])
    if broken or room < 0:
        reason = "truncated_file" if broken else "too_big"
        yield _Module(_Book(repository, repository), "rest", broken.encode(), reason)


def _module_of(books: list[_Book], repository: str, name: str, content: bytes) -> _Module:
    for book in books:
        if name in book.modules:
            return _Module(book, name, content)
    return _Module(_Book(repository, repository), name, content, "in_no_book")


def _books(collections: Iterable[bytes]) -> list[_Book]:
    books = []
    for content in collections:
        try:
            root = parse_xml(content)
        except BadModule:
            continue  # its modules are then in no book
        slug, title, license = (root.find(f"{{*}}metadata/{{*}}{key}") for key in ("slug", "title", "license"))
        name = _plain(slug.text if slug is not None else "")
        if not name:
            continue
        book = _Book(
            name,
            _plain(title.text if title is not None else "") or name,
            f"https://openstax.org/details/books/{name}",
            _license(license.get("url") if license is not None else None),
        )
        for module in root.iter("{*}module"):
            chapter = next(module.iterancestors("{*}subcollection"), None)
            chapter_title = chapter.find("{*}title") if chapter is not None else None
            book.modules[module.get("document") or ""] = _plain(chapter_title.text if chapter_title is not None else "")
        books.append(book)
    return books


def _plain(value: object) -> str:
    """Returns a name in one printable line, '' for anything else."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text if text.isprintable() else ""


def _license(stated: object) -> str | None:
    """Returns the SPDX id of a Creative Commons licence, given by its address or its name."""
    match = (_LICENSE_URL.search(stated) or _LICENSE_NAME.search(stated)) if isinstance(stated, str) else None
    return f"CC-{match[1].upper()}-{match[2]}" if match else None
