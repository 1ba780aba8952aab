"""THE definition of third grade: how Flesch-Kincaid and the classifier become `grade`, `p_grade3` and `part`.

grade = intercept + fk_weight * Flesch-Kincaid (clipped) + classifier_weight * classifier, fitted on the out-of-fold
grades of the labelled texts, and spread as widely as their labels; p_grade3 = P(grade of the text <= grade_limit) with
the normal error that this fit showed on them; part = grade3 from min_probability on.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from curation.grade_classifier import GradeClassifier
from curation.readability import flesch_kincaid_grade
from curation.settings import GradingSettings
from shared.schema import Part

LOWEST_GRADE, HIGHEST_GRADE = -1.0, 14.0  # pre-kindergarten to college


@dataclass(frozen=True)
class Combination:
    """What was fitted: a plane over the two grades, and the standard deviation (grades) of what it misses."""

    intercept: float
    fk_weight: float
    classifier_weight: float
    error: float


@dataclass(frozen=True)
class Grading:
    """The grades of one text; all are None where it cannot be graded."""

    fk_grade: float | None
    classifier_grade: float | None
    grade: float | None
    p_grade3: float | None
    part: Part


UNGRADED = Grading(None, None, None, None, "all_ages")  # the classifier knows no word of it


def fit_combination(
    fk_grades: Sequence[float],
    classifier_grades: Sequence[float],
    labels: Sequence[float],
    strata: Sequence[Hashable],
    settings: GradingSettings,
) -> Combination:
    """Returns the plane from the two grades of labelled texts to their labels.

    Texts of one stratum together weigh what those of any other do. The least-squares plane is stretched about its mean
    until its grades spread as the labels do (linear equating): regression alone pulls every text towards the middle
    grades, and would call few of the easiest easy.
    """
    sizes = Counter(strata)
    weight = np.array([1 / sizes[stratum] for stratum in strata])
    label = np.asarray(labels, dtype=float)
    features = np.column_stack([np.ones(len(label)), np.minimum(fk_grades, settings.max_fk_grade), classifier_grades])
    root = np.sqrt(weight)
    plane, *_ = np.linalg.lstsq(features * root[:, None], label * root, rcond=None)
    mean = np.average(label, weights=weight)
    stretch = _spread(label, weight) / max(_spread(features @ plane, weight), 1e-9)
    plane = stretch * plane + np.array([(1 - stretch) * mean, 0, 0])
    error = float(np.sqrt(np.average((features @ plane - label) ** 2, weights=weight)))
    intercept, fk_weight, classifier_weight = (round(float(w), 6) for w in plane)
    return Combination(intercept, fk_weight, classifier_weight, error=round(max(error, 0.1), 6))


def _spread(values: np.ndarray, weight: np.ndarray) -> float:
    mean = np.average(values, weights=weight)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))


def combined_grade(fk_grade: float, classifier_grade: float, fit: Combination, settings: GradingSettings) -> float:
    """Returns the grade of a text from its two grades."""
    fk = min(fk_grade, settings.max_fk_grade)
    grade = fit.intercept + fit.fk_weight * fk + fit.classifier_weight * classifier_grade
    return min(max(grade, LOWEST_GRADE), HIGHEST_GRADE)


def probability_grade3(grade: float, fit: Combination, settings: GradingSettings) -> float:
    """Returns the probability that a text of this grade suits grade_limit and below."""
    return 0.5 * (1 + erf((settings.grade_limit - grade) / (fit.error * sqrt(2))))


def grade_texts(
    texts: Sequence[str],
    works: Sequence[str],
    classifier: GradeClassifier,
    fit: Combination,
    settings: GradingSettings,
) -> list[Grading]:
    """Returns the grading of each text; a labelled work is graded by a model that never read it."""
    gradings = []
    for text, classifier_grade in zip(texts, classifier.predict(texts, works), strict=True):
        fk_grade = flesch_kincaid_grade(text)
        if classifier_grade is None:
            gradings.append(UNGRADED)
            continue
        grade = combined_grade(fk_grade, classifier_grade, fit, settings)
        p_grade3 = probability_grade3(grade, fit, settings)
        part: Part = "grade3" if p_grade3 >= settings.min_probability else "all_ages"
        gradings.append(Grading(fk_grade, classifier_grade, grade, p_grade3, part))
    return gradings


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns Spearman's rank correlation; equal values share their mean rank."""
    return float(np.corrcoef(_ranks(np.asarray(first)), _ranks(np.asarray(second)))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 0, equal values sharing the mean of theirs. values: (N,). Returns (N,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]
