"""Project Gutenberg books: header and footer off, lines unwrapped, cut at headings into documents of 150-800 words.

gutenberg_books.csv names every book: its source, its file in a mirror, its Gutenberg number, title, author and, for
school readers, the grade of the series. A book's number, not its file, is its name, so mirror and download agree.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.readability import read_syllables
from curation.settings import CleaningSettings, SourceSettings

BOOKS_FILE = Path(__file__).with_name("gutenberg_books.csv")
MIN_SECTION_WORDS = 150  # shorter sections are read together with the next


@dataclass(frozen=True)
class Book:
    """One line of gutenberg_books.csv."""

    source: str
    file: str
    gutenberg_id: int
    title: str
    author: str
    grade: int | None  # of a school reader: 0 primer, 1 first reader, ...


@dataclass
class _Section:
    heading: str = ""
    paragraphs: list[str] = field(default_factory=list)
    n_words: int = 0
    n_verse_words: int = 0

    def add(self, paragraph: str, is_verse: bool) -> None:
        n_words = len(paragraph.split())
        self.paragraphs.append(paragraph)
        self.n_words += n_words
        self.n_verse_words += n_words if is_verse else 0

    def join(self, other: "_Section") -> None:
        self.paragraphs += other.paragraphs
        self.n_words += other.n_words
        self.n_verse_words += other.n_verse_words


@cache
def gutenberg_books() -> tuple[Book, ...]:
    """Returns the books of gutenberg_books.csv."""
    with BOOKS_FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Book(
                row["source"],
                row["file"],
                int(row["gutenberg_id"]),
                row["title"].replace(" : $b ", ": "),
                row["author"],
                int(row["grade"]) if row["grade"] else None,
            )
            for row in csv.DictReader(file)
        )


@cache
def _books_by_file() -> dict[tuple[str, str], Book]:
    named = {(book.source, book.file): book for book in gutenberg_books()}
    return named | {(book.source, f"pg{book.gutenberg_id}.txt"): book for book in gutenberg_books()}


def read_gutenberg(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the documents of one book, then what was left out of it, one dropped document a reason."""
    book = _books_by_file()[source, path.name]
    work = str(book.gutenberg_id)
    url = f"https://www.gutenberg.org/ebooks/{book.gutenberg_id}"
    is_school_book = settings.genre in ("reader", "textbook")

    def document(position: str, text: str, heading: str = "", genre: str | None = None) -> Document:
        title = f"{book.title}: {heading}" if heading else book.title
        return make_document(source, settings, work, position, text, title=title, url=url, genre=genre)

    raw = path.read_bytes()
    try:
        text = _decode(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield drop(document("book", str(error)), "unreadable_file")
        return
    if COPYRIGHTED.search(text, 0, 30_000):
        yield drop(document("book", text[:2000]), "copyrighted")
        return
    left_out: dict[str, list[str]] = {}
    sections = list(book_sections(book_body(text), is_school_book, left_out))
    if not sections:
        yield drop(document("book", text[:2000]), "no_text")
    position = 0
    for section in long_enough(sections):
        genre = "verse" if section.n_verse_words > section.n_words / 2 else None
        for paragraphs in cut(section.paragraphs, cleaning):
            yield document(f"{position:04}", "\n\n".join(paragraphs), section.heading, genre)
            position += 1
    for reason, blocks in left_out.items():
        yield drop(document(reason, "\n\n".join(blocks)), reason)


def _decode(raw: bytes) -> str:
    """Returns the text of a book. The encoding a file declares is sometimes wrong; which bytes are valid is not."""
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


COPYRIGHTED = re.compile(r"COPYRIGHTED Project Gutenberg", re.IGNORECASE)
_HEADER_ENDS = (
    re.compile(r"^[ \t]*\*{3}\s*START OF TH(?:E|IS) PROJECT GUTENBERG[^*]{0,300}\*{3}", re.MULTILINE | re.IGNORECASE),
    re.compile(r"^\*END\*? ?THE SMALL PRINT.*$", re.MULTILINE | re.IGNORECASE),
)
_TRANSCRIBER = re.compile(r"^\W*transcriber['\u2019]?s['\u2019]? notes?\b", re.MULTILINE | re.IGNORECASE)
_FOOTER = re.compile(
    r"^[ \t]*(?:\*{3}\s*END OF TH(?:E|IS) PROJECT GUTENBERG|End of (?:The |This )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE,
)


def book_body(text: str) -> str:
    """Returns a book without Project Gutenberg's header and footer. The oldest files have only a small-print notice.

    A transcriber's notes go too where they end a book; at its beginning nothing says where they end.
    """
    start = max((match.end() for end in _HEADER_ENDS for match in end.finditer(text, 0, 40_000)), default=0)
    footer = _FOOTER.search(text, start)
    end = footer.start() if footer else len(text)
    notes = _TRANSCRIBER.search(text, max(start, end - (end - start) // 20), end)
    return text[start : notes.start() if notes else end]


# What a transcriber added inside the text: pictures, page numbers, footnotes, marks over letters such as [=a].
_BRACKETS = re.compile(
    r"\[(?:Illustration|Footnote|Transcriber|Editor|Decoration|Music|Pg|Page|Sidenote|Blank)[^\]]{0,3000}\]",
    re.IGNORECASE,
)
_PICTURED_LETTER = re.compile(r"\[(?:Illustration|Decoration):? ([A-Z])\](?=[A-Z]* )")  # the first of a chapter
_SMALL_MARKS = re.compile(r"\[(?:Pg|Page)? ?\d+\.?\]?|\{\d+\}|\[[A-Z]\]|</?[pbi]>")
_STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_MARKED_LETTER = re.compile(r"\[[^\w\s\]]{1,2}([A-Za-z]{1,2})\]|\[([A-Za-z]{1,2})[^\w\s\]]{1,2}\]")
_BOLD = re.compile(r"=([^=\n]{1,60})=")

_NAMED_HEADING = re.compile(
    r"(?:CHAPTER|LESSON|BOOK|PART|SECTION|STORY|LETTER|SCENE|ACT|CANTO|ADVENTURE)\b.{0,60}|[IVXLC]+\.?",
    re.IGNORECASE,
)
_LINE_END_HYPHEN = re.compile(r"(?<=[a-z])(-) (?=[a-z])(?!(?:and|or|to) )")  # "to- day" was to-day over two lines
_PAGE_NUMBER = re.compile(r"\W*[\divxlc]{1,6}\W*|\W*\d+\W+[A-Z' .]+|[A-Z' .]+\W+\d+\W*")
_PAGE_HEAD = re.compile(
    r"^[ \t]*(?:\d{1,3}[ \t]+([A-Z][A-Z' .]{4,40}?)|([A-Z][A-Z' .]{4,40}?)[ \t]+\d{1,3})[ \t]*(?:\n\s*|\Z)",
    re.MULTILINE,
)
_PAGES_OF_A_HEAD = 10  # a line in capitals with a number, as often as that, heads the pages of a book
_NUMBERED_LINE = re.compile(r"\n(?=\d{1,2}\. [A-Z\"'])")
_NUMBER = re.compile(r"^\d{1,3}\. +(?=[A-Z\"'])")
_SIGNATURE = re.compile(r"(?:--|\u2014) ?[A-Z]")  # of whom a piece is by, under it
_CONTENTS = re.compile(r"(?:TABLE OF )?CONTENTS|(?:LIST OF )?ILLUSTRATIONS|LIST OF CHAPTERS")
_NO_TEXT_FOR_READERS = re.compile(
    rf"{_CONTENTS.pattern}|INDEX|ADVERTISEMENT|TRANSCRIBER|FOOTNOTES?\b|NOTES\b|ERRATA"
    r"|BIBLIOGRAPHY|BY THE SAME AUTHOR|OTHER BOOKS|BOOKS BY|COPYRIGHT"
)
_TEACHER_MATTER = re.compile(
    r"PREFACE|FOREWORD|(?:TO|FOR) (?:THE )?(?:TEACHER|PARENT)|TEACHERS?'|SUGGESTIONS|DIRECTIONS|NOTES? TO"
    r"|(?:PUBLISHER|AUTHOR|EDITOR)'?S'? (?:NOTE|PREFACE)|ACKNOWLEDG"
)
_SCHOOL_TEACHER_MATTER = re.compile(
    r"INTRODUCT|ARTICULATION|ELOCUTION|EMPHASIS|INFLECTION|PUNCTUATION|MODULATION|POETIC PAUSES|DEFINITIONS"
    r"|EXERCISES?\b|DIACRITICAL|PRONUNCIATION|PHONIC|TABLE OF|KEY TO"
)
_WORD_LIST = re.compile(r"WORD LIST|VOCABULARY|GLOSSARY|SPELLING|NEW WORDS|WORDS\b|THE ALPHABET|ALPHABET")
_PRICED = re.compile(  # what books were advertised with
    r"\b(?:12mo|16mo|8vo|4to|per volume|postpaid)\b|\b(?:Price|Postage)\b.{0,30}(?:\$|\bcents?\b|\bnet\b|\bper vol)",
    re.IGNORECASE,
)
_MAX_ADVERTISED = 400  # characters; a longer paragraph may tell of prices
# A word explained at the head of a lesson, its accents marked: "dis as'trous, causing loss", "MYR' I AD, countless".
_EXPLAINED = re.compile(
    r"([A-Za-z]{1,9}(?:[ '-]+[A-Za-z]{1,9}){0,6}'[A-Za-z '-]{0,20}?)(?: \([^()]{1,30}\))?, (?=[a-z])"
)
_CONTRACTED = re.compile(r"'(?:s|t|ll|re|ve|d|m|em)\b")
_EXPLAINED_TOO = re.compile(r"[a-z]+, [^.!?]{5,90}[.;]")  # beside such words: "dikes, high banks of earth."
_BOILERPLATE = ("project gutenberg", "gutenberg.org", "gutenberg.net", "distributed proofread", " etext", " e-text")
_BOILERPLATE_STARTS = (
    "produced by", "etext", "e-text", "transcriber's note", "scanner's note", "footnote", "the end.", "the end!",
)  # fmt: skip


def _why_left_out(heading: str, is_school_book: bool) -> str:
    """Returns the reason why the section under a heading is not for readers, or ''."""
    name = heading.upper().lstrip(" .0123456789-")
    if _NO_TEXT_FOR_READERS.match(name):
        return "front_matter"
    if _TEACHER_MATTER.match(name) or (is_school_book and _SCHOOL_TEACHER_MATTER.match(name)):
        return "teacher_matter"
    return "word_list" if is_school_book and _WORD_LIST.match(name) else ""


def book_sections(body: str, is_school_book: bool, left_out: dict[str, list[str]]) -> Iterator[_Section]:
    """Yields the sections of a book under their headings; puts what is not running text into left_out, by reason."""
    body = _BRACKETS.sub("", _PICTURED_LETTER.sub(r"\1", body))
    if "[" in body or "{" in body or "<" in body:
        body = _MARKED_LETTER.sub(r"\1\2", _SMALL_MARKS.sub("", body))
    if "=" in body:
        body = _BOLD.sub(r"\1", body)
    body = body.replace("_", "").replace("|", "").translate(_STRAIGHT)
    body = _joined_syllables(_without_page_heads(body).expandtabs(4))
    if is_school_book:
        body = _NUMBERED_LINE.sub("\n\n", body)
    section = _Section()
    reason = contents = why = ""
    for block in re.split(r"\n[ \t]*\n", body):
        lines = [line.rstrip() for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        text = _LINE_END_HYPHEN.sub(r"\1", " ".join(line.strip() for line in lines))
        if not any(map(str.isalpha, text)) or (len(lines) == 1 and _PAGE_NUMBER.fullmatch(text)):
            continue  # an ornament or a page number is no text at all
        if _is_heading(text, lines):
            if section.n_words:
                yield section
                section = _Section()
            section.heading = f"{section.heading} {text}".strip()[:120]
            reason = _why_left_out(text, is_school_book)
            contents = reason if _CONTENTS.match(text.upper()) else ""
            continue
        if contents and len(text) > 200 and text[-1] in ".!?\"'":
            reason = contents = ""  # a contents list ends where the first paragraph stands, heading or not
        is_explained = is_school_book and _explains_a_word(text, beside=why == "word_list")
        why = reason or _why_no_text(text, lines) or ("word_list" if is_explained else "")
        if why:
            left_out.setdefault(why, []).append(text)
            continue
        is_verse = _is_verse(lines)
        if is_verse:
            text = "\n".join(" ".join(line.split()) for line in lines)
        if is_school_book:
            text = _NUMBER.sub("", text)
        section.add(text if section.paragraphs else _without_capitals(text, body), is_verse)
        if _is_signature(text):
            yield section
            section = _Section()
    if section.n_words:
        yield section


def _without_page_heads(body: str) -> str:
    """Returns a book without the title and number that stood at the head of each page, paragraphs over it joined."""
    counts = Counter(match[1] or match[2] for match in _PAGE_HEAD.finditer(body))
    heads = {head for head, n in counts.items() if n >= _PAGES_OF_A_HEAD and not _NAMED_HEADING.fullmatch(head)}
    if not heads:
        return body
    pieces = [""]
    start = 0
    for match in _PAGE_HEAD.finditer(body):
        if (match[1] or match[2]) in heads:
            before = (pieces[-1] + body[start : match.start()]).rstrip()
            goes_on = before[-1:] not in (".", "!", "?", '"', "'") and body[match.end() : match.end() + 1].islower()
            pieces[-1:] = [before, "\n" if goes_on else "\n\n"]
            start = match.end()
    return "".join(pieces) + body[start:]


def _is_heading(text: str, lines: list[str]) -> bool:
    if len(lines) > 3 or len(text) > 100 or _is_signature(text):
        return False
    if text[-1] in ",;" or '"' in text:
        return False  # somebody who speaks loudly, or a speaker's name
    return text.isupper() or (len(lines) == 1 and _NAMED_HEADING.fullmatch(text) is not None)


def _why_no_text(text: str, lines: list[str]) -> str:
    """Returns the reason why a block is not running text, or ''."""
    lower = text.lower()
    if len(text) < _MAX_ADVERTISED and _PRICED.search(text):
        return "advertisement"
    if lower.startswith(_BOILERPLATE_STARTS) or lower == "the end" or any(words in lower for words in _BOILERPLATE):
        return "boilerplate"
    if re.search(r"[.!?]", text):
        return ""
    if sum("  " in line.strip() for line in lines) * 2 >= len(lines) and (
        len(lines) == 1 or len(text) < 40 * len(lines)
    ):
        return "word_list"  # columns without a sentence
    bare = text.rstrip("\"'")  # who is interrupted ends with a dash; in quotes and capitals stands a caption
    is_ended = bare[-1:] in (*",;:-", "\u2014") or (bare != text and not text.isupper())
    return "stray_lines" if len(lines) == 1 and len(text) < 60 and not is_ended else ""


def _is_signature(text: str) -> bool:
    return len(text) < 60 and text.isupper() and _SIGNATURE.match(text) is not None


@cache
def _dictionary() -> frozenset[str]:
    return frozenset(read_syllables())


def _explains_a_word(text: str, beside: bool) -> bool:
    """Is a paragraph of a school book the explanation of a word, or does it stand beside one and look like one?"""
    if text.startswith("DEFINITIONS"):
        return True
    if match := _EXPLAINED.match(text):
        word = re.sub(r"[^a-z]", "", match[1].lower())
        return word in _dictionary() and not _CONTRACTED.search(match[1])
    return beside and _EXPLAINED_TOO.fullmatch(text) is not None


_CAPITALS = re.compile(r"(?:[A-Z][A-Z'-]*,? ){1,6}(?=[a-z])")


def _without_capitals(text: str, body: str) -> str:
    """Returns a first paragraph whose first words were set in capitals as its book has these words elsewhere."""
    match = _CAPITALS.match(text, 1 if text[:1] in "\"'" else 0)
    if not match or max(map(len, match[0].split())) < 2 or re.search(r"\b[IVXLC]{2,}\b", match[0]):
        return text
    first, *others = match[0].split(" ")
    said = [first[:1] + first[1:].lower()]
    for word in others:
        small, large = word.lower(), word[:1] + word[1:].lower()
        is_small = word != "I" and body.count(f" {small.rstrip(',')} ") > body.count(f" {large.rstrip(',')} ")
        said.append(small if is_small else large)
    return text[: match.start()] + " ".join(said) + text[match.end() :]


def _is_verse(lines: list[str]) -> bool:
    """Is a block verse: several short lines that begin with a capital and are not a sentence each?"""
    if len(lines) < 3 or max(map(len, lines)) > 66:
        return False
    starts = [line.lstrip(" \"'0123456789.") for line in lines]
    n_capital = sum(start[:1].isupper() for start in starts)
    n_sentences = sum(line[-1] in ".!?" or line[-2:-1] in (".", "!", "?") for line in lines)
    n_full = sum(len(line.strip()) >= 58 for line in lines[:-1])
    return n_capital >= 0.8 * len(lines) and n_sentences <= 0.6 * len(lines) and n_full < 0.5 * len(lines)


def long_enough(sections: list[_Section]) -> Iterator[_Section]:
    """Yields sections of at least MIN_SECTION_WORDS: a short one is joined by those after it, verse only by verse."""
    pending: _Section | None = None
    for section in sections:
        if pending is None:
            pending = section
        elif pending.n_words < MIN_SECTION_WORDS and _is_mostly_verse(pending) == _is_mostly_verse(section):
            pending.join(section)
        else:
            yield pending
            pending = section
    if pending is not None:
        yield pending


def _is_mostly_verse(section: _Section) -> bool:
    return section.n_verse_words > section.n_words / 2


_SYLLABLES = re.compile(r"\b[A-Za-z]+(?:-[a-z]+)+\b")


def _joined_syllables(body: str) -> str:
    """Returns the text of a primer that prints syl-la-bles apart with its words whole; any other text as it is."""
    if len(re.findall(r"-[a-z]+-[a-z]", body)) * 400 < body.count(" "):
        return body
    known = _dictionary()

    def whole(match: re.Match[str]) -> str:
        word = match[0].replace("-", "")
        return word if word.lower() in known else match[0]

    return _SYLLABLES.sub(whole, body)
