"""Web pages: .html, an archive of them (.tar.gz), and the records of .warc and .arc (HTTP responses) and .wet (texts).

Cheap steps come first: limits, type and language, a crude reading of the stripped text; then trafilatura
(curation/extraction.py), then the paragraphs that are no text of the page go: menus, notices, other languages.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datatrove.data import Document

from curation.clean import language_of, words_of
from curation.documents import cut, drop, make_document
from curation.extraction import Extracted, decode_page, shared_extractor, why_too_large
from curation.settings import CleaningSettings, ExtractionSettings, SourceSettings
from curation.sources.gutenberg import COPYRIGHTED, book_body, book_sections, long_enough


@dataclass(frozen=True)
class _Page:
    """A page as it lies in a file: its bytes, or the paragraphs that somebody else extracted, or why it is lost."""

    position: str  # in its file, with the file's name
    raw: bytes = b""
    url: str = ""
    site: str = ""
    charset: str = ""
    language: str = ""
    is_text: bool = False
    reason: str = ""


def read_web(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the documents of the pages of a file, each page's own losses after it; a broken page loses only itself."""
    if re.search(r"\.(?:warc|arc|wet|wat)(?:\.gz|\.lz4)?$", path.name.lower()):
        read = _records
    else:
        read = _tar_members if path.name.lower().endswith(".tar.gz") else _html_file
    for page in read(path, cleaning.extraction):
        yield from _documents(page, source, settings, cleaning)


