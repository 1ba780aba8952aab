"""Says which school subject a text is about, and which matter of a third grader's school and home it treats.

concepts.csv lists the concepts: what NGSS, Common Core and C3 ask for up to third grade, health, arts, and everyday
life. Terms are words and pairs of words as words_of cuts them, and stand for their plural and possessive too; `common`
ones mean less, for they come by in any story ("storm", "map"). Neighbours: clean.py, which cuts the words, and
composition.py, which prints the coverage of a mix.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from curation.clean import words_of

LIST = Path(__file__).with_name("concepts.csv")
EVERYDAY_LIFE = "everyday life"
SUBJECTS = ("science", "maths", "social studies", "health", "arts", "language", EVERYDAY_LIFE)  # of concepts.csv
COVERED_DOCS = 20  # documents that treat a concept, from which it is covered; with fewer it is thin

COMMON_MENTIONS = 4  # of one common term, from which it is what the text is about

# Tuned on 11,000 texts whose source states a subject (quiz sets, college and school books, the starter corpus) and on
# 5,300 of stories: 95 labels of 100 are the stated ones, 4 lessons of 10 are labelled, and 1 story of 100.
MIN_TERMS = 3  # different terms, common ones left out: a fox in its den is no lesson
MIN_DENSITY = 1.5  # terms in 100 words, none counted more than twice, a common one half
NARRATION = 0.4  # terms more that each word of a narrator asks for
MIN_LEAD = 2.5  # times the terms of the next subject
_NARRATIVE = frozenset(
    """
    i me my mine he him his she her hers himself herself myself mr mrs miss said says asked cried replied answered
    exclaimed shouted whispered
    """.split()  # noqa: SIM905
)


class Concept(NamedTuple):
    """A line of the list."""

    subject: str
    name: str
    terms: tuple[str, ...]
    common: tuple[str, ...]


class Coverage(NamedTuple):
    """How many documents treat a concept, and their words."""

    concept: Concept
    n_docs: int
    n_words: int


def subject_of(text: str) -> str | None:
    """Returns the school subject of a repaired text, or None for a story, talk, verse, or where it is not clear.

    A story speaks of he, she and I, and of many things once: the more it narrates, the more terms it has to have.
    Everyday life is never returned: its terms are those of stories.
    """
    words = words_of(text)
    counts = Counter(words)
    n_terms: Counter[str] = Counter()
    halves: Counter[str] = Counter()
    index = _index()
    for term, n in _mentions(words, counts).items():
        for subject, value in index.subjects_of[term]:
            n_terms[subject] += value - 1
            halves[subject] += value * min(n, 2)
    ranked = sorted(halves, key=lambda subject: (-halves[subject], subject))
    if not ranked or n_terms[ranked[0]] < MIN_TERMS:
        return None
    density = 50 * halves[ranked[0]] / len(words)
    narration = 100 * sum(map(counts.__getitem__, _NARRATIVE)) / len(words)
    leads = len(ranked) == 1 or halves[ranked[0]] >= MIN_LEAD * halves[ranked[1]]
    return ranked[0] if leads and density >= MIN_DENSITY + NARRATION * narration else None


def concepts_in(text: str) -> set[str]:
    """Returns the names of the concepts a repaired text treats: it has two of their terms, or one of them twice.

    A common term by itself has to be said four times.
    """
    words = words_of(text)
    index = _index()
    points: Counter[str] = Counter()
    for term, n in _mentions(words, Counter(words)).items():
        for name, is_common in index.concepts_of[term]:
            points[name] += 1 if is_common and n < COMMON_MENTIONS else n
    return {name for name, n in points.items() if n >= 2}


def coverage(documents: Iterable[tuple[str, int]]) -> list[Coverage]:
    """Returns for each concept, in the order of the list, how many documents (text, n_words) treat it."""
    n_docs: Counter[str] = Counter()
    n_words: Counter[str] = Counter()
    for text, length in documents:
        for name in concepts_in(text):
            n_docs[name] += 1
            n_words[name] += length
    return [Coverage(concept, n_docs[concept.name], n_words[concept.name]) for concept in read_concepts()]


@cache
def read_concepts() -> tuple[Concept, ...]:
    """Returns the list. Raises ValueError naming a concept that stands twice, has no term, or is of no subject."""
    with LIST.open(encoding="utf-8", newline="") as file:
        concepts = tuple(
            Concept(row["subject"], row["concept"], _split(row["terms"]), _split(row["common"]))
            for row in csv.DictReader(file)
        )
    counts = Counter(concept.name for concept in concepts)
    for concept in concepts:
        listed = Counter(concept.terms + concept.common)
        if concept.subject not in SUBJECTS or counts[concept.name] > 1 or not listed or max(listed.values()) > 1:
            raise ValueError(f"{LIST.name}: {concept.name}: unknown subject, no term, or something stands twice")
    return concepts


def _split(cell: str) -> tuple[str, ...]:
    return tuple(term for term in cell.split("; ") if term)


class _Index(NamedTuple):
    """The list by term: of each written form its term, of each term its concepts and what it counts for subjects."""

    words: dict[str, str]
    pairs: dict[tuple[str, str], str]
    concepts_of: dict[str, tuple[tuple[str, bool], ...]]  # with whether it is common
    subjects_of: dict[str, tuple[tuple[str, int], ...]]  # with 2, or 1 where it is common


@cache
def _index() -> _Index:
    index = _Index({}, {}, {}, {})
    values: dict[str, dict[str, int]] = {}
    for concept in read_concepts():
        for term in concept.terms + concept.common:
            index.concepts_of[term] = (*index.concepts_of.get(term, ()), (concept.name, term in concept.common))
            of_term = values.setdefault(term, {})
            if concept.subject != EVERYDAY_LIFE:
                of_term[concept.subject] = max(of_term.get(concept.subject, 0), 2 if term in concept.terms else 1)
    index.subjects_of.update((term, tuple(of_term.items())) for term, of_term in values.items())
    for term in index.concepts_of:
        for form in (_plural(term), f"{term}'s", term):
            first, _, second = form.partition(" ")
            if second:
                index.pairs[first, second] = term
            else:
                index.words[first] = term
    return index


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _mentions(words: list[str], counts: Counter[str]) -> Counter[str]:
    """Returns the terms among words, which are counted already, and how often each stands there."""
    index = _index()
    found: Counter[str] = Counter()
    for form in index.words.keys() & counts.keys():
        found[index.words[form]] += counts[form]
    for pair, n in Counter(filter(index.pairs.__contains__, pairwise(words))).items():
        found[index.pairs[pair]] += n
        for word in pair:
            if term := index.words.get(word):
                found[term] -= n  # the Pacific Ocean is one mention, not three
    return +found
