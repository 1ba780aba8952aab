"""Labelled texts of a profile, split so that nothing leaks, and the scorer trained on them, found or made.

Two tenths of the authors, books, stories and topics are never trained on, chosen by hash (split_of); of the rest, each
is graded by a model that never read its fold. Texts of training that share 10-grams with held-out ones are left out;
between folds some do (templates of quiz items above all).
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from curation.clean import repair, why_rejected
from curation.documents import is_dropped
from curation.grade_classifier import RECORD, GradeClassifier, TrainingText, is_whole, train_models
from curation.grading import Measured, Scorer, fit_scorer, measure_texts
from curation.grading_report import GradedText
from curation.label_sets import LABEL_READERS, LabelledText, split_bucket
from curation.pull import SourceFile
from curation.readability import SYLLABLE_COUNTER
from curation.settings import CurationSettings, LabelSettings
from curation.sources import READERS
from curation.sources.gutenberg import gutenberg_books
from curation.versions import grading_version
from shared.console import UserError, say
from shared.files import short_hash, write_text

TEST_BUCKETS = 2  # of N_BUCKETS: held out of every model
NGRAM_WORDS = 10
STORY_LEVELS = Path(__file__).parent / "sources" / "storybook_levels.csv"
Files = dict[str, list[SourceFile]]


@dataclass(frozen=True)
class Labels:
    """The labelled texts of a profile that can be graded, and how many of each set were left out for which reason."""

    texts: list[LabelledText]
    left_out: dict[str, dict[str, int]]


def split_of(key: str, n_folds: int) -> int | None:
    """Returns the fold of an author, book, story or topic, or None where it is held out of all training.

    A hash, so that it never depends on what others there are.
    """
    bucket = split_bucket(key)
    return None if bucket < TEST_BUCKETS else (bucket - TEST_BUCKETS) % n_folds


def classifier_folder(settings: CurationSettings, files: Files, models: Path) -> Path:
    """Returns where the classifier of these labels and settings is or will be."""
    return models / short_hash(
        {
            "labels": {name: labels.recorded() for name, labels in settings.labels.items()},
            "files": {name: [(file.name, file.sha256) for file in files[name]] for name in settings.labels},
            "sources": {name: source.recorded() for name, source in settings.label_sources.items()},
            "cleaning": settings.cleaning.model_dump(),
            "classifier": settings.classifier.model_dump(),
            "grading": settings.grading.model_dump(),
            "code": grading_version(),
        }
    )


def ensure_classifier(settings: CurationSettings, files: Files, models: Path, workers: int) -> Path:
    """Returns the folder of the classifier, trained now if it is not there yet."""
    folder = classifier_folder(settings, files, models)
    if not is_whole(folder):
        there = [name for name in settings.labels if files[name]]
        say(f"training the grade classifier on {', '.join(there)} (once for these labels and settings)")
        train_classifier(settings, read_labels(settings, files), folder, workers)
    return folder


def train_classifier(settings: CurationSettings, labels: Labels, folder: Path, workers: int) -> None:
    """Trains the models, fits grade and p_grade3 on their out-of-fold grades, and writes the record last."""
    n_folds = settings.classifier.n_folds
    chosen, n_shared = training_texts(labels.texts, settings)
    if not chosen:
        raise UserError("no labelled text to train the grade classifier on", "name label sets that have files")
    folds = {text.work: fold for text in chosen if (fold := split_of(text.key, n_folds)) is not None}
    in_corpus = {_work_in_corpus(text): folds[text.work] for text in chosen if _work_in_corpus(text)}
    training = [
        TrainingText(text.text, _grade(text), folds[text.work], settings.labels[text.source].repeat) for text in chosen
    ]
    record: dict[str, Any] = {
        "models": train_models(training, settings.classifier, folder, workers),
        "settings": settings.classifier.model_dump(),
        "trained_works": folds | in_corpus,
        "labels": _counts(labels, chosen, n_shared, settings),
        "syllables": SYLLABLE_COUNTER,
    }
    measured = _measure(chosen, GradeClassifier(folder, record), settings)
    known = [i for i, m in enumerate(measured) if m.window_grades]
    fit = fit_scorer(
        [measured[i] for i in known],
        [_grade(chosen[i]) for i in known],
        [chosen[i].source for i in known],
        settings.grading,
    )
    write_text(folder / RECORD, json.dumps({**record, "fit": asdict(fit)}, indent=1) + "\n")


def _work_in_corpus(text: LabelledText) -> str:
    """Returns the work of a label set's conversation where BabyLM has it as a document, else ''."""
    if text.source == "labels/childes":
        return f"babylm/childes/{text.key.replace(' ', '/')}"
    return f"babylm/switchboard/swda-{text.key}" if text.source == "labels/switchboard" else ""


