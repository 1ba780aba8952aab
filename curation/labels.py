"""Labelled texts of a profile, and the grade classifier trained on them: found in data/models/<hash>/ or made.

A starter passage carries the grade its writer meant; a window of a school reader the number of its book.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from curation.clean import repair, why_rejected
from curation.documents import is_dropped
from curation.grade_classifier import RECORD, GradeClassifier, LabelledText, is_whole, train_models
from curation.grading import fit_combination
from curation.pull import SourceFile
from curation.readability import SYLLABLE_COUNTER, flesch_kincaid_grade
from curation.settings import CleaningSettings, CurationSettings, SourceSettings
from curation.sources import READERS
from curation.versions import code_version
from shared.console import say
from shared.files import short_hash, write_text


@dataclass(frozen=True)
class HeldOutGrades:
    """What the classifier that never read a labelled text says of it; the three lists run in parallel."""

    labelled: list[LabelledText]
    fk_grades: list[float]
    classifier_grades: list[float]


def classifier_folder(settings: CurationSettings, files: dict[str, list[SourceFile]], models: Path) -> Path:
    """Returns where the classifier of these labels and settings is or will be."""
    return models / short_hash(
        {
            "labels": {name: [(file.name, file.sha256) for file in files[name]] for name in settings.labels},
            "sources": {name: settings.sources[name].recorded() for name in settings.labels},
            "cleaning": settings.cleaning.model_dump(),
            "classifier": settings.classifier.model_dump(),
            "max_fk_grade": settings.grading.max_fk_grade,
            "code": code_version(),
        }
    )


def ensure_classifier(
    settings: CurationSettings, files: dict[str, list[SourceFile]], models: Path, workers: int
) -> Path:
    """Returns the folder of the classifier, trained now if it is not there yet."""
    folder = classifier_folder(settings, files, models)
    if not is_whole(folder):
        say(f"training the grade classifier on {', '.join(settings.labels)} (once for these labels and settings)")
        train_classifier(settings, files, folder, workers)
    return folder


def train_classifier(
    settings: CurationSettings, files: dict[str, list[SourceFile]], folder: Path, workers: int
) -> None:
    """Trains the models, fits the combination on their out-of-fold grades, and writes the record last."""
    labelled = read_labelled(settings, files)
    hashes = train_models(labelled, settings.classifier, folder, workers)
    record = {
        "models": hashes,
        "settings": settings.classifier.model_dump(),
        "labels": {name: len(files[name]) for name in settings.labels},
        "labelled_works": sorted({text.work for text in labelled}),
        "n_labelled_texts": len(labelled),
        "syllables": SYLLABLE_COUNTER,
    }
    held_out = grade_held_out(labelled, GradeClassifier(folder, record))
    labels = [text.grade for text in held_out.labelled]
    strata = [(text.source, round(text.grade)) for text in held_out.labelled]
    combination = fit_combination(held_out.fk_grades, held_out.classifier_grades, labels, strata, settings.grading)
    write_text(folder / RECORD, json.dumps({**record, "combination": asdict(combination)}, indent=1) + "\n")


def grade_held_out(labelled: list[LabelledText], classifier: GradeClassifier) -> HeldOutGrades:
    """Returns the grades of labelled texts by models that never read them; texts without a known word are left out."""
    grades = classifier.predict([t.text for t in labelled], [t.work for t in labelled])
    pairs = [(text, grade) for text, grade in zip(labelled, grades, strict=True) if grade is not None]
    return HeldOutGrades([t for t, _ in pairs], [flesch_kincaid_grade(t.text) for t, _ in pairs], [g for _, g in pairs])


def read_labelled(settings: CurationSettings, files: dict[str, list[SourceFile]]) -> list[LabelledText]:
    """Returns the labelled texts of a profile, in the order of its sources and files."""
    return [
        text
        for name in settings.labels
        for file in files[name]
        for text in _labelled_of(name, settings.sources[name], file, settings)
    ]


def _labelled_of(
    name: str, source: SourceSettings, file: SourceFile, settings: CurationSettings
) -> Iterator[LabelledText]:
    grade_of_work = _starter_grades(name, file) if source.reader == "starter" else _reader_grades(name)
    windows = settings.cleaning.model_copy(update={"target_words": settings.classifier.window_words})
    documents = (d for d in READERS[source.reader](file.path, name, source, windows) if not is_dropped(d))
    texts = [(str(d.metadata["work"]), text) for d in documents if _is_readable(text := repair(d.text), windows)]
    step = max(1, len(texts) / settings.classifier.max_windows) if source.reader != "starter" else 1
    for i in range(int(len(texts) / step)):
        work, text = texts[int(i * step)]
        if work in grade_of_work:
            yield LabelledText(name, work, grade_of_work[work], text)


def _is_readable(text: str, cleaning: CleaningSettings) -> bool:
    return not why_rejected(text, cleaning)


def _starter_grades(name: str, file: SourceFile) -> dict[str, float]:
    from curation.sources.starter import passage_work

    passages = map(orjson.loads, file.path.read_bytes().splitlines())
    return {f"{name}/{passage_work(file.path, p['title'])}": float(p["grade"]) for p in passages}


def _reader_grades(name: str) -> dict[str, float]:
    from curation.sources.gutenberg import gutenberg_books

    return {
        f"{name}/{book.gutenberg_id}": float(book.grade)
        for book in gutenberg_books()
        if book.source == name and book.grade is not None
    }
