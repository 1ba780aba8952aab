"""The starter corpus is what it says: how much, for which grades, of which kinds, and nothing twice."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from curation.readability import flesch_kincaid_grade
from curation.sources.starter import FOLDER
from shared.metrics import spearman

GENRES = {
    "story", "science", "social studies", "how-to", "dialogue", "verse", "word problem", "quiz", "news", "essay",
}  # fmt: skip
SUBJECTS = {"story", "science", "social studies", "maths", "health", "arts", "language", "everyday life"}


@pytest.fixture(scope="module")
def passages() -> list[dict[str, Any]]:
    return [orjson.loads(line) for path in sorted(Path(FOLDER).glob("grade*.jsonl")) for line in path.open("rb")]


def n_words(passages: list[dict[str, Any]]) -> int:
    return sum(len(p["text"].split()) for p in passages)


def test_there_is_enough_of_it(passages: list[dict[str, Any]]) -> None:
    assert len(passages) >= 360
    assert n_words(passages) >= 45_000
    assert 0.55 <= n_words([p for p in passages if p["grade"] <= 4]) / n_words(passages) <= 0.65


@pytest.mark.parametrize("grade", range(1, 13))
def test_every_grade_has_passages_of_several_genres(passages: list[dict[str, Any]], grade: int) -> None:
    mine = [p for p in passages if p["grade"] == grade]
    assert len(mine) >= 15
    assert len({p["genre"] for p in mine}) >= 4


def test_every_passage_is_labelled(passages: list[dict[str, Any]]) -> None:
    assert {p["genre"] for p in passages} == GENRES
    assert {p["subject"] for p in passages} == SUBJECTS
    assert all(p["title"].strip() and len(p["text"].split()) >= 40 for p in passages)
    assert [t for t, n in Counter(p["title"].lower() for p in passages).items() if n > 1] == []


def test_no_sentence_of_eight_words_stands_twice(passages: list[dict[str, Any]]) -> None:
    sentences = Counter(
        " ".join(words)
        for p in passages
        for sentence in re.split(r"(?<=[.!?])[\"')]*\s+|\n+", p["text"])
        if len(words := re.sub(r"\W+", " ", sentence.lower()).split()) >= 8
    )
    assert [sentence for sentence, n in sentences.items() if n > 1] == []


def test_intended_grade_and_flesch_kincaid_agree(passages: list[dict[str, Any]]) -> None:
    assert spearman([p["grade"] for p in passages], [flesch_kincaid_grade(p["text"]) for p in passages]) >= 0.75
