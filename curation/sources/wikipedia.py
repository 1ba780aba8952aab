"""Wikipedia: articles as WikiExtractor or a hub's tables have them, and the standard side of SWiPE's pairs of articles.

Headings, references, remains of tables, lists and markup go; what is left of an article is its paragraphs. Neighbours:
babylm.py, which reads Simple English Wikipedia with the same rules.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
from datatrove.data import Document

from curation.settings import CleaningSettings, SourceSettings
from curation.sources.rows import file_rows
from curation.sources.works import TextFile, Work, documents_of


def read_wikipedia(
    path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings, groups: range | None = None
) -> Iterator[Document]:
    """Yields the articles of a file, or of some row groups of a parquet file.

    Those that are too short are dropped as stubs. Tables (.parquet, .jsonl) have id, url, title
    and text, as wikimedia/wikipedia on the hub; .json is a list of pairs of SWiPE; any other file has
    `<doc id= url= title=> ... </doc>`. An article may stand in several files, so the position of a document names its
    file.
    """
    file = TextFile(path)
    if file.name.endswith((".parquet", ".jsonl")):
        works = _row_works(file, cleaning, groups)
    elif file.name.endswith(".json"):
        works = swipe_works(file, "r", cleaning)
    else:
        works = _extracted_works(file, cleaning)
    first = f"{groups.start}-" if groups else ""
    yield from documents_of(file, works, source, settings, cleaning, position_prefix=f"{file.name}.{first}")


STUB_WORDS = 50
_DOC = re.compile(r'<doc id="([^"]*)" url="([^"]*)" title="(.*)">')


def _extracted_works(lines: Iterable[str], cleaning: CleaningSettings) -> Iterator[Work]:
    """Yields the articles of WikiExtractor's output. An article without its end goes to where the next one begins."""
    head: re.Match[str] | None = None
    body: list[str] = []
    for line in lines:
        start = _DOC.match(line)
        if start or line.startswith("</doc>"):
            if head:
                yield _extracted(head, body, cleaning)
            head, body = start, []
        else:
            body.append(line)
    if head:
        yield _extracted(head, body, cleaning)


def _extracted(head: "re.Match[str]", body: list[str], cleaning: CleaningSettings) -> Work:
    number, title = head[1], html.unescape(head[3])
    url = f"https://en.wikipedia.org/wiki?curid={number}" if head[2].startswith("?") else head[2]
    return article(number, title, url, body[1:], cleaning)  # the first line repeats the title


def _row_works(file: TextFile, cleaning: CleaningSettings, groups: range | None) -> Iterator[Work]:
    for number, row, reason in file_rows(file.path, groups=groups):
        row = row if isinstance(row, dict) else {}
        title, text, url = row.get("title"), row.get("text"), row.get("url")
        if reason or not (isinstance(title, str) and isinstance(text, str)):
            yield Work(f"{file.name}/{number}", [], reason=reason or "bad_row")
            continue
        name = str(row.get("id") or f"{file.name}/{number}")
        yield article(name, title, url if isinstance(url, str) else None, text.split("\n"), cleaning)


def article(name: str, title: str, url: str | None, lines: Iterable[str], cleaning: CleaningSettings) -> Work:
    """Returns an article, marked as a stub where too little of it is left to read.

    Of the English Wikipedia, not the simple one, two sentences are a stub: of a moth, a hamlet, a skier. Its words are
    easy, what it says is not, and it is too short for its grade to be trusted.
    """
    paragraphs = article_paragraphs(lines)
    least = STUB_WORDS if url and url.startswith("https://en.") else cleaning.min_words
    is_stub = sum(len(paragraph.split()) for paragraph in paragraphs) < least
    return Work(name, paragraphs or [title], title=title, url=url, genre="article", reason="stub" if is_stub else "")


def swipe_works(file: TextFile, side: str, cleaning: CleaningSettings) -> Iterator[Work]:
    """Yields one side of the pairs of articles of a SWiPE file: "s" the simple ones, "r" the standard ones."""
    site = {"s": "simple", "r": "en"}[side]
    try:
        pairs = orjson.loads("".join(file))
    except orjson.JSONDecodeError as error:
        yield Work(file.name, [str(error)], reason="bad_json")
        return
    for number, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        pair = pair if isinstance(pair, dict) else {}
        title, revision, text = (pair.get(f"{side}_{key}") for key in ("page", "revid", "content"))
        if not (isinstance(title, str) and isinstance(text, str)):
            yield Work(f"{file.name}/{number}", [], reason="bad_row")
            continue
        url = f"https://{site}.wikipedia.org/w/index.php?oldid={revision}"
        yield article(f"{file.name}/{title}", title, url, text.split("\n"), cleaning)


