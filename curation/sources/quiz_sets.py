"""The items of quiz sets: a question, its answer, and what it is about, from each set's published files.

In: a file of a set, as its repository, the hub or a mirror has it. Out: QuizItem, of every split; an item that cannot
be used says why. A file that is not of its format raises one of set_files.UNREADABLE. Neighbours: quizzes.py makes
documents of the training items, quiz_phrasings.py says how they read, evaluations.py takes the other splits.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from curation.set_files import ALL_MEMBERS, field, json_items, members, parquet_rows
from curation.sources.quiz_items import (
    ADVICE,
    EVALUATION,
    PROBLEM,
    TRAIN,
    QuizItem,
    sentence,
    split_in,
    text_id,
    with_choice,
)
from curation.sources.quiz_stories import read_fairytaleqa, read_mctest
from curation.sources.quiz_tables import table_in_words

_AI2_MEMBERS = re.compile(r"/AI2-[^/]+\.jsonl$")


def _split_of(stated: str, name: str) -> str:
    """Returns the split an item states, else what its file's name tells."""
    return (TRAIN if stated == "train" else EVALUATION) if stated else split_in(name)


def _row_items(
    path: Path, item_of: Callable[[dict[str, Any], str], QuizItem], pattern: re.Pattern[str] = ALL_MEMBERS
) -> Iterator[QuizItem]:
    """Yields the item of each row of a file, or of an archive's members: parquet, JSON lines, a JSON list or object."""
    for name, data in members(path, pattern):
        for number, row in _rows(name, data):
            if not isinstance(row, dict):
                yield QuizItem(f"{PurePosixPath(name).name}-{number}", fault="bad_json")
                continue
            item = item_of(row, number)
            if item.fault or item.question.strip() or item.passage.strip():
                yield replace(item, split=_split_of(item.split, PurePosixPath(name).name))
            else:
                yield replace(item, fault="no_question")


def _rows(name: str, data: bytes) -> Iterator[tuple[str, Any]]:
    """Yields (number or key, row); None for a line that is no JSON."""
    if name.endswith(".parquet"):
        yield from ((str(i), row) for i, row in enumerate(parquet_rows(data)))
    elif name.endswith(".jsonl"):
        for number, line in enumerate(data.splitlines()):
            if line.strip():
                try:
                    yield str(number), orjson.loads(line)
                except orjson.JSONDecodeError:
                    yield str(number), None
    elif data.lstrip()[:1] == b"[":
        yield from ((str(i), row) for i, row in enumerate(orjson.loads(data)))
    else:
        yield from json_items(name, data)


def _prompted(row: dict[str, Any]) -> QuizItem:
    """Returns an item in the form of an evaluation prompt: query with scaffolding, choices, gold. Not for training."""
    parts = re.split(r"(?:^|\n)(Passage|Question|Choices|Answer): *", str(row["query"]))
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    question = said.get("Question", parts[0]).strip()
    choices = tuple(map(str, row.get("choices") or ()))
    gold = row.get("gold")
    answer = choices[gold] if isinstance(gold, int) and 0 <= gold < len(choices) else ""
    passage = said.get("Passage", "").strip()
    return QuizItem(text_id(question, *choices), question, answer, choices, passage, split="test")


def _lettered(item: QuizItem, choices: Any, key: str) -> QuizItem:
    """Returns the item with choices that have labels, as a list of objects or an object of lists."""
    if isinstance(choices, dict):
        texts, labels = choices.get("text"), choices.get("label")
    else:
        texts = [choice.get("text") for choice in choices or () if isinstance(choice, dict)]
        labels = [choice.get("label") for choice in choices or () if isinstance(choice, dict)]
    texts, labels = list(map(str, texts or ())), list(map(str, labels or ()))
    return with_choice(item, texts, labels.index(key) if key in labels else -1)


