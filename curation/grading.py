"""THE definition of third grade: how Flesch-Kincaid and the classifier become `grade`, `p_grade3` and `part`.

grade = intercept + fk_weight * Flesch-Kincaid (clipped) + classifier_weight * classifier, fitted by least squares on
the out-of-fold grades of the labelled texts; p_grade3 = P(grade of the text <= grade_limit) with the normal error that
this fit showed on them; part = grade3 from min_probability on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt
from pathlib import Path

import numpy as np

from curation.grade_classifier import GradeClassifier, read_record
from curation.readability import flesch_kincaid_grade
from curation.settings import GradingSettings
from shared.schema import Part

LOWEST_GRADE, HIGHEST_GRADE = -1.0, 14.0  # pre-kindergarten to college


@dataclass(frozen=True)
class Combination:
    """What was fitted: a plane, and the standard deviation (grades) of what it leaves unexplained."""

    intercept: float
    fk_weight: float
    classifier_weight: float
    error: float


@dataclass(frozen=True)
class Grading:
    """The grades of one text; all but fk_grade are None where it cannot be graded."""

    fk_grade: float
    classifier_grade: float | None
    grade: float | None
    p_grade3: float | None
    part: Part


def fit_combination(
    fk_grades: Sequence[float], classifier_grades: Sequence[float], labels: Sequence[float], settings: GradingSettings
) -> Combination:
    """Returns the least-squares plane from the two grades of labelled texts to their labels."""
    fk = np.minimum(fk_grades, settings.max_fk_grade)
    features = np.column_stack([np.ones(len(labels)), fk, classifier_grades])
    weights, *_ = np.linalg.lstsq(features, np.asarray(labels, dtype=float), rcond=None)
    error = float(np.std(features @ weights - labels))
    return Combination(*(round(float(weight), 6) for weight in weights), error=round(max(error, 0.1), 6))


class Grader:
    """Grades texts by a trained classifier folder."""

    def __init__(self, classifier_folder: Path, settings: GradingSettings) -> None:
        self.settings = settings
        record = read_record(classifier_folder)
        self.classifier = GradeClassifier(classifier_folder, record)
        self.combination = Combination(**record["combination"])

    def grade(self, texts: Sequence[str], works: Sequence[str]) -> list[Grading]:
        """Returns the grading of each text; a labelled work is graded by a model that never read it."""
        classifier_grades = self.classifier.predict(texts, works)
        return [self._combine(flesch_kincaid_grade(text), c) for text, c in zip(texts, classifier_grades, strict=True)]

    def _combine(self, fk_grade: float, classifier_grade: float | None) -> Grading:
        if classifier_grade is None:
            return Grading(fk_grade, None, None, None, "all_ages")
        fit = self.combination
        fk = min(fk_grade, self.settings.max_fk_grade)
        grade = fit.intercept + fit.fk_weight * fk + fit.classifier_weight * classifier_grade
        grade = min(max(grade, LOWEST_GRADE), HIGHEST_GRADE)
        p_grade3 = 0.5 * (1 + erf((self.settings.grade_limit - grade) / (fit.error * sqrt(2))))
        part: Part = "grade3" if p_grade3 >= self.settings.min_probability else "all_ages"
        return Grading(fk_grade, classifier_grade, grade, p_grade3, part)
