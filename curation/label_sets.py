"""Returns texts whose reading level somebody stated, from the files of the sets that publish them.

In: one file, as a mirror holds it or as its publisher serves it (a .tar.gz of a repository where a set is many files),
and the set's LabelSettings, which hold every number. Out: LabelledText. An item without a text or a label is left out;
a file that is not of its format, or holds no labelled text at all, raises UserError.
"""

import hashlib
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any

import numpy as np

from curation.set_files import (
    AGAIN,
    ALL_MEMBERS,
    UNREADABLE,
    WrongFormat,
    csv_rows,
    decoded,
    field,
    json_items,
    members,
    sheet_rows,
    why_unreadable,
)
from curation.settings import LabelSettings
from shared.console import UserError

N_BUCKETS = 10  # splits are made of whole buckets
LOWEST_GRADE, HIGHEST_GRADE = 0.0, 13.0  # kindergarten and college: a map of grades goes no further
QUIZ_WORDS, LEAST_QUIZ_WORDS = 100, 20  # a quiz text has about so many words, and at least so many
SWITCHBOARD_WINDOWS, CHILDES_WINDOWS = 3, 2  # of one conversation, so that no long one sets the tone

# Members of upstream archives; a plain file is read whatever its name.
ONESTOP_MEMBERS = re.compile(r"Texts-SeparatedByReadingLevel/.*-(?:ele|int|adv)\.txt$", re.IGNORECASE)
CEFR_MEMBERS = re.compile(r"/data/[ABC][12]/[^/]+\.txt$")
MCTEST_MEMBERS = re.compile(r"/mc\d+\.\w+\.tsv$")
QUIZ_MEMBERS = re.compile(r"/(?:problems\w*\.json|ASDiv\.xml)(?:\.gz)?$")
SWITCHBOARD_MEMBERS = re.compile(r"swda\w*/\w+/\d+\.txt$")  # 2005_text.txt holds the words of 2005.txt again
CHILDES_MEMBERS = re.compile(r"/(?:original_transcripts|data)/[^/]+\.csv$")

_ONESTOP_NAME = re.compile(r"(.+)-(ele|int|adv)$", re.IGNORECASE)
_ONESTOP_HEADINGS = frozenset(("elementary", "intermediate", "advanced"))
_UNINTELLIGIBLE = frozenset(("xxx", "yyy", "www"))  # CHAT manual, MacWhinney 2000: not heard, not written down


@dataclass(frozen=True)
class LabelledText:
    """A text whose reading level somebody stated. `key` is what splits go by; `work` names it among all sets."""

    source: str
    key: str  # author, book, story, topic
    grade: float | None  # None where the set states an order only
    text: str  # raw: repaired later by the caller
    genre: str
    level: str = ""  # the set's own label: "BT 0.31", "Ele", "A2", "grade5"
    title: str = ""

    @property
    def work(self) -> str:
        return f"{self.source}/{self.key}"


Reader = Callable[[Path, str, LabelSettings, int], Iterator[LabelledText]]


def split_bucket(key: str) -> int:
    """Returns which of N_BUCKETS a key belongs to: a hash, so it never depends on what other keys there are."""
    return int(hashlib.sha1(key.strip().lower().encode()).hexdigest(), 16) % N_BUCKETS


