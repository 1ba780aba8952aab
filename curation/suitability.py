"""Says why a text should not be read to a child, however easy its words: text in, a category or '' out.

suitability.csv lists terms (words, and phrases of the words as words_of cuts them) with category, weight and note.
A term of weight 10 flags a text alone. Weaker ones are innocent by themselves ("blood" in a fairy tale, "beer" in a
history book): they flag it where weights of one category add up to 10 in 400 words, no term counting more than twice.
Terms whose old or innocent sense is the usual one (gay, ass, cock, queer, intercourse, pussy, coon) are not listed.
A flagged text stays in the corpus, in the part for all ages.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from curation.clean import words_of

LIST = Path(__file__).with_name("suitability.csv")
CATEGORIES = {  # in the order they are told in
    "slur": "slurs against a people, or claims that it is worth less",
    "profanity": "swear words",
    "sexual": "sexual matters",
    "violence": "cruelty and wounds in detail",
    "self_harm": "suicide or self-harm",
    "drugs": "drugs or drunkenness",
    "adult_ads": "advertising for adults",
    "teacher_matter": "a preface, or directions for a teacher",
}
LIMIT = 10.0  # weight that flags a text, of one term or of several
LIMIT_WORDS = 400  # a longer text may have more of the weak terms
MOST = 2  # times a weak term counts: a story of one wolf killed ten times is one of a wolf


class Term(NamedTuple):
    """A line of the list."""

    term: str
    category: str
    weight: float
    note: str


class Found(NamedTuple):
    """A term in a text, and how often."""

    term: Term
    n: int


def why_unsuitable(text: str) -> str:
    """Returns the category that keeps a repaired text from children, or ''; the first of CATEGORIES of several."""
    words = words_of(text)
    limit = LIMIT * max(1.0, len(words) / LIMIT_WORDS)
    weights = dict.fromkeys(CATEGORIES, 0.0)
    for term, n in _found(words):
        weights[term.category] += limit if term.weight >= LIMIT else term.weight * min(n, MOST)
    return next((category for category, weight in weights.items() if weight >= limit), "")


def unsuitable_terms(text: str) -> list[Found]:
    """Returns the listed terms in a text, heaviest first: what a person needs to judge a flag."""
    return sorted(_found(words_of(text)), key=lambda found: (-found.term.weight, -found.n, found.term.term))


def _found(words: list[str]) -> Iterator[Found]:
    """Yields the terms among words; each phrase is looked for only where its first word stands."""
    listed = _listed()
    counts = Counter(words)
    for word in [word for word in counts if word.endswith("'s")]:
        counts[word[:-2]] += counts[word]
    line = ""
    for word in sorted(listed.keys() & counts.keys()):
        for term in listed[word]:
            if " " not in term.term:
                yield Found(term, counts[word])
                continue
            line = line or f" {'  '.join(words)} "  # two spaces: a count takes those around what it finds
            if n := line.count(f" {term.term.replace(' ', '  ')} "):
                yield Found(term, n)


@cache
def _listed() -> dict[str, list[Term]]:
    """Returns the terms by their first word."""
    by_word: dict[str, list[Term]] = {}
    for term in read_terms():
        by_word.setdefault(term.term.split()[0], []).append(term)
    return by_word


def read_terms() -> list[Term]:
    """Returns the list. Raises ValueError naming a term of an unknown category or that stands twice."""
    with LIST.open(encoding="utf-8", newline="") as file:
        terms = [Term(row["term"], row["category"], float(row["weight"]), row["note"]) for row in csv.DictReader(file)]
    counts = Counter(term.term for term in terms)
    for term in terms:
        if term.category not in CATEGORIES or counts[term.term] > 1:
            raise ValueError(f"{LIST.name}: {term.term} stands {counts[term.term]} times, as {term.category}")
    return terms
