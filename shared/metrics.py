"""Figures that say how well grades, probabilities and confidences agree with what is true; numpy alone.

Sequences run in parallel, one value a text or token. Where they do not decide a figure, Unmeasurable says why.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_BINS = 10  # of a reliability diagram, equal in width (Naeini et al. 2015)


class Unmeasurable(ValueError):
    """A figure that these values do not decide; the message says why."""


class ReliabilityBin(NamedTuple):
    """The values whose probability lies above `low` and at most at `high`."""

    low: float
    high: float
    n: int
    mean_probability: float
    share_true: float


class DecisionFigures(NamedTuple):
    """Shares in [0, 1]; None where nothing was decided, or nothing is positive."""

    precision: float | None
    recall: float | None
    f1: float | None


def mean(values: ArrayLike) -> float:
    """Returns the mean."""
    return float(_finite(values).mean())


def std(values: ArrayLike) -> float:
    """Returns the standard deviation of these values, not an estimate of a larger set's."""
    return float(_finite(values).std())


def r(predicted: ArrayLike, target: ArrayLike) -> float:
    """Returns Pearson's correlation."""
    first, second = _finite(predicted), _finite(target)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise Unmeasurable("a value that never changes has no correlation")
    return float(np.corrcoef(first, second)[0, 1])


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Returns Spearman's rank correlation, -1 to 1; equal values share their mean rank (Spearman 1904)."""
    return r(_ranks(_finite(first)), _ranks(_finite(second)))


def r2(predicted: ArrayLike, target: ArrayLike) -> float:
    """Returns the share of the target's variance that the prediction explains as it is, without a fit; at most 1."""
    variance = std(target) ** 2
    if variance == 0:
        raise Unmeasurable("the target never changes: there is nothing to explain")
    return 1 - mean((_finite(target) - _finite(predicted)) ** 2) / variance


def rmse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Returns the root of the mean squared difference, in the unit of the two."""
    return float(np.sqrt(mean((_finite(predicted) - _finite(target)) ** 2)))


def brier(probabilities: ArrayLike, is_true: ArrayLike) -> float:
    """Returns the mean squared difference of probability and outcome (Brier 1950); probabilities are clipped to 0-1."""
    return mean((_finite(probabilities).clip(0, 1) - np.asarray(is_true, dtype=bool)) ** 2)


def auroc(scores: ArrayLike, is_positive: ArrayLike) -> float:
    """Returns how likely a positive scores above a negative, 0 to 1, a tie counting half (Hanley and McNeil 1982)."""
    score, positive = _finite(scores), np.asarray(is_positive, dtype=bool)
    _, group = np.unique(score, return_inverse=True)  # equal scores are one group, groups rise
    positives, negatives = np.bincount(group, positive), np.bincount(group, ~positive)
    if not positive.any() or positive.all():
        raise Unmeasurable(f"every one is {'positive' if positive.any() else 'negative'}: nothing to tell apart")
    negatives_below = np.cumsum(negatives) - negatives / 2
    return float(positives @ negatives_below / (positives.sum() * negatives.sum()))


def precision_recall_f1(decided: ArrayLike, is_positive: ArrayLike) -> DecisionFigures:
    """Returns the share of the decided that is positive, of the positive that is decided, and their harmonic mean."""
    chosen, positive = np.asarray(decided, dtype=bool), np.asarray(is_positive, dtype=bool)
    n_right, n_chosen, n_positive = int((chosen & positive).sum()), int(chosen.sum()), int(positive.sum())
    return DecisionFigures(
        precision=n_right / n_chosen if n_chosen else None,
        recall=n_right / n_positive if n_positive else None,
        f1=2 * n_right / (n_chosen + n_positive) if n_positive else None,
    )


def precision_at_recall(scores: ArrayLike, is_positive: ArrayLike, recall: float) -> float:
    """Returns the precision where recall first reaches `recall` as the threshold falls; equal scores fall together."""
    score, positive = _finite(scores), np.asarray(is_positive, dtype=bool)
    if not positive.any():
        raise Unmeasurable("every one is negative: there is no recall")
    _, group = np.unique(-score, return_inverse=True)  # equal scores are one group, groups fall
    n_right = np.cumsum(np.bincount(group, positive))
    n_decided = np.cumsum(np.bincount(group))
    first = int(np.argmax(n_right / n_right[-1] >= recall))
    return float(n_right[first] / n_decided[first])


def ece(probabilities: ArrayLike, is_true: ArrayLike, n_bins: int = N_BINS) -> float:
    """Returns the expected calibration error, 0 to 1 (Naeini et al. 2015).

    That is |mean probability - share true| of a value's bin, averaged over values.
    """
    bins = reliability(probabilities, is_true, n_bins)
    return sum(b.n * abs(b.mean_probability - b.share_true) for b in bins) / sum(b.n for b in bins)


def reliability(probabilities: ArrayLike, is_true: ArrayLike, n_bins: int = N_BINS) -> list[ReliabilityBin]:
    """Returns the bins of equal width that hold values, lowest first; a bin holds its upper edge, the first also 0.

    What lies outside 0 to 1 counts as 0 or 1.
    """
    probability, true = _finite(probabilities).clip(0, 1), np.asarray(is_true, dtype=bool)
    number = np.ceil(probability * n_bins).astype(np.int64).clip(1) - 1
    sizes, sums, trues = (np.bincount(number, w, n_bins) for w in (np.ones(len(true)), probability, true))
    return [
        ReliabilityBin(
            i / n_bins, (i + 1) / n_bins, int(sizes[i]), float(sums[i] / sizes[i]), float(trues[i] / sizes[i])
        )
        for i in np.flatnonzero(sizes).tolist()
    ]


def _ranks(values: Floats) -> Floats:
    """Returns ranks from 0, equal values sharing the mean of theirs. values: (N,). Returns (N,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_ranks: Floats = (ends - (counts + 1) / 2)[inverse]
    return mean_ranks


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        raise Unmeasurable("there are none")
    if not np.isfinite(array).all():
        raise Unmeasurable("some values are not finite")
    return array