def _checked(reader: Reader) -> Reader:
    """Returns a reader that names the file it cannot read, or in which it finds nothing."""

    @wraps(reader)
    def read(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
        found = False
        try:
            for text in reader(path, name, settings, window_words):
                found = True
                yield text
        except UNREADABLE as error:
            raise UserError(f"{path} cannot be read as {name}: {why_unreadable(error)}", AGAIN) from error
        if not found:
            raise UserError(f"{path} holds no labelled text of {name}", AGAIN)

    return read


@_checked
def read_clear(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields CLEAR excerpts, graded by the teachers' judgement BT_easiness, by no formula (Crossley et al. 2022)."""
    knots = sorted((float(ease), grade) for ease, grade in settings.grades.items())
    if len(knots) < 2:
        raise UserError(f"{name}: grades has {len(knots)} knots, a map needs 2", "copy them from pipelines.yaml")
    columns = ("Author", "Title", "Categ", "Excerpt", "BT_easiness")
    for member, data in members(path, ALL_MEMBERS):
        rows = sheet_rows(data, columns) if member.endswith(".xlsx") else csv_rows(data, columns)
        for row in rows:
            ease = _number(row["BT_easiness"])
            if ease is None or not row["Excerpt"].strip():
                continue
            genre = "literature" if row["Categ"].strip().lower().startswith("lit") else "information"
            key = (row["Author"].strip() or row["Title"].strip()).lower()
            grade = grade_of_ease(ease, knots)
            yield LabelledText(name, key, grade, row["Excerpt"], genre, f"BT {ease:.2f}", row["Title"].strip())


def grade_of_ease(ease: float, knots: Sequence[tuple[float, float]]) -> float:
    """Returns the grade on the line through the knots (ease, grade; by ascending ease), which goes on at both ends."""
    x, y = (np.array(side, dtype=float) for side in zip(*knots, strict=True))
    segment = int(np.clip(np.searchsorted(x, ease) - 1, 0, len(x) - 2))
    slope = (y[segment + 1] - y[segment]) / (x[segment + 1] - x[segment])
    return float(np.clip(y[segment] + slope * (ease - x[segment]), LOWEST_GRADE, HIGHEST_GRADE))


@_checked
def read_onestop(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields OneStopEnglish news (Vajjala and Lucic 2018). Versions of an article share its key; levels are an order.

    Upstream has had articles twice, in Int-Txt and in Int-Txt/Int-Txt: the first copy counts.
    """
    seen = set()
    for member, data in members(path, ONESTOP_MEMBERS):
        match = _ONESTOP_NAME.match(PurePosixPath(member).stem)
        if not match:
            raise WrongFormat(f"{member} does not end in -ele, -int or -adv")
        article, level = match[1].strip(), match[2].capitalize()
        heading, _, rest = decoded(data).strip().partition("\n")
        text = rest.strip() if heading.strip().lower() in _ONESTOP_HEADINGS else f"{heading}\n{rest}".strip()
        if text and (article, level) not in seen:
            seen.add((article, level))
            yield LabelledText(name, article, settings.grades.get(level), text, "news", level, article)


@_checked
def read_cefr(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields learners' texts with their CEFR level, A1 to C2: from a CSV, or text files in folders named by level."""
    for member, data in members(path, CEFR_MEMBERS):
        if member.endswith(".txt"):
            parts = PurePosixPath(member)
            items = [(parts.stem, parts.parent.name, decoded(data))]
        else:
            rows = csv_rows(data, ("text", "label", "source_file"))
            items = [(row["source_file"], row["label"].strip(), row["text"]) for row in rows]
        for title, level, text in items:
            if text.strip() and level:
                yield LabelledText(name, title, settings.grades.get(level), text, "learners", level, title)


@_checked
def read_mctest(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    r"""Yields the stories of MCTest, without their questions. Line breaks are written as \newline, tabs as \tab."""
    grade = _stated_grade(settings, "story", name)
    for _member, data in members(path, MCTEST_MEMBERS):
        for line in data.decode("utf-8-sig").splitlines():
            fields = line.split("\t")
            if len(fields) > 2 and fields[2].strip():
                text = fields[2].replace("\\newline", "\n").replace("\\tab", "\t")
                yield LabelledText(name, fields[0], grade, text, "story", "story")


@dataclass(frozen=True)
class _QuizItem:
    """A question with its answer. Items of one bucket of `key`, one level and one topic may share a text."""

    key: str
    topic: str
    level: str
    text: str


@_checked
def read_scienceqa(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields ScienceQA (Lu et al. 2022) in texts of one grade and topic; items of a skill never leave their split."""

    def item(problem: dict[str, Any]) -> _QuizItem:
        choices, right = _choices(problem), field(problem, "answer")
        answer = choices[int(right)] if right.isdecimal() and int(right) < len(choices) else ""
        text = _quiz_text([field(problem, "hint"), field(problem, "question")], choices, answer)
        return _QuizItem(field(problem, "skill"), field(problem, "topic"), field(problem, "grade"), text)

    for member, data in members(path, QUIZ_MEMBERS):
        yield from _quiz_texts((item(problem) for _, problem in json_items(member, data)), name, settings)


@_checked
def read_tabmwp(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields TabMWP (Lu et al. 2023), word problems over small tables, in texts of one grade."""

    def item(number: str, problem: dict[str, Any]) -> _QuizItem:
        rows = field(problem, "table").split("\n")
        table = "\n".join(" ".join(cell.strip() for cell in row.split("|")).strip() for row in rows)
        answer, unit = field(problem, "answer"), field(problem, "unit")
        answer = f"{unit}{answer}" if unit == "$" else f"{answer} {unit}".strip()
        lines = [field(problem, "table_title"), table, field(problem, "question")]
        text = _quiz_text(lines, _choices(problem), answer)
        return _QuizItem(number, "", field(problem, "grade"), text)

    for member, data in members(path, QUIZ_MEMBERS):
        yield from _quiz_texts((item(*pair) for pair in json_items(member, data)), name, settings)


@_checked
def read_asdiv(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields ASDiv (Miao et al. 2020), word problems, in texts of one grade."""

    def item(problem: ET.Element) -> _QuizItem:
        body, question, answer = (" ".join((problem.findtext(tag) or "").split()) for tag in _ASDIV_TAGS)
        text = _quiz_text([f"{body} {question}" if question else ""], (), answer)  # they may share one sentence
        return _QuizItem(problem.get("ID", ""), "", problem.get("Grade", ""), text)

    for _member, data in members(path, QUIZ_MEMBERS):
        yield from _quiz_texts(map(item, ET.fromstring(data).iter("Problem")), name, settings)


_ASDIV_TAGS = ("Body", "Question", "Answer")


def _quiz_text(lines: Sequence[str], choices: Sequence[str], answer: str) -> str:
    """Returns an item as a pupil sees it: what is given, the choices one a line, the answer. '' without a question.

    The question is the last of the lines.
    """
    shown = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    given = [line.strip() for line in lines if line.strip()]
    return "\n".join([*given, *shown, *([f"Answer: {answer}"] if answer else [])]) if lines[-1].strip() else ""


def _quiz_texts(items: Iterable[_QuizItem], name: str, settings: LabelSettings) -> Iterator[LabelledText]:
    """Yields items of one level, topic and bucket in texts of about QUIZ_WORDS, under the key of their first item."""

    def text_of(group: list[_QuizItem]) -> LabelledText:
        first = group[0]
        text = "\n\n".join(item.text for item in group)
        return LabelledText(name, first.key, _quiz_grade(first.level, settings), text, "quiz", first.level)

    pending: dict[tuple[str, str, int], list[_QuizItem]] = {}
    for item in items:
        if not item.text or not item.key or _quiz_grade(item.level, settings) is None:
            continue
        place = (item.level, item.topic, split_bucket(item.key))
        group = pending.setdefault(place, [])
        group.append(item)
        if _n_words(group) >= QUIZ_WORDS:
            yield text_of(pending.pop(place))
    yield from (text_of(group) for group in pending.values() if _n_words(group) >= LEAST_QUIZ_WORDS)


def _n_words(group: Iterable[_QuizItem]) -> int:
    return sum(len(item.text.split()) for item in group)


def _quiz_grade(level: str, settings: LabelSettings) -> float | None:
    number = re.search(r"\d+", level)
    return settings.grades.get(level, float(number[0]) if number else None)


@_checked
def read_switchboard(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields windows of telephone talk between adults, one utterance a line, from `speaker|utterance|act` lines.

    Upstream has had conversations in two folders at once (2005 in train and dev): the first copy counts.
    """
    seen = set()
    for member, data in members(path, SWITCHBOARD_MEMBERS):
        if member.endswith(".txt"):
            conversations = [(PurePosixPath(member).stem, decoded(data))]
        else:
            items = (item for _, item in json_items(member, data))
            conversations = [(field(item, "id").removeprefix("swda-"), field(item, "text")) for item in items]
        for key, text in conversations:
            spoken = [" ".join("|".join(line.split("|")[1:-1]).split()) for line in text.splitlines()]
            if key not in seen:
                seen.add(key)
                windows = _windows(spoken, window_words, SWITCHBOARD_WINDOWS)
                yield from _talk(windows, "adult talk", key, name, settings)


@_checked
def read_childes(path: Path, name: str, settings: LabelSettings, window_words: int) -> Iterator[LabelledText]:
    """Yields windows of what is said to young children, one utterance a line; English ones only, nothing unheard."""
    for member, data in members(path, CHILDES_MEMBERS):
        corpus = PurePosixPath(member).name.partition(".")[0]
        transcripts: dict[str, list[str]] = {}
        for row in csv_rows(data, ("gloss", "transcript_id", "language")):
            heard = [word for word in row["gloss"].split() if word not in _UNINTELLIGIBLE]
            if row["language"] == "eng":
                transcripts.setdefault(row["transcript_id"], []).append(" ".join(heard))
        for number, spoken in transcripts.items():
            windows = _windows(spoken, window_words, CHILDES_WINDOWS)
            yield from _talk(windows, "speech to children", f"{corpus} {number}", name, settings)


def _talk(windows: Iterable[str], level: str, key: str, name: str, settings: LabelSettings) -> Iterator[LabelledText]:
    grade = _stated_grade(settings, level, name)
    yield from (LabelledText(name, key, grade, text, "transcript", level) for text in windows)


def _windows(lines: Iterable[str], window_words: int, most: int) -> list[str]:
    """Returns at most `most` windows of lines, of about window_words words each and evenly spread."""
    spoken = [line for line in lines if line]
    total = sum(len(line.split()) for line in spoken)
    n_windows = max(1, round(total / window_words))
    windows: list[list[str]] = [[] for _ in range(n_windows)]
    done = 0
    for line in spoken:
        n_words = len(line.split())
        windows[int((done + n_words / 2) * n_windows / total)].append(line)
        done += n_words
    step = max(1, n_windows / most)
    chosen = (windows[int((i + 0.5) * step)] for i in range(min(most, n_windows)))
    return ["\n".join(window) for window in chosen if window]


def _stated_grade(settings: LabelSettings, level: str, name: str) -> float:
    if level not in settings.grades:
        raise UserError(f"{name}: grades lacks {level!r}", "copy its grades from pipelines.yaml")
    return settings.grades[level]


def _choices(item: dict[str, Any]) -> list[str]:
    choices = item.get("choices")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


LABEL_READERS: dict[str, Reader] = {
    "clear": read_clear,
    "onestop": read_onestop,
    "cefr": read_cefr,
    "mctest": read_mctest,
    "scienceqa": read_scienceqa,
    "tabmwp": read_tabmwp,
    "asdiv": read_asdiv,
    "switchboard": read_switchboard,
    "childes": read_childes,
}