_SCIENCE_SCAFFOLDING = re.compile(r"Use the information (?:below|above) to answer (?:the|this) questions?\.\s*")
_POINTS_AT_PICTURE = re.compile(
    r"\b(?:diagram|graph|chart|picture|map|table|figure|illustration|drawing|key|model|food web|food chain)s?\b"
    r"[^.?!]{0,40}\b(?:below|above|shown|shows)\b|\bshown (?:below|above|in the)\b|\bbelow shows\b|\bpictured\b",
    re.IGNORECASE,
)


def _science_item(row: dict[str, Any], number: str) -> QuizItem:
    """Returns an item of ARC, OpenBookQA, QASC or the AI2 exams, which name their fields alike."""
    if "query" in row:
        return _prompted(row)
    nested = row.get("question")
    question = nested if isinstance(nested, dict) else {"stem": nested or row.get("question_stem") or ""}
    combined, first, second = (field(row, name).strip() for name in ("combinedfact", "fact1", "fact2"))
    stem = _SCIENCE_SCAFFOLDING.sub("", str(question.get("stem", ""))).strip()
    facts = " ".join(sentence(fact) for fact in (first, second, combined) if fact)
    choices = question.get("choices", row.get("choices"))
    item = QuizItem(field(row, "id") or text_id(stem), stem, explanation=facts)
    if _POINTS_AT_PICTURE.search(stem):
        return replace(item, fault="needs_picture")
    return _lettered(item, choices, field(row, "answerKey"))


def read_science(path: Path) -> Iterator[QuizItem]:
    """Yields the items of ARC (Clark et al. 2018), OpenBookQA (Mihaylov et al. 2018) or QASC (Khot et al. 2020)."""
    return _row_items(path, _science_item)


def read_ai2(path: Path) -> Iterator[QuizItem]:
    """Yields AI2's school science exams: elementary and eighth grade, as the names of their files say."""
    for name, data in members(path, _AI2_MEMBERS):
        grade = "elementary school" if "Elementary" in name else "grade 8" if "8thGr" in name else ""
        for number, row in _rows(name, data):
            if isinstance(row, dict):
                yield replace(_science_item(row, number), grade=grade, split=split_in(PurePosixPath(name).name))
            else:
                yield QuizItem(f"{PurePosixPath(name).name}-{number}", fault="bad_json")


def read_sciq(path: Path) -> Iterator[QuizItem]:
    """Yields SciQ (Welbl et al. 2017): most items come with the paragraph they were written from."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        question, answer, support = (field(row, k).strip() for k in ("question", "correct_answer", "support"))
        wrong = tuple(field(row, f"distractor{i}").strip() for i in (1, 2, 3))
        place = int(text_id(question), 16) % 4  # upstream names the right one, and has no order
        choices = (*wrong[:place], answer, *wrong[place:])
        passage = _supporting_paragraph(support)
        fault = "" if answer else "no_answer"
        return QuizItem(text_id(question, answer, support), question, answer, choices, passage, fault=fault)

    return _row_items(path, item)


def _supporting_paragraph(support: str) -> str:
    """Returns a paragraph of a textbook without its pointers; '' for what is none, such as an exercise."""
    text = re.sub(r"^[QA]: | \((?:(?:see )?(?:Figure|Table)\b[^)]*)?\)", "", support)
    is_none = text.count(" ") < 3 or "____" in text or "By the end of this section" in text
    return "" if is_none else sentence(text)


def read_piqa(path: Path) -> Iterator[QuizItem]:
    """Yields PIQA (Bisk et al. 2020): what one wants to do, and the better of two ways to do it."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        if "query" in row:
            return replace(_prompted(row), kind=ADVICE)
        goal, ways = field(row, "goal").strip(), [field(row, "sol1"), field(row, "sol2")]
        label = field(row, "label")
        made = QuizItem(text_id(goal, *ways), goal, kind=ADVICE)
        return with_choice(made, ways, int(label) if label in ("0", "1") else -1)

    return _row_items(path, item)


