"""What must not stand in the training corpus: the texts that models and the grade classifier are measured with.

In: the files of an evaluation of pipelines.yaml: test and validation splits of quiz sets, BLiMP, labelled texts; and
the school readers held out of the classifier's training. Out: items, each with its texts. A new evaluation is a
function and a line in EVALUATION_READERS. Neighbour: decontaminate.py, which looks for them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from curation.documents import is_dropped
from curation.label_sets import LABEL_READERS
from curation.labels import split_of
from curation.set_files import AGAIN, UNREADABLE, WrongFormat, field, json_items, members, why_unreadable
from curation.settings import CurationSettings, EvaluationSettings, LabelSettings
from curation.sources import READERS
from curation.sources.gutenberg import gutenberg_books
from curation.sources.quiz_items import ADVICE, TRAIN, QuizItem
from curation.sources.quiz_sets import QUIZ_SETS
from shared.console import UserError

_BLIMP_MEMBERS = re.compile(r"/data/\w+\.jsonl$")
_LOST = frozenset(("bad_json", "bad_row"))  # faults of items whose texts could not be read


@dataclass(frozen=True)
class EvaluationItem:
    """An item of an evaluation, and its texts: a question, a passage, a sentence, an excerpt."""

    id: str
    texts: tuple[str, ...]


Reader = Callable[[Path], Iterator[EvaluationItem]]


def read_evaluation(path: Path, name: str, settings: EvaluationSettings) -> Iterator[EvaluationItem]:
    """Yields the items of one file of an evaluation; of a file that has training items too, the others.

    Raises UserError naming a file that is not what its set publishes, or has no item to yield.
    """
    found = False
    try:
        for item in EVALUATION_READERS[settings.reader](path):
            found = True
            yield item
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as {name}: {why_unreadable(error)}", AGAIN) from error
    if not found:
        raise UserError(f"{path} holds no item of evaluation {name}", AGAIN)


def read_held_out_readers(path: Path, name: str, settings: CurationSettings) -> Iterator[EvaluationItem]:
    """Yields the documents of a school reader of source `name`, if the grade classifier is tested with that book."""
    graded = {str(book.gutenberg_id) for book in gutenberg_books() if book.source == name and book.grade is not None}
    source = settings.label_sources[name]
    for document in READERS[source.reader](path, name, source, settings.cleaning):
        book = str(document.metadata["work"]).removeprefix(f"{name}/")
        if is_dropped(document) or book not in graded or split_of(book, settings.classifier.n_folds) is not None:
            continue
        yield EvaluationItem(str(document.id), (document.text,))


def _read_blimp(path: Path) -> Iterator[EvaluationItem]:
    """Yields BLiMP (Warstadt et al. 2020): the good and the bad sentence of each minimal pair."""
    for member, data in members(path, _BLIMP_MEMBERS):
        for number, pair in json_items(member, data):
            good, bad = field(pair, "sentence_good"), field(pair, "sentence_bad")
            if not good or not bad:
                raise WrongFormat(f"{PurePosixPath(member).name}, line {int(number) + 1}: no minimal pair")
            yield EvaluationItem(f"{PurePosixPath(member).stem}#{number}", (good, bad))


def _quiz(set_name: str) -> Reader:
    """Returns a reader of the items of a quiz set that are not for training, usable in the corpus or not."""

    def read(path: Path) -> Iterator[EvaluationItem]:
        for item in QUIZ_SETS[set_name](path):
            if item.fault in _LOST:
                raise WrongFormat(f"{item.id}: {item.fault}")
            if item.split != TRAIN and (texts := _texts_of(item)):
                yield EvaluationItem(item.id, texts)

    return read


def _texts_of(item: QuizItem) -> tuple[str, ...]:
    """Returns the passage and the question of an item; with its answer, where that goes on with the question."""
    texts = [item.passage, item.question]
    if item.kind == ADVICE or not item.question.rstrip().endswith("?"):
        texts = [item.passage, *(f"{item.question} {way}" for way in ([item.answer] if item.answer else item.choices))]
    return tuple(text.strip() for text in texts if text.strip())


def _labelled(set_name: str) -> Reader:
    """Returns a reader of the texts of a label set, whatever their labels."""

    def read(path: Path) -> Iterator[EvaluationItem]:
        settings = LabelSettings.model_validate(
            {"reader": set_name, "about": "", "mapping": "", "mirror": "*", "addresses": ["-"], "grades": _ANY_GRADES}
        )
        for number, text in enumerate(LABEL_READERS[set_name](path, set_name, settings, 0)):
            yield EvaluationItem(f"{text.key}#{number}", (text.text,))

    return read


_ANY_GRADES = {"0": 0.0, "1": 1.0}  # grades are not asked for here, but a map of them needs two knots

EVALUATION_READERS: dict[str, Reader] = {
    "blimp": _read_blimp,
    "arc": _quiz("arc"),
    "openbookqa": _quiz("openbookqa"),
    "piqa": _quiz("piqa"),
    "boolq": _quiz("boolq"),
    "qasc": _quiz("qasc"),
    "sciq": _quiz("sciq"),
    "mctest": _quiz("mctest"),
    "fairytaleqa": _quiz("fairytaleqa"),
    "gsm8k": _quiz("gsm8k"),
    "scienceqa": _quiz("scienceqa"),
    "tabmwp": _quiz("tabmwp"),
    "clear": _labelled("clear"),
    "onestop": _labelled("onestop"),
    "cefr": _labelled("cefr"),
}