def _documents(page: _Page, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    site = page.site

    def document(part: str, text: str, **facts: Any) -> Document:
        return make_document(source, settings, site, f"{page.position}.{part}", text, url=page.url or None, **facts)

    if page.reason:
        yield drop(document("page", ""), page.reason)
        return
    text = decode_page(page.raw, page.charset)
    if page.is_text:
        found = Extracted(paragraphs=[" ".join(line.split()) for line in text.split("\n") if line.strip()])
        reason = why_hopeless(found.paragraphs, page.language, cleaning)
    else:
        limits = cleaning.extraction
        reason = why_too_large(text, limits) or why_hopeless(crude_blocks(text), page.language, cleaning)
        found = Extracted(reason) if reason else shared_extractor(limits).extract(text, page.url)
    if reason := reason or found.reason:
        yield drop(document("page", " ".join(" ".join(crude_blocks(text[:20_000])).split())[:2000]), reason)
        return
    site = page.site if page.url else _host(found.url) or page.site
    if _is_gutenberg(found.paragraphs):
        number = _GUTENBERG_NUMBER.search("\n".join(found.paragraphs[:40]))
        site = number[1] if number else page.position
        yield from _gutenberg_documents(found.paragraphs, found.title, document, settings, cleaning)
        return
    facts = {"title": found.title or None, "license": spdx_license(found.licenses)}
    kept, left_out = page_paragraphs(found.paragraphs)
    if not kept:
        yield drop(document("page", "\n\n".join(found.paragraphs)[:2000], **facts), "no_text")
        return
    for i, paragraphs in enumerate(cut(kept, cleaning, whole=True)):
        yield document(f"{i:03}", "\n\n".join(paragraphs), **facts)
    for reason, paragraphs in left_out.items():
        yield drop(document(reason, "\n\n".join(paragraphs), **facts), reason)


def _gutenberg_documents(
    paragraphs: list[str], title: str, document: Any, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields a book of Project Gutenberg as its text edition is read (sources/gutenberg.py)."""
    book = "\n\n".join(paragraphs)
    if COPYRIGHTED.search(book, 0, 30_000):
        yield drop(document("book", book[:2000]), "copyrighted")
        return
    left_out: dict[str, list[str]] = {}
    sections = book_sections(book_body(book), settings.genre in ("reader", "textbook"), left_out)
    name = re.sub(r"^The Project Gutenberg e-?book of ", "", title, flags=re.IGNORECASE)
    position = 0
    for section in long_enough(list(sections)):
        genre = "verse" if section.n_verse_words > section.n_words / 2 else None
        for piece in cut(section.paragraphs, cleaning):
            heading = ": ".join(filter(None, [name, section.heading])) or None
            yield document(f"{position:04}", "\n\n".join(piece), title=heading, genre=genre)
            position += 1
    for reason, blocks in left_out.items():
        yield drop(document(reason, "\n\n".join(blocks)), reason)


_GUTENBERG_NUMBER = re.compile(r"\[e-?(?:book|text) #(\d+)\]", re.IGNORECASE)


def _is_gutenberg(paragraphs: list[str]) -> bool:
    return any("project gutenberg" in paragraph.lower() for paragraph in paragraphs[:20])


# ---- files ----


_HTML_NAME = re.compile(r"\.(?:html?|xhtml)(?:\.gz)?$", re.IGNORECASE)
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def _html_file(path: Path, limits: ExtractionSettings) -> Iterator[_Page]:
    """Yields the one page of a file; its folder stands for the site where the page does not name its own address."""
    page = partial(_Page, f"{path.parent.name}/{_HTML_NAME.sub('', path.name)}", site=path.parent.name)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw = file.read(limits.max_page_bytes + 1)
    except _DAMAGE:
        yield page(reason="truncated_file")
        return
    yield page(raw, reason="page_too_large" if len(raw) > limits.max_page_bytes else "")


def _tar_members(path: Path, limits: ExtractionSettings) -> Iterator[_Page]:
    """Yields the .html files of a tar archive in their order; the folder of a site stands for it."""
    number = 0
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                number += 1
                if not member.isfile() or not _HTML_NAME.search(member.name) or not member.name.isprintable():
                    continue
                file = archive.extractfile(member)
                assert file is not None, member.name
                page = partial(_Page, _HTML_NAME.sub("", member.name), site=member.name.partition("/")[0])
                large = member.size > limits.max_page_bytes
                yield page(b"" if large else file.read(), reason="page_too_large" if large else "")
    except (*_DAMAGE, tarfile.TarError):
        yield _Page(f"{path.name}:{number}-end", site=path.name, reason="truncated_archive")


class _Unpacked:
    """The bytes of an archive, its compression undone, to where it is whole; warcio takes damage for the end."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() == ".lz4":
            import lz4.frame

            self._file: Any = lz4.frame.open(path)
        else:
            self._file = gzip.GzipFile(path) if path.suffix.lower() == ".gz" else path.open("rb")
        self.is_damaged = False

    def read(self, n_bytes: int = -1) -> bytes:
        try:
            return bytes(self._file.read(n_bytes))
        except (*_DAMAGE, RuntimeError):  # lz4 raises RuntimeError
            self.is_damaged = True
            return b""

    def close(self) -> None:
        self._file.close()


def _records(path: Path, limits: ExtractionSettings) -> Iterator[_Page]:
    """Yields the pages of an archive, and last why it could not be read to its end."""
    from warcio.archiveiterator import ArchiveIterator

    number, reason = 0, ""
    with closing(_Unpacked(path)) as archive:
        records = iter(ArchiveIterator(archive, arc2warc=True))
        while not reason:
            try:
                record = next(records, None)
            except Exception:  # warcio fails on bad headers in ways of its own: AttributeError, IndexError, ...
                reason = "bad_archive"
                break
            if record is None:
                break
            number += 1
            page = _page_of(record, f"{path.name}:{number}", limits)
            if getattr(record.raw_stream, "limit", 0) > 0 and not record.raw_stream.read(1):
                reason = "truncated_archive"
            elif page is not None:
                yield page
        if archive.is_damaged:
            reason = "truncated_archive"
    if reason:
        yield _Page(f"{path.name}:{number}-end", site=path.name, reason=reason)


def _page_of(record: Any, position: str, limits: ExtractionSettings) -> _Page | None:
    """Returns the page of a record; None where it is no page: a request, an image, a redirect."""
    url = str(record.rec_headers.get_header("WARC-Target-URI") or "").strip()
    page = partial(_Page, position, url=url if url.isprintable() else "", site=_host(url) or "unknown")
    if record.rec_type == "conversion":
        languages = record.rec_headers.get_header("WARC-Identified-Content-Language") or ""
        raw = record.raw_stream.read(limits.max_page_bytes + 1)
        reason = "page_too_large" if len(raw) > limits.max_page_bytes else ""
        return page(raw, charset="utf-8", language="" if "eng" in languages else languages, is_text=True, reason=reason)
    if record.rec_type != "response" or record.http_headers is None:
        return None
    kind, _, parameters = (record.http_headers.get_header("Content-Type") or "").lower().partition(";")
    if record.http_headers.get_statuscode() != "200" or kind.strip() not in ("text/html", "application/xhtml+xml"):
        return None
    packing = (record.http_headers.get_header("Content-Encoding") or "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", "deflate"):
        return page(reason="unknown_compression")
    language = record.http_headers.get_header("Content-Language") or ""
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", parameters)
    try:
        raw = record.content_stream().read(limits.max_page_bytes + 1)
    except (zlib.error, ValueError):
        return page(reason="bad_record")
    if len(raw) > limits.max_page_bytes:
        return page(reason="page_too_large")
    return page(raw, charset=charset[1] if charset else "", language=language.lower())


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


# ---- a crude reading ----

_UNSEEN = re.compile(r"<(script|style|svg|select)\b.*?(?:</\1\b|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
_INLINE_TAG = re.compile(r"</?(?:a|abbr|b|big|cite|em|font|i|q|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"<[^<>]*>?")
_CHARACTER = re.compile(r"&(?:#\d{1,6}|#x[0-9a-f]{1,6}|[a-z]{2,8});", re.IGNORECASE)


def crude_blocks(html: str) -> list[str]:
    """Returns what stands between the block tags of a page, in linear time, whatever the page holds."""
    seen = _INLINE_TAG.sub("", _UNSEEN.sub("<>", html))
    return _BLOCK_TAG.sub("\f", _CHARACTER.sub(" ", seen)).split("\f")


# Frequent words of English that are words of few of its neighbours.
_FREQUENT = frozenset(
    """
    the of and to is that it was for with as at be this have from by are not you he she his her i my we they there what
    has had were can your when but all your who would their said
    """.split()  # noqa: SIM905
)
_SENTENCE_END = re.compile(r"[.!?](?:[\"')\]\u201d\u2019]|\s|$)")


def why_hopeless(blocks: list[str], language: str, cleaning: CleaningSettings) -> str:
    """Returns the reason why a page cannot hold English prose that a child might read, or '': errs on keeping."""
    running: list[str] = []
    n_sentences = 0
    for block in blocks:
        n_ends = len(_SENTENCE_END.findall(block))
        if n_ends:
            running.append(block)
            n_sentences += n_ends
    words = words_of(" ".join(running))
    if len(words) < cleaning.min_words:
        return "no_sentences"
    limits = cleaning.extraction
    share = _frequent_share(words)
    if share < limits.min_crude_function_words * (1.0 if not language or language.startswith("en") else 1.5):
        return "not_english"
    grade = 4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / n_sentences - 21.43  # Smith and Senter 1967
    return "too_hard" if grade > limits.max_crude_grade else ""


# ---- paragraphs ----

# Notices of sites, not of their pages. Only a short paragraph goes for them: a text may speak of cookies.
_NOTICE = re.compile(
    r"""
    \b(?:
      cookies?\b.{0,80}\b(?:policy|settings|consent|accept|browser|site|use) | accept\ (?:all\ )?cookies
    | all\ rights\ reserved | terms\ (?:of|and)\ (?:use|service|conditions) | privacy\ policy
    | (?:enable|activate)\ javascript | your\ browser\ (?:does\ not|doesn't)\ support | ad-?block
    | (?:sign\ up|subscribe|register|log\ ?in|sign\ in)\b.{0,40}\b(?:newsletter|account|e-?mail|updates|access|read)
    | (?:share|follow|like|find|tweet)\ (?:this|us|it)\ (?:\w+\ )?(?:on|via|facebook|twitter)\b
    | (?:read|see|learn|find\ out|show|load)\ (?:more|less)\s*[.\u2026>\u00bb]*$ | continue\ reading
    | (?:click|tap)\ here\ (?:to|for) | skip\ to\ (?:main\ )?content | back\ to\ (?:top|.{0,20}list)
    | (?:related|recommended|more|popular|recent)\ (?:articles|posts|stories|news|reading)
    | (?:audio|video|pdf)\b.{0,60}\ not\ available | leave\ a\ (?:comment|reply) | \d+\ comments?$
    | this\ (?:work|story|book|article)\ is\ licen[sc]ed | creative\ commons
    | (?:photo(?:graph)?|image)\ (?:credit|by|courtesy) | advertisements?$ | sponsored\ content | follow\ us
    | newsletter$
    )
    | \u00a9\s*\d{4} | copyright\ \u00a9
    | ^\W{0,3}(?:(?:written|illustrated|narrated|read|photographs?)\ by|(?:posted|published)\ (?:by|on))\b""",
    re.VERBOSE | re.IGNORECASE,
)
_MAX_NOTICE_WORDS = 30
_MAX_MENU_WORDS = 8
_HEAP_LINES = 8
_ENDS_A_SENTENCE = re.compile(r"[.!?:;,\u2026\-\u2014][\"')\]\u201d\u2019]*$")
_FOREIGN_SHARE = 0.1  # of frequent English words, below which a paragraph's language is looked at
_FEW_WORDS = 5  # too few to tell their language
_RARE_ZIPF = 3.0  # once in a million words
_REFERENCE = re.compile(r"\[(?:\d{1,3}|[a-z]|edit|citation needed|note \d+)\]")


def page_paragraphs(paragraphs: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the paragraphs that are text of the page, and the others by reason: boilerplate, foreign, repeated."""
    left_out: dict[str, list[str]] = {}
    kept: list[str] = []
    lines = _lines_of_heap(paragraphs)
    for paragraph in lines or paragraphs:
        paragraph = _REFERENCE.sub("", paragraph)
        reason = _why_no_paragraph(paragraph, kept)
        if reason := reason or ("boilerplate" if lines and _is_menu(paragraph) else ""):
            left_out.setdefault(reason, []).append(paragraph)
        else:
            kept.append(paragraph)
    start, end = 0, len(kept)
    while start < end and _is_menu(kept[start]):
        start += 1
    while end > start and _is_menu(kept[end - 1]):
        end -= 1
    if edges := kept[:start] + kept[end:]:
        left_out["boilerplate"] = [*left_out.get("boilerplate", []), *edges]
    return kept[start:end], left_out


def _lines_of_heap(paragraphs: list[str]) -> list[str]:
    """Returns the lines of a page that came as one heap, menus and all, as trafilatura's last resort gives it."""
    lines = paragraphs[0].split("\n") if len(paragraphs) == 1 else []
    return lines if len(lines) >= _HEAP_LINES else []


def _why_no_paragraph(paragraph: str, before: list[str]) -> str:
    words = words_of(paragraph)
    if not words or paragraph.startswith("^"):
        return "boilerplate"  # no text, or a footnote of a wiki
    if before and paragraph == before[-1]:
        return "repeated"
    if len(words) <= _MAX_NOTICE_WORDS and _NOTICE.search(paragraph):
        return "boilerplate"
    return "foreign" if _frequent_share(words) < _FOREIGN_SHARE and _is_foreign(paragraph, words) else ""


def _frequent_share(words: list[str]) -> float:
    return sum(word in _FREQUENT for word in words) / len(words)


def _is_foreign(paragraph: str, words: list[str]) -> bool:
    """Is a paragraph without English function words of another language? A short one is, if its words are unknown."""
    if len(words) > _FEW_WORDS:
        return language_of(paragraph) != "en"
    from wordfreq import zipf_frequency

    return len(words) > 1 and 2 * sum(zipf_frequency(word, "en") < _RARE_ZIPF for word in words) > len(words)


def _is_menu(paragraph: str) -> bool:
    """Is a paragraph at the edge of a page an entry of a menu, a byline or a heading without a text?"""
    return len(paragraph.split()) <= _MAX_MENU_WORDS and not _ENDS_A_SENTENCE.search(paragraph)


# ---- licences ----

_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:(licenses)/(by(?:-nc)?(?:-sa|-nd)?)|publicdomain/(zero|mark))/(\d\.\d)", re.IGNORECASE
)


def spdx_license(addresses: list[str]) -> str | None:
    """Returns the SPDX id of the one Creative Commons licence that licence links name; None for none, or several."""
    names = set()
    for match in filter(None, map(_CREATIVE_COMMONS.search, addresses)):
        _, kind, domain, version = match.groups()
        if domain:
            names.add("CC0-1.0" if domain.lower() == "zero" else "CC-PDM-1.0")
        else:
            names.add(f"CC-{kind.upper()}-{version}")
    return names.pop() if len(names) == 1 else None
