"""BabyLM: the six text files of the hub's dataset, and corpora behind them as their own repositories have them.

| file                            | a work                            | its lines                                     |
|---------------------------------|-----------------------------------|-----------------------------------------------|
| childes.train.txt               | transcript `= = = x.cha = = =`    | `*MOT:<tab>look!`, `[points]`                 |
| switchboard.train.txt           | 2,000 words: no marks             | `A:<tab>Uh, yes.`                             |
| bnc_spoken, open_subtitles .txt | a passage between blank lines     | a sentence; `- Come in!`, `[bell]`, `HE SAID` |
| simple_wiki.train.txt           | article `= = = Title = = =`       | a paragraph or a heading                      |
| gutenberg.train.txt             | book `= = = PG123 = = =`          | a paragraph; `_stress_`, `[Illustration]`     |
| *.csv(.gz)                      | AO-CHILDES: a `transcript_id`     | `gloss` without marks, `type`                 |
| *.jsonl(.gz)                    | Switchboard: a conversation       | `A|Uh, yes.|ny` in `text`                     |
| *.tgt(.gz)                      | D-Wikipedia: a simple article     | all of it, lower-cased and tokenised          |
| *.json(.gz)                     | SWiPE: the simple one of a pair   | a paragraph of `s_content`                    |

How speech is cleaned is stated in talk.py, articles in wikipedia.py, tokenised text in restore.py.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import orjson
from datatrove.data import Document

from curation.settings import CleaningSettings, SourceSettings
from curation.sources import talk
from curation.sources.restore import restored
from curation.sources.wikipedia import article, swipe_works
from curation.sources.works import TextFile, Work, documents_of

UNMARKED_WORDS = 2000  # of a work where nothing says where one ends; BabyLM was sampled in pieces of this size


def read_babylm(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the documents of one file, by its format; what cannot be read is dropped with its reason."""
    file = TextFile(path)
    yield from documents_of(file, _works(file, cleaning), source, settings, cleaning)


def _works(file: TextFile, cleaning: CleaningSettings) -> Iterator[Work]:
    if file.name.endswith(".csv"):
        return _childes_transcripts(file)
    if file.name.endswith(".jsonl"):
        return _switchboard_conversations(file)
    if file.name.endswith(".tgt"):
        return _dwikipedia_articles(file, cleaning)
    if file.name.endswith(".json"):
        return swipe_works(file, "s", cleaning)
    if (kind := file.name.partition(".")[0]) in (*_TALK, "simple_wiki", "gutenberg"):
        return _hub_works(file, kind, cleaning)
    return iter([Work(file.name, [], reason="unknown_format")])


# AO-CHILDES

_ENDS = {
    "question": "?",
    "trail off question": "?",
    "interruption question": "?",
    "self interruption question": "?",
    "imperative_emphatic": "!",
    "trail off": "...",
    "interruption": "...",
    "self interruption": "...",
    "quotation next line": ":",
}  # the terminators of CHAT, as childes-db calls them; all others are a full stop


def _childes_transcripts(file: TextFile) -> Iterator[Work]:
    """Yields the transcripts of a corpus. Gaps in utterance_order are the child's turns, which upstream leaves out."""
    corpus = file.name.partition(".")[0]
    rows: dict[str, list[dict[str, str]]] = {}
    try:
        for number, row in enumerate(csv.DictReader(file)):
            if _is_utterance(row):
                rows.setdefault(row["transcript_id"], []).append(row)
            else:
                yield Work(f"{corpus}/row-{number}", [str(row.get("gloss") or "")], reason="bad_row")
    except csv.Error as error:
        yield Work(file.name, [str(error)], reason="bad_csv")
    for transcript, said in rows.items():
        said.sort(key=lambda row: int(row["utterance_order"]))
        languages = {row["language"] for row in said}
        yield Work(
            f"{corpus}/{transcript}",
            talk.turns(_childes_utterances(said)),
            joint="\n",
            reason="" if languages == {"eng"} else "not_english",
        )


def _is_utterance(row: dict[str, str]) -> bool:
    wanted = ("transcript_id", "utterance_order", "gloss", "type", "language", "speaker_code")
    return all(isinstance(row.get(key), str) for key in wanted) and row["utterance_order"].isdecimal()


def _childes_utterances(said: Iterable[dict[str, str]]) -> Iterator[tuple[str, str]]:
    turn, last = 0, 0
    for row in said:
        order = int(row["utterance_order"])
        turn += order > last + 1
        last = order
        if words := talk.childes_words(row["gloss"]):
            yield f"{row['speaker_code']} {turn}", words + _ENDS.get(row["type"], ".")


# Switchboard

_ABANDONED = "%"  # act of an utterance that was broken off or could not be made out (SWBD-DAMSL)


def _switchboard_conversations(file: TextFile) -> Iterator[Work]:
    for number, line in enumerate(file):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield Work(f"{file.name}/{number}", [line.strip()], reason="bad_json")
            continue
        name, text = (row.get("id"), row.get("text")) if isinstance(row, dict) else (None, None)
        if not (isinstance(name, str) and isinstance(text, str)):
            yield Work(f"{file.name}/{number}", [], reason="bad_row")
            continue
        said = (line.split("|") for line in text.split("\n") if line.count("|") >= 2)
        utterances = (
            (speaker, talk.switchboard_words("|".join(words))) for speaker, *words, act in said if act != _ABANDONED
        )
        yield Work(name, talk.turns(utterances, skip_acknowledgements=True), joint="\n")