_MARKUP = (
    (re.compile(r"<ref\b[^<>]{0,300}(?:/>|>[^<]{0,1000}</ref>)", re.IGNORECASE), ""),
    (re.compile(r"<br ?/?>", re.IGNORECASE), " "),
    (re.compile(r"</?[a-z][^<>]{0,200}>", re.IGNORECASE), ""),
    (re.compile(r"\[\[(?:Category|File|Image):[^\]]{0,300}\]\]", re.IGNORECASE), ""),
    (re.compile(r"\[\[(?:[^\[\]|]{0,200}\|)?([^\[\]|]{0,200})\]\]"), r"\1"),
    (re.compile(r"\{\{[^{}]{0,500}\}\}|'{2,}|\[\d+\]"), ""),
)
# Templates that the extractor took out leave "Shanghai () is", "Baer (; born 1792)", "the Greek , i.e." behind.
_HOLES = (
    (re.compile(r"[(\[][\s,;:/.']*[)\]]"), ""),
    (re.compile(r"\([\s,;:']+(?=[\s,;:])\s*|\([\s,;:]+"), "("),
    (re.compile(r"\s*[,;:]\s*\)"), ")"),
    (re.compile(r"(?:\s*,){2,}"), ","),
    (re.compile(r"\s+([,;:!?)])"), r"\1"),
    (re.compile(r"[^\S\n]{2,}"), " "),
)
# A measure that stood in a template: "The campus covers .", "With an area of , it is". Its sentence goes.
_LOST = re.compile(
    r"\s(?=[.!?][\"')]*(?:\s|$))"
    r"|(?<=\b(?:of|at|to|by|in))\s+(?=,)|(?<=\b(?:about|cover|spans|above|below|under|where|width))\s+(?=,)"
)
_HOLE = "\0"
_TABLE_ROW = re.compile(r"\s*(?:[!|]|\{\||\*|#|;|:|&|colspan|rowspan|style=|align=)")
_NO_MORE_TEXT = frozenset(
    ["see also", "references", "external links", "further reading", "notes", "sources", "bibliography", "footnotes"]
)
_HEADING_WORDS = 10
_LIST_WORDS = 15  # a line as short as this that ends no sentence is an item of a list
# A heading has none of these, nearly every short sentence has one.
_SENTENCE_WORDS = frozenset(
    """
    is are was were be been has have had do does did can could will would may might must it he she they we you i
    his her their its this that these those who which there lived died born made became won played served moved
    began started ended grew wrote took gave went came said says means lives plays makes works eats comes
    """.split()  # noqa: SIM905
)
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*$")


def article_paragraphs(lines: Iterable[str]) -> list[str]:
    """Returns the paragraphs of an article's lines.

    Left out: headings (WikiExtractor ends them with a full stop), all under See also, References and the like, rows of
    tables, items of lists and the line that introduces them, formulas, and sentences whose end was in a template.
    """
    paragraphs = []
    is_over = False
    for line in lines:
        text = _plain(line)
        if not text:
            continue
        if is_heading(text):
            is_over = text.rstrip(".:").lower() in _NO_MORE_TEXT
        elif not is_over and (paragraph := _paragraph(text)):
            paragraphs.append(paragraph)
    return paragraphs


def is_heading(text: str) -> bool:
    """Is a line a heading: a few words, no verb or pronoun that a sentence would have, and no end but a full stop?"""
    words = text.rstrip(".:").split()
    if not 0 < len(words) <= _HEADING_WORDS or not (text[-1] in ".:" or text[-1].isalnum()):
        return False
    return not text[0].islower() and _SENTENCE_WORDS.isdisjoint(word.lower().strip("\",'()") for word in words)


def _plain(line: str) -> str:
    """Returns a line without markup, and "" for a row of a table or the item of a list."""
    if "&" in line:
        line = html.unescape(html.unescape(line))
    if _TABLE_ROW.match(line) or "formula_" in line:
        return ""
    if any(sign in line for sign in "<[{'"):
        for pattern, plain in _MARKUP:
            line = pattern.sub(plain, line)
    line = _LOST.sub(_HOLE, line)
    for pattern, plain in _HOLES:
        line = pattern.sub(plain, line)
    return line.strip()


def _paragraph(text: str) -> str:
    """Returns the sentences of a paragraph that are whole; "" for what is none."""
    is_ended = _END.search(text) is not None
    if not is_ended and text[-1] != ":" and len(text.split()) < _LIST_WORDS:
        return ""
    if is_ended and _HOLE not in text:
        return text
    return " ".join(s for s in _SENTENCE.split(text) if _END.search(s) and _HOLE not in s)