def _grade(text: LabelledText) -> float:
    assert text.grade is not None, text.work
    return text.grade


def _measure(texts: Sequence[LabelledText], classifier: GradeClassifier, settings: CurationSettings) -> list[Measured]:
    return measure_texts([t.text for t in texts], [t.work for t in texts], classifier, settings.grading)


def _counts(
    labels: Labels, trained: list[LabelledText], n_shared: Counter[str], settings: CurationSettings
) -> dict[str, dict[str, Any]]:
    """Returns how many texts of each label set were trained on, held out, too like those, or stopped by the gate."""
    held_out = Counter(text.source for text in labels.texts if is_held_out(text, settings))
    n_trained = Counter(text.source for text in trained)
    return {
        name: {
            "trained": n_trained[name],
            "held_out": held_out[name],
            "too_like_held_out": n_shared[name],
            "not_gradable": labels.left_out.get(name, {}),
        }
        for name in settings.labels
    }


def is_held_out(text: LabelledText, settings: CurationSettings) -> bool:
    """Is a text measured with, and never trained on?"""
    n_folds = settings.classifier.n_folds
    return settings.labels[text.source].measured_only or text.grade is None or split_of(text.key, n_folds) is None


def training_texts(
    texts: Sequence[LabelledText], settings: CurationSettings
) -> tuple[list[LabelledText], Counter[str]]:
    """Returns what to train on, and how many texts of each set are too like a held-out one to be among it.

    Such a text shares a passage with it, or has its author but for the spelling.
    """
    held_out = [text for text in texts if is_held_out(text, settings)]
    seen = {ngram for text in held_out for ngram in ngrams(text.text)}
    namesakes = {(text.source, _spelt_plainly(text.key)) for text in held_out}
    most = settings.classifier.max_shared_ngrams
    by_set: dict[str, list[LabelledText]] = {}
    n_shared: Counter[str] = Counter()
    for text in texts:
        if is_held_out(text, settings):
            continue
        is_namesake = (text.source, _spelt_plainly(text.key)) in namesakes
        if is_namesake or sum(ngram in seen for ngram in ngrams(text.text)) > most:
            n_shared[text.source] += 1
        else:
            by_set.setdefault(text.source, []).append(text)
    chosen = [text for name, mine in by_set.items() for text in thinned(mine, settings.labels[name].max_texts)]
    return chosen, n_shared


def _spelt_plainly(key: str) -> str:
    return re.sub(r"[\W_]+", " ", key.lower()).strip()


def ngrams(text: str) -> set[int]:
    """Returns the hashes of a text's runs of NGRAM_WORDS words, whatever their case and punctuation."""
    words = "".join(c if c.isalnum() or c.isspace() else "" for c in text.lower()).split()
    return {hash(tuple(words[i : i + NGRAM_WORDS])) for i in range(len(words) - NGRAM_WORDS + 1)}