def read_boolq(path: Path) -> Iterator[QuizItem]:
    """Yields BoolQ (Clark et al. 2019): a passage of Wikipedia and a question of yes or no."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        if "query" in row:
            return _prompted(row)
        question = field(row, "question").strip()
        passage = field(row, "passage").strip().replace("``", '"').replace("''", '"')
        answer = {"True": "yes", "False": "no"}.get(field(row, "answer"), "")
        fault = "" if answer else "no_answer"
        return QuizItem(text_id(question, passage), question, answer, ("no", "yes"), passage, fault=fault)

    return _row_items(path, item)


def read_gsm8k(path: Path) -> Iterator[QuizItem]:
    """Yields GSM8K (Cobbe et al. 2021), word problems with worked steps; without its calculator marks."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        question = field(row, "question").strip()
        steps, _, answer = field(row, "answer").partition("####")
        steps = " ".join(sentence(line) for line in re.sub(r"<<[^>]*>>", "", steps).splitlines() if line.strip())
        fault = "" if answer.strip() else "no_answer"
        return QuizItem(text_id(question), question, answer.strip(), explanation=steps, kind=PROBLEM, fault=fault)

    return _row_items(path, item)


_ASDIV_UNIT = re.compile(r"^([\d.,/:]+) \((?!\d)([^()]+)\)$")


def read_asdiv(path: Path) -> Iterator[QuizItem]:
    """Yields ASDiv (Miao et al. 2020), word problems with their grade and formula. The set has no splits."""
    for _name, data in members(path):
        for problem in ET.fromstring(data).iter("Problem"):
            text = {element.tag: " ".join((element.text or "").split()) for element in problem}
            *parts, last = (_ASDIV_UNIT.sub(r"\1 \2", part.strip()) for part in text.get("Answer", "").split(";"))
            answer = " and ".join(filter(None, [", ".join(parts), last]))
            sum_of = text.get("Formula", "")
            sum_of = re.sub(r"\s*([-+*/=])\s*", r" \1 ", sum_of) if re.fullmatch(r"[-+*/=().\d\s]+", sum_of) else ""
            question = f"{text.get('Body', '')} {text.get('Question', '')}".strip()
            fault = "no_question" if not text.get("Question") else "" if answer else "no_answer"
            grade = f"grade {problem.get('Grade')}" if problem.get("Grade") else ""
            number = problem.get("ID") or text_id(question)
            yield QuizItem(number, question, answer, explanation=sum_of, grade=grade, kind=PROBLEM, fault=fault)


