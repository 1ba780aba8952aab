"""THE definition of third grade: how Flesch-Kincaid and the classifier become `grade`, `p_grade3` and `part`.

A text is read in windows; the classifier's grade is the mean over them. grade = intercept + fk_weight * Flesch-Kincaid
+ classifier_weight * classifier: a plane fitted on out-of-fold grades of labelled texts, and spread as widely as their
labels. Where a text has no sentences to measure, the classifier's grade stands in for Flesch-Kincaid. p_grade3 =
P(grade of the text <= grade_limit), by isotonic regression on the same texts; part = grade3 from min_probability on,
but for a text that suitability.py keeps from children: it has the grades of any other, and is for all ages.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.grade_classifier import GradeClassifier, read_record
from curation.normalise import genre_of, is_punctuated, sentence_text, windows
from curation.readability import flesch_kincaid_grade
from curation.settings import GradingSettings
from curation.suitability import why_unsuitable
from shared.schema import Part

LOWEST_GRADE, HIGHEST_GRADE = -1.0, 14.0  # pre-kindergarten to college
MIN_PROBABILITY, MAX_PROBABILITY = 0.002, 0.998  # a few thousand labels cannot say more


@dataclass(frozen=True)
class Fit:
    """What was fitted on labelled texts: a plane over the two grades, and the probability at each of some grades."""

    intercept: float
    fk_weight: float
    classifier_weight: float
    error: float  # standard deviation of what the plane misses, in grades
    calibration_grades: tuple[float, ...]  # ascending
    calibration_probabilities: tuple[float, ...]  # P(label <= grade_limit) at them, descending

    def grade(self, fk_grade: float, classifier_grade: float) -> float:
        """Returns the grade of a text from its two grades."""
        grade = self.intercept + self.fk_weight * fk_grade + self.classifier_weight * classifier_grade
        return min(max(grade, LOWEST_GRADE), HIGHEST_GRADE)

    def p_grade3(self, grade: float) -> float:
        """Returns the probability that a text of this grade suits grade_limit and below."""
        return float(np.interp(grade, self.calibration_grades, self.calibration_probabilities))


@dataclass(frozen=True)
class Measured:
    """What is measured of a text before anything is fitted."""

    fk_grade: float  # textstat's figure for the text as it stands
    sentence_grade: float | None  # Flesch-Kincaid, clipped, where sentences can be told apart
    window_grades: tuple[float, ...]  # the classifier's; () where it knows no word

    @property
    def classifier_grade(self) -> float:
        """Returns the mean over windows."""
        return sum(self.window_grades) / len(self.window_grades)

    @property
    def trusted_fk_grade(self) -> float:
        """Returns Flesch-Kincaid, or the classifier's grade where it says nothing."""
        return self.classifier_grade if self.sentence_grade is None else self.sentence_grade


@dataclass(frozen=True)
class Grading:
    """The grades of one text; all are None where it cannot be graded."""

    fk_grade: float | None
    classifier_grade: float | None
    grade: float | None
    p_grade3: float | None
    part: Part
    window_grades: tuple[float, ...] = ()
    unsuitable: str = ""  # what alone keeps it from grade3: a category of suitability.py


UNGRADED = Grading(None, None, None, None, "all_ages")  # the classifier knows no word of it


class Scorer:
    """A trained classifier with its fit: grades texts in batches."""

    def __init__(self, folder: Path, settings: GradingSettings) -> None:
        record = read_record(folder)
        self.classifier = GradeClassifier(folder, record)
        self.fit = Fit(**record["fit"])
        self.settings = settings

    def grade_texts(self, texts: Sequence[str], works: Sequence[str]) -> list[Grading]:
        """Returns the grading of each text; a work the classifier was trained on is graded by a model without it."""
        measured = measure_texts(texts, works, self.classifier, self.settings)
        return [self._grading(text, m) for text, m in zip(texts, measured, strict=True)]

    def _grading(self, text: str, measured: Measured) -> Grading:
        if not measured.window_grades:
            return UNGRADED
        grade = self.fit.grade(measured.trusted_fk_grade, measured.classifier_grade)
        p_grade3 = self.fit.p_grade3(grade)
        is_easy = p_grade3 >= self.settings.min_probability
        unsuitable = why_unsuitable(text) if is_easy else ""
        part: Part = "grade3" if is_easy and not unsuitable else "all_ages"
        grades = (measured.fk_grade, measured.classifier_grade, grade, p_grade3)
        return Grading(*grades, part, measured.window_grades, unsuitable)


