"""A quiz item: a question, its answer, and what it is about. Neighbours: quiz_sets.py and quiz_stories.py make them."""

import hashlib
import re
from dataclasses import dataclass, replace

TRAIN, EVALUATION = "train", "evaluation"  # every split that is not for training is for evaluation
PROBLEM, ADVICE = "problem", "advice"  # kinds: something to work out, a goal and the way to it


@dataclass(frozen=True)
class QuizItem:
    """A question with its answer. Items about one passage stay together, as do those of one story.

    `fault` is the reason why it cannot be used. A passage may stand alone, without a question.
    """

    id: str
    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    passage: str = ""  # paragraphs: what the question is about
    explanation: str = ""  # the facts or steps that lead to the answer
    split: str = ""  # TRAIN, EVALUATION, or "" where the set has none
    grade: str = ""  # as a title says it: "grade 3", "elementary school"
    topic: str = ""
    subject: str | None = None
    story: str = ""  # the name of the story it belongs to
    title: str = ""
    kind: str = ""  # PROBLEM, ADVICE, or "" for a question
    fault: str = ""


def split_in(name: str) -> str:
    """Returns the split that a file's name tells, "" where it tells none."""
    if re.search(r"(?<![a-z])train(?![a-z])", name.lower()):
        return TRAIN
    return EVALUATION if re.search(r"(?<![a-z])(?:test|dev|val|valid|validation)(?![a-z])", name.lower()) else ""


def text_id(*texts: str) -> str:
    """Returns an id for an item that has none: it depends on its words alone, wherever it stands."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def with_choice(item: QuizItem, choices: list[str], right: int) -> QuizItem:
    """Returns the item with its choices and the right one of them as its answer, or at fault where there is none."""
    if not 0 <= right < len(choices) or not choices[right].strip():
        return replace(item, fault="no_answer")
    return replace(item, choices=tuple(choice.strip() for choice in choices), answer=choices[right].strip())


def sentence(text: str) -> str:
    """Returns a text that begins with a capital and has an end mark."""
    text = " ".join(text.split())
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in (".", "!", "?") or text[-2:] in ('."', '!"', '?"') else f"{text.rstrip(' ,;:')}."