def read_tabmwp(path: Path) -> Iterator[QuizItem]:
    """Yields TabMWP (Lu et al. 2023), problems over small tables, which become sentences."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        columns = row.get("table_for_pd")
        header = list(columns) if isinstance(columns, dict) else []
        table = table_in_words(field(row, "table_title"), field(row, "table"), header)
        answer, unit = field(row, "answer"), field(row, "unit")
        answer = f"{unit}{answer}" if unit == "$" else answer if answer == "1" else f"{answer} {unit}".strip()
        choices = row.get("choices")
        last = field(row, "solution").strip().rpartition("\n")[2]
        return QuizItem(
            number,
            f"{table} {field(row, 'question').removeprefix('Look at the following schedule.').strip()}",
            answer,
            tuple(map(str, choices)) if isinstance(choices, list) else (),
            explanation=_concluding_sentence(last, field(row, "answer")),
            split=field(row, "split"),
            grade=f"grade {row['grade']}" if row.get("grade") else "",
            kind=PROBLEM,
            fault="" if field(row, "answer") else "no_answer",
        )

    return _row_items(path, item)


def _concluding_sentence(solution: str, answer: str) -> str:
    """Returns the last sentence of a solution where it tells the answer in words, else ''."""
    sentence = re.split(r"(?<=[.!?]) +(?=[A-Z])", solution)[-1]
    is_plain = sentence.endswith(".") and not re.search(r"[\\{}|]|\bblue\b|\bhighlight|\bcorresponds\b", sentence)
    return sentence if is_plain and re.search(rf"(?<![\d.]){re.escape(answer)}(?!\d)", sentence) else ""


_SCIENCEQA_SUBJECTS = {
    "natural science": "science",
    "social science": "social studies",
    "language science": "language",
}
_HINT_SCAFFOLDING = re.compile(
    r"^Figure: [^\n]*$|^Hint: |The (?:passage|text) below describes an? [\w ]+\."
    r"|(?:Read|Observe|Look at|Select|Use) the (?:passage|text|following|description|animals|best|better)\b[^.\n]*\."
    r"|Then,? (?:follow|answer) the [^.\n]*\.",
    re.MULTILINE,
)
_GLUED_UNIT = re.compile(r"(\d)(?=(?:kilo)?(?:meters|miles|hours|minutes|seconds|grams|liters|feet|inches|yards)\b)")
_HOLE = re.compile(
    r"(?:\b[Tt]he (?= |'s\b|are\b|is\b|has\b|uses\b)|^(?=s \w)) ?", re.MULTILINE
)  # a name was a link there
_PICTURED = re.compile(r"^Figure: ([^.\n]+)\.", re.MULTILINE)
_IN_PICTURE = re.compile(r"\bshown (?:by this|in the (?:model|picture|image|diagram))\b")
_SHOWN = re.compile(
    r"\b(?:picture|image|photo|map|diagram|shown|figure|graph|chart|table|model|highlighted|labell?ed|below|above"
    r"|arrow|these|this|colou?r)\b",
    re.IGNORECASE,
)


def read_scienceqa(path: Path) -> Iterator[QuizItem]:
    """Yields ScienceQA (Lu et al. 2022), school questions with grade and topic, all splits in one file."""

    def item(row: dict[str, Any], number: str) -> QuizItem:
        hint = _HINT_SCAFFOLDING.sub("", _with_name(field(row, "hint")))
        hint = "\n".join(" ".join(line.split()) for line in hint.splitlines() if line.strip())
        choices = row.get("choices") if isinstance(row.get("choices"), list) else []
        right = field(row, "answer")
        grade, topic = field(row, "grade"), field(row, "topic")
        question = field(row, "question").strip()
        made = QuizItem(
            field(row, "id") or number,
            question,
            passage=hint,
            split=field(row, "split"),
            grade=f"grade {grade.removeprefix('grade')}" if grade else "",
            topic=topic.replace("-", " "),
            subject="maths" if topic == "units-and-measurement" else _SCIENCEQA_SUBJECTS.get(field(row, "subject")),
        )
        if field(row, "image") and not _tells_enough(hint, question):
            return replace(made, fault="needs_picture")
        choices = [_GLUED_UNIT.sub(r"\1 ", str(choice)) for choice in choices or ()]
        made = with_choice(made, choices, int(right) if right.isdecimal() else -1)
        is_told = not _HOLE.search(hint) and not _IN_PICTURE.search(question)
        return made if is_told else replace(made, fault="needs_picture")

    return _row_items(path, item)


def _with_name(hint: str) -> str:
    """Returns a passage with the name of what its picture shows where that name is missing."""
    named = _PICTURED.search(hint)
    if not named:
        return hint
    name = named[1].strip()

    def filled(match: "re.Match[str]") -> str:
        if match[0].strip():
            return f"{match[0].strip()} {name}" + ("" if hint.startswith("'", match.end()) else " ")
        return name[:1].upper() + name[1:]

    return _HOLE.sub(filled, hint)


def _tells_enough(hint: str, question: str) -> bool:
    """Does an item with a picture make sense without it: a passage of 30 words, and nothing that points?"""
    return len(hint.split()) >= 30 and not _SHOWN.search(f"{hint} {question}")


QUIZ_SETS: dict[str, Callable[[Path], Iterator[QuizItem]]] = {
    "ai2": read_ai2,
    "arc": read_science,
    "asdiv": read_asdiv,
    "boolq": read_boolq,
    "fairytaleqa": read_fairytaleqa,
    "gsm8k": read_gsm8k,
    "mctest": read_mctest,
    "openbookqa": read_science,
    "piqa": read_piqa,
    "qasc": read_science,
    "scienceqa": read_scienceqa,
    "sciq": read_sciq,
    "tabmwp": read_tabmwp,
}