# Simple English Wikipedia, tokenised


def _dwikipedia_articles(file: TextFile, cleaning: CleaningSettings) -> Iterator[Work]:
    for number, line in enumerate(file):
        text = restored(line)
        is_stub = len(text.split()) < cleaning.min_words
        yield Work(f"{file.name}/{number}", [text or line.strip()], genre="article", reason="stub" if is_stub else "")


# The hub's text files

_MARKER = re.compile(r"^(?:=\s?){3,}(.+?)(?:\s?=){3,}\s*$")


def _hub_works(file: TextFile, kind: str, cleaning: CleaningSettings) -> Iterator[Work]:
    """Yields the works of a file; where it has no marks, passages between blank lines of at least target_words."""
    for number, (title, lines) in enumerate(_marked(file, cleaning.target_words)):
        name = f"{kind}/{title or number}"
        if kind == "simple_wiki":
            yield from _simple_wiki(name, title, lines, cleaning)
        elif kind == "gutenberg":
            yield Work(name, _book_paragraphs(lines), title=title or None)
        else:
            yield Work(name, _TALK[kind](lines), joint="\n")


def _marked(lines: Iterable[str], at_least: int) -> Iterator[tuple[str, list[str]]]:
    """Yields (title, lines): a marked work whole, unmarked lines to a blank line after at_least words."""
    title, work, n_words = "", list[str](), 0
    for line in lines:
        line = line.strip()
        marker = _MARKER.match(line)
        if marker or (not title and n_words >= (UNMARKED_WORDS if line else at_least)):
            if n_words:
                yield title, work
            work, n_words = [], 0
        if marker:
            title = marker[1].strip()
            continue
        work.append(line)
        n_words += len(line.split())
    if n_words:
        yield title, work


_CHAT_LINE = re.compile(r"^\*([A-Za-z0-9]{2,5}):\s*(.*)$")
_TALK_LINE = re.compile(r"^([A-Z]):\s+(.*)$")


def _chat_turns(lines: Iterable[str]) -> list[str]:
    """Returns the turns of a CHAT transcript; lines that nobody speaks are actions and comments."""
    spoken = filter(None, map(_CHAT_LINE.match, lines))
    return talk.turns((line[1], talk.childes_words(line[2])) for line in spoken)


def _telephone_turns(lines: Iterable[str]) -> list[str]:
    spoken = filter(None, map(_TALK_LINE.match, lines))
    return talk.turns(((line[1], talk.switchboard_words(line[2])) for line in spoken), skip_acknowledgements=True)


_TALK = {
    "childes": _chat_turns,
    "switchboard": _telephone_turns,
    "bnc_spoken": talk.caption_lines,
    "open_subtitles": talk.caption_lines,
}


def _simple_wiki(name: str, title: str, lines: list[str], cleaning: CleaningSettings) -> Iterator[Work]:
    """Yields an article, and the telephone talk that stands behind the last one in some revisions of the file."""
    parts = {is_talk: list(part) for is_talk, part in groupby(lines, key=lambda line: bool(_TALK_LINE.match(line)))}
    if body := parts.get(False):
        yield article(name, title, None, body, cleaning)
    if True in parts:
        for number, (_, said) in enumerate(_marked(parts[True], cleaning.target_words)):
            yield Work(f"{name}/talk-{number}", _telephone_turns(said), joint="\n", genre="transcript")


_ORNAMENT = re.compile(r"[\W_]*|\W*\d+\W*")
_STRESS = re.compile(r"(?<!\w)[_=*](?=\S)([^_=*\n]{1,400})(?<=\S)[_=*](?!\w)")
_NOTE = re.compile(r"\[(?:Illustration|Footnote|Transcriber|Pg|Page|Sidenote)[^\]]{0,500}\]|\[\d+\]|\{\d+\}", re.I)
_BOILERPLATE = re.compile(
    r"project gutenberg|gutenberg\.(?:org|net)|distributed proofread|\be-?text\b|^produced by", re.I
)
_MAX_LINE = 90  # characters: where all lines of a block are shorter, it was cut at a margin


def _book_paragraphs(lines: Iterable[str]) -> list[str]:
    """Returns the paragraphs of a book: a line each, or blocks between blank lines where lines are cut at a margin."""
    blocks = [list(block) for is_text, block in groupby(lines, key=bool) if is_text]
    paragraphs = []
    for block in blocks:
        is_cut = len(block) > 1 and len(blocks) > 1 and max(map(len, block)) <= _MAX_LINE
        for text in [" ".join(block)] if is_cut else block:
            text = _STRESS.sub(r"\1", _NOTE.sub("", text)).strip()
            if not _ORNAMENT.fullmatch(text) and not _BOILERPLATE.search(text):
                paragraphs.append(text)
    return paragraphs