def thinned(texts: list[LabelledText], most: int | None) -> list[LabelledText]:
    """Returns at most so many of the texts, evenly spread over them."""
    if most is None or len(texts) <= most:
        return texts
    return [texts[i * len(texts) // most] for i in range(most)]


def read_labels(settings: CurationSettings, files: Files) -> Labels:
    """Returns the labelled texts of a profile, repaired, in the order of its sets and files.

    A long book gives windows_of_a_work at most. What the gate would not grade is left out, and counted.
    """
    kept: list[LabelledText] = []
    left_out: dict[str, dict[str, int]] = {}
    for name, labels in settings.labels.items():
        by_work: dict[str, list[LabelledText]] = {}
        for text in _texts_of(name, labels, files[name], settings):
            text = replace(text, text=repair(text.text))
            if reason := why_rejected(text.text, settings.cleaning):
                reasons = left_out.setdefault(name, {})
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                by_work.setdefault(text.work, []).append(text)
        kept += [text for mine in by_work.values() for text in thinned(mine, _most_of_a_work(labels, settings))]
    return Labels(kept, left_out)


def _most_of_a_work(labels: LabelSettings, settings: CurationSettings) -> int | None:
    return settings.classifier.windows_of_a_work if labels.reader in ("school_readers", "adult_books") else None


def _texts_of(
    name: str, labels: LabelSettings, files: Iterable[SourceFile], settings: CurationSettings
) -> Iterator[LabelledText]:
    for file in files:
        if labels.reader == "starter":
            yield from _starter_passages(file.path, name)
        elif name in settings.label_sources:
            yield from _labelled_documents(file.path, name, labels, settings)
        else:
            yield from LABEL_READERS[labels.reader](file.path, name, labels, settings.grading.window_words)


def _starter_passages(path: Path, name: str) -> Iterator[LabelledText]:
    from curation.sources.starter import passage_work

    for line in path.read_bytes().splitlines():
        p = orjson.loads(line)
        key = passage_work(path, p["title"])
        yield LabelledText(name, key, float(p["grade"]), p["text"], p["genre"], f"grade {p['grade']}", p["title"])


def _labelled_documents(
    path: Path, name: str, labels: LabelSettings, settings: CurationSettings
) -> Iterator[LabelledText]:
    """Yields the documents of a source's file, cut into windows, with the level of their book or story."""
    source = settings.label_sources[name]
    level_of = _LEVELS[labels.reader](name)
    windows = settings.cleaning.model_copy(update={"target_words": settings.grading.window_words})
    for document in READERS[source.reader](path, name, source, windows):
        key = str(document.metadata["work"]).removeprefix(f"{name}/")
        if key not in level_of or is_dropped(document):
            continue
        level = level_of[key]
        grade = labels.grades.get(key, labels.grades.get(level))
        if grade is None:
            raise UserError(
                f"{level} of {name} has no grade", f"give it one in pipelines.yaml: label_sets.{name}.grades"
            )
        title, genre = document.metadata["title"], document.metadata["genre"]
        yield LabelledText(name, key, grade, document.text, genre, level, title)


def _reader_levels(name: str) -> dict[str, str]:
    books = (book for book in gutenberg_books() if book.source == name and book.grade is not None)
    return {str(book.gutenberg_id): f"book {book.grade}" for book in books}


def _adult_levels(name: str) -> dict[str, str]:
    return {str(book.gutenberg_id): "adult book" for book in gutenberg_books() if book.source == name}


def _story_levels(name: str) -> dict[str, str]:
    with STORY_LEVELS.open(encoding="utf-8", newline="") as file:
        return {row["story"]: f"level {row['level']}" for row in csv.DictReader(file)}


_LEVELS = {"school_readers": _reader_levels, "adult_books": _adult_levels, "picture_books": _story_levels}


def grade_held_out(labels: Labels, scorer: Scorer, settings: CurationSettings) -> list[GradedText]:
    """Returns every labelled text with the grades of a model that never read it, and which split it belongs to."""
    gradings = scorer.grade_texts([t.text for t in labels.texts], [t.work for t in labels.texts])
    graded = []
    for text, grading in zip(labels.texts, gradings, strict=True):
        if grading.grade is None:
            continue
        graded.append(_graded(text, _split_name(text, settings), vars(grading)))
    return graded


def _split_name(text: LabelledText, settings: CurationSettings) -> str:
    if settings.labels[text.source].measured_only:
        return "measured"
    return "test" if split_of(text.key, settings.classifier.n_folds) is None else "out of fold"


def _graded(text: LabelledText, split: str, grades: dict[str, Any]) -> GradedText:
    return GradedText(
        source=text.source,
        key=text.key,
        level=text.level,
        label=text.grade,
        ease=float(text.level.removeprefix("BT ")) if text.level.startswith("BT ") else None,
        split=split,
        genre=text.genre,
        title=text.title,
        text=text.text,
        n_words=len(text.text.split()),
        **{name: grades[name] for name in ("fk_grade", "classifier_grade", "grade", "p_grade3")},
    )
