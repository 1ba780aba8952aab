"""Quiz sets as prose: their training items as questions and answers, in documents of about 100 words.

In: a file of a set; the source's name says which set (quizzes/arc). Out: documents, and each item that is left out as
a dropped one. Items share a document when they are of one grade, subject and topic. What is about one passage, or
one story, is one work: so the held-out split never parts a story from its questions. Neighbours: quiz_sets.py reads
the files, quiz_phrasings.py puts items into words.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datatrove.data import Document

from curation.documents import cut, drop, make_document
from curation.set_files import UNREADABLE, why_unreadable
from curation.settings import CleaningSettings, SourceSettings
from curation.sources.quiz_items import EVALUATION, QuizItem, sentence
from curation.sources.quiz_phrasings import phrased
from curation.sources.quiz_sets import QUIZ_SETS

QUIZ_WORDS, LEAST_WORDS = 100, 20  # a document of short items has about so many words, and at least so many
SHORT_PASSAGE_WORDS = 40  # so short a passage stands in one paragraph with its question

TITLES = {
    "ai2": "AI2 science exams",
    "arc": "ARC",
    "asdiv": "ASDiv",
    "boolq": "BoolQ",
    "fairytaleqa": "FairytaleQA",
    "gsm8k": "GSM8K",
    "mctest": "MCTest",
    "openbookqa": "OpenBookQA",
    "piqa": "PIQA",
    "qasc": "QASC",
    "scienceqa": "ScienceQA",
    "sciq": "SciQ",
    "tabmwp": "TabMWP",
}


@dataclass
class _Bundle:
    """Items about one passage, and their paragraphs."""

    items: list[QuizItem] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)

    @property
    def n_words(self) -> int:
        return len(self.items[0].passage.split()) + sum(len(paragraph.split()) for paragraph in self.paragraphs)

    def told(self) -> list[str]:
        """Returns the passage and what is asked about it, as paragraphs."""
        passage = self.items[0].passage
        if passage and self.paragraphs and "\n" not in passage and len(passage.split()) <= SHORT_PASSAGE_WORDS:
            return [f"{sentence(passage)} {self.paragraphs[0]}", *self.paragraphs[1:]]
        return [paragraph for paragraph in (passage, *self.paragraphs) if paragraph]


_Places = dict[tuple[str, ...], dict[str, _Bundle]]  # bundles by passage, of a story or a grade, subject and topic


def read_quizzes(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the documents of one file of a quiz set. Raises ValueError where the source is named like no set."""
    set_name = source.partition("/")[2]
    if set_name not in QUIZ_SETS:
        raise ValueError(f"source {source} is no quiz set; known: {', '.join(sorted(QUIZ_SETS))}")
    usable: dict[str, QuizItem] = {}
    n_dropped = 0
    try:
        for item in QUIZ_SETS[set_name](path):
            if reason := _why_not(item, usable):
                text = f"{item.question} {item.answer}".strip() or item.passage
                yield drop(
                    make_document(source, settings, item.story or item.id, f"left-out-{n_dropped}", text), reason
                )
                n_dropped += 1
            else:
                usable[item.id] = item
    except UNREADABLE as error:
        yield drop(make_document(source, settings, path.name, "file", why_unreadable(error)), "unreadable_file")
    for number, group in _groups(usable.values(), cleaning):
        yield from _documents(number, group, source, settings, cleaning)


def _why_not(item: QuizItem, known: dict[str, QuizItem]) -> str:
    """Returns the reason why an item does not enter the corpus, or ''."""
    if item.split == EVALUATION:
        return "evaluation_split"
    return item.fault or ("repeated_item" if item.id in known else "")


def _groups(items: Iterable[QuizItem], cleaning: CleaningSettings) -> Iterator[tuple[int, list[_Bundle]]]:
    """Yields (number within its story or 0, bundles) of each document.

    The bundles are those of a story, or of one grade, subject and topic, in the order of the file.
    """
    places: _Places = {}
    for item in items:
        place = ("story", item.story) if item.story else ("items", item.grade, item.subject or "", item.topic)
        bundle = places.setdefault(place, {}).setdefault(item.passage or item.id, _Bundle())
        bundle.items.append(item)
        if item.question:
            bundle.paragraphs.append(phrased(item))
    for (kind, *_), bundles in _long_enough(places).items():
        target = cleaning.target_words if kind == "story" else QUIZ_WORDS
        for number, chunk in enumerate(_chunks(list(bundles.values()), target, cleaning.max_words)):
            yield number if kind == "story" else 0, chunk


def _long_enough(places: _Places) -> _Places:
    """Returns the places with those that are too short for a document put together by grade and subject."""
    merged: _Places = {}
    for place, bundles in places.items():
        is_short = place[0] == "items" and sum(bundle.n_words for bundle in bundles.values()) < LEAST_WORDS
        merged.setdefault((*place[:3], "") if is_short else place, {}).update(bundles)
    return merged


def _chunks(bundles: list[_Bundle], target_words: int, max_words: int) -> Iterator[list[_Bundle]]:
    """Yields bundles in groups of target_words or a little more; a last one that is too short joins the one before."""
    groups: list[list[_Bundle]] = []
    n_words = target_words
    for bundle in bundles:
        if n_words >= target_words or n_words + bundle.n_words > max_words:
            groups.append([])
            n_words = 0
        groups[-1].append(bundle)
        n_words += bundle.n_words
    least = max(LEAST_WORDS, target_words // 4)
    if len(groups) > 1 and n_words < least:
        last = groups.pop()
        groups[-1] += last
    yield from groups


def _documents(
    number: int, group: list[_Bundle], source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields a group as one document; as several where its passages are longer than a document may be."""
    first = group[0].items[0]
    passages = [block for bundle in group for block in bundle.items[0].passage.split("\n\n") if block]
    if first.story:  # a story is not interrupted: its questions come after it
        paragraphs = passages + [paragraph for bundle in group for paragraph in bundle.paragraphs]
    else:
        paragraphs = [paragraph for bundle in group for paragraph in bundle.told()]
    set_title = TITLES[source.partition("/")[2]]
    for i, document in enumerate(cut(paragraphs, cleaning, whole=True)):
        yield make_document(
            source,
            settings,
            first.story or first.id,
            f"{number}.{i}",
            "\n\n".join(document),
            title=", ".join(filter(None, (set_title, first.title, first.grade, first.topic))),
            subject=first.subject,
        )
