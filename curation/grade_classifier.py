"""fastText over school grades: trained from labelled works in a process of its own, used in batches.

A classifier is a folder of fastText models: `all.bin`, and one for each fold, trained without the works of that fold,
so that a labelled text is never graded by a model that read it. classifier.json holds their hashes and the
combination with Flesch-Kincaid that curation/grading.py fitted on those out-of-fold grades.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from curation.settings import ClassifierSettings
from shared.console import Failure, UserError
from shared.files import sha256_file, written_whole

RECORD = "classifier.json"
ALL = "all"
_TOKEN_GAP = re.compile(r"([^\w\s']+)")
_LABEL = "__label__"


@dataclass(frozen=True)
class LabelledText:
    """A text whose US school grade somebody stated. `work` is what folds go by."""

    source: str
    work: str
    grade: float
    text: str


def fold_of(work: str, n_folds: int) -> int:
    """Returns the fold of a work: a hash, so it never depends on what other works there are."""
    return int.from_bytes(hashlib.blake2b(work.encode(), digest_size=8).digest()) % n_folds


def classifier_line(text: str) -> str:
    """Returns a text as fastText reads it: one line, lower case, punctuation apart."""
    return " ".join(_TOKEN_GAP.sub(r" \1 ", text.lower()).split())


def train_models(
    labelled: Sequence[LabelledText], settings: ClassifierSettings, folder: Path, workers: int
) -> dict[str, str]:
    """Trains `all` and the fold models into a folder, so many at a time. Returns the SHA-256 of each model file."""

    def train(name: str) -> tuple[str, str]:
        chosen = [t for t in labelled if name == ALL or str(fold_of(t.work, settings.n_folds)) != name]
        if len({round(t.grade) for t in chosen}) < 2:
            raise UserError(
                "the labelled texts leave a fold with fewer than two grades", "add labelled sources to the profile"
            )
        path = folder / f"{name}.bin"
        _fit(chosen, settings, path)
        return path.name, sha256_file(path)

    with ThreadPoolExecutor(workers) as pool:  # of threads that wait for a process each
        return dict(pool.map(train, [ALL, *map(str, range(settings.n_folds))]))


def _fit(labelled: Sequence[LabelledText], settings: ClassifierSettings, path: Path) -> None:
    """Trains one model in a fresh process with one thread.

    fastText reads a block of memory before it writes it; a fresh process with a low mmap threshold gets that block
    from the system, zeroed, and so the same input gives the same bytes. Otherwise it gives other models, or NaN. The
    model comes back through a pipe, because on a full disk fastText saves half of it and says nothing.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as lines, written_whole(path) as temporary:
        chosen = _balanced(labelled, settings.lines_per_grade)
        lines.writelines(f"{_LABEL}{round(t.grade)} {classifier_line(t.text)}\n" for t in chosen)
        lines.flush()
        options = {
            "lr": settings.lr,
            "dim": settings.dim,
            "epoch": settings.epoch,
            "minCount": settings.min_count,
            "wordNgrams": settings.word_ngrams,
            "bucket": settings.bucket,
        }
        job = json.dumps({"input": lines.name, **options})
        finished = subprocess.run(
            [sys.executable, "-m", "curation.grade_classifier", job],
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
        )
        if finished.returncode:
            said = finished.stderr.decode(errors="replace").strip()[-300:]
            raise Failure(f"fastText could not train: {said}", "look at lr and epoch of classifier in pipelines.yaml")
        temporary.write_bytes(finished.stdout)


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the record of a trained classifier. It is written last, so where it stands all models do."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    return record


def _balanced(labelled: Sequence[LabelledText], lines_per_grade: int) -> list[LabelledText]:
    """Returns as many texts of each grade as of any other: thinned evenly, or repeated.

    Otherwise a fold without the books of a grade would make that grade rarer, and its own books would be graded away
    from it: out-of-fold grades came out falling with the label before this (FINDINGS.md, 2026-11-21).
    """
    by_grade: dict[int, list[LabelledText]] = {}
    for text in labelled:
        by_grade.setdefault(round(text.grade), []).append(text)
    return [
        texts[i % len(texts) if len(texts) < lines_per_grade else i * len(texts) // lines_per_grade]
        for _grade, texts in sorted(by_grade.items())
        for i in range(lines_per_grade)
    ]


def is_whole(folder: Path) -> bool:
    """Does a classifier stand in the folder as it was trained?"""
    try:
        record = read_record(folder)
        has_all = {"models", "settings", "labelled_works", "combination"} <= record.keys()
        return has_all and all(sha256_file(folder / name) == sha256 for name, sha256 in record["models"].items())
    except (OSError, ValueError, AttributeError):
        return False


class GradeClassifier:
    """The models of a folder, checked against the hashes of its record and loaded when first needed."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = record["models"]
        self.n_folds: int = record["settings"]["n_folds"]
        self.labelled_works = frozenset(record["labelled_works"])

    def predict(self, texts: Sequence[str], works: Sequence[str]) -> list[float | None]:
        """Returns the expected grade of each text over fastText's labels; of labelled works, out of fold.

        None where the model knows no word of it.
        """
        by_model: dict[str, list[int]] = {}
        for i, work in enumerate(works):
            name = str(fold_of(work, self.n_folds)) if work in self.labelled_works else ALL
            by_model.setdefault(name, []).append(i)
        grades: list[float | None] = [None] * len(texts)
        for name, indexes in by_model.items():
            model = _load(self.folder / f"{name}.bin", self.hashes[f"{name}.bin"])
            for i, grade in zip(indexes, _expected_grades(model, [texts[i] for i in indexes]), strict=True):
                grades[i] = grade
        return grades


@cache
def _load(path: Path, sha256: str) -> Any:
    import fasttext

    if sha256_file(path) != sha256:  # a truncated model would load without a word
        raise UserError(f"{path} is not the model that was trained", f"remove {path.parent} and run again")
    return fasttext.load_model(str(path))


def _expected_grades(model: Any, texts: Iterable[str]) -> list[float | None]:
    lines = [classifier_line(text) + "\n" for text in texts]
    labels, probabilities = model.f.multilinePredict(lines, -1, 0.0, "strict")
    grades: list[float | None] = []
    for values, names in zip(probabilities, labels, strict=True):
        p = np.asarray(values, dtype=np.float64)
        grade = p @ np.array([float(name[len(_LABEL) :]) for name in names])
        grades.append(float(grade / p.sum()) if len(p) else None)
    return grades


def _main() -> None:
    import fasttext

    job = json.loads(sys.argv[1])
    fasttext.train_supervised(thread=1, verbose=0, seed=0, **job).save_model("/dev/stdout")


if __name__ == "__main__":
    _main()