def measure_texts(
    texts: Sequence[str], works: Sequence[str], classifier: GradeClassifier, settings: GradingSettings
) -> list[Measured]:
    """Returns Flesch-Kincaid and the classifier's grade of each text, window by window."""
    by_text = [windows(text, settings.window_words, settings.max_windows) for text in texts]
    of_window = [work for work, mine in zip(works, by_text, strict=True) for _ in mine]
    predicted = iter(classifier.predict([window for mine in by_text for window in mine], of_window))
    measured = []
    for text, mine in zip(texts, by_text, strict=True):
        grades = tuple(grade for grade in (next(predicted) for _ in mine) if grade is not None)
        measured.append(Measured(*_fk_grades(text, settings), grades))
    return measured


def _fk_grades(text: str, settings: GradingSettings) -> tuple[float, float | None]:
    """Returns textstat's grade, and the one to trust: of the text with its lines punctuated, clipped, or None.

    The sentences of talk and the lines of verse are short whatever they say.
    """
    fk_grade = flesch_kincaid_grade(text)
    punctuated = sentence_text(text)
    if genre_of(text) is not None or not is_punctuated(punctuated):
        return fk_grade, None
    trusted = fk_grade if punctuated is text else flesch_kincaid_grade(punctuated)
    return fk_grade, min(max(trusted, settings.min_fk_grade), settings.max_fk_grade)


def fit_scorer(
    measured: Sequence[Measured], labels: Sequence[float], sets: Sequence[str], settings: GradingSettings
) -> Fit:
    """Returns the plane from the two grades of labelled texts to their labels, and its calibration.

    A label set weighs as the root of its size: neither the largest set alone nor the smallest should decide. The
    least-squares plane is stretched about its mean until its grades spread as the labels do (linear equating):
    regression alone pulls every text towards the middle grades, and would call few of the easiest easy.
    """
    sizes = Counter(sets)
    weight, label = np.array([sizes[name] ** -0.5 for name in sets]), np.asarray(labels, dtype=float)
    fk = np.array([m.trusted_fk_grade for m in measured])
    features = np.column_stack([np.ones(len(label)), fk, [m.classifier_grade for m in measured]])
    root = np.sqrt(weight)
    plane, *_ = np.linalg.lstsq(features * root[:, None], label * root, rcond=None)
    mean = np.average(label, weights=weight)
    stretch = _spread(label, weight) / max(_spread(features @ plane, weight), 1e-9)
    plane = stretch * plane + np.array([(1 - stretch) * mean, 0, 0])
    grades = np.clip(features @ plane, LOWEST_GRADE, HIGHEST_GRADE)
    error = float(np.sqrt(np.average((grades - label) ** 2, weights=weight)))
    knots, probabilities = falling_isotonic(grades, label <= settings.grade_limit, weight)
    intercept, fk_weight, classifier_weight = (round(float(w), 6) for w in plane)
    return Fit(
        intercept,
        fk_weight,
        classifier_weight,
        round(error, 6),
        tuple(round(float(g), 6) for g in knots),
        tuple(round(float(p), 6) for p in np.clip(probabilities, MIN_PROBABILITY, MAX_PROBABILITY)),
    )


def _spread(values: np.ndarray, weight: np.ndarray) -> float:
    mean = np.average(values, weights=weight)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))


def falling_isotonic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[list[float], list[float]]:
    """Returns the never-rising step function nearest to y over x, as the mean x and the level of each step.

    Pool adjacent violators (Ayer et al. 1955). x, y, weight: (N,); equal x are one point.
    """
    points, point_of = np.unique(x, return_inverse=True)
    weights, sums = np.bincount(point_of, weight), np.bincount(point_of, weight * y)
    steps: list[tuple[float, float, float]] = []  # weight, weighted sums of x and y
    for step in zip(weights.tolist(), (weights * points).tolist(), sums.tolist(), strict=True):
        while steps and steps[-1][2] * step[0] <= step[2] * steps[-1][0]:
            w, x_sum, y_sum = steps.pop()
            step = (w + step[0], x_sum + step[1], y_sum + step[2])
        steps.append(step)
    return [x_sum / w for w, x_sum, _ in steps], [y_sum / w for w, _, y_sum in steps]
