"""Figures that say how well grades and probabilities agree with labels; numpy alone.

Sequences run in parallel, one value a text. Where they do not decide a figure, Unmeasurable says why.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_BINS = 10  # equal in width, as in Naeini et al. 2015


class Unmeasurable(ValueError):
    """A figure that these texts do not decide; the message says why."""


class ReliabilityBin(NamedTuple):
    """The texts whose probability lies above `low` and at most at `high`."""

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


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Returns Spearman's rank correlation, -1 to 1; equal values share their mean rank (Spearman 1904)."""
    ranks, other_ranks = _ranks(_finite(first)), _ranks(_finite(second))
    if np.ptp(ranks) == 0 or np.ptp(other_ranks) == 0:
        raise Unmeasurable("a value that never changes has no rank correlation")
    return float(np.corrcoef(ranks, other_ranks)[0, 1])


def auroc(scores: ArrayLike, is_positive: ArrayLike) -> float:
    """Returns how likely a positive scores above a negative, 0 to 1, a tie counting half (Hanley and McNeil 1982)."""
    score, positive = _finite(scores), np.asarray(is_positive, dtype=bool)
    _, group = np.unique(score, return_inverse=True)  # equal scores are one group, groups rise
    positives, negatives = np.bincount(group, positive), np.bincount(group, ~positive)
    if not positive.any() or positive.all():
        raise Unmeasurable(f"every text is {'positive' if positive.any() else 'negative'}: nothing to tell apart")
    negatives_below = np.cumsum(negatives) - negatives / 2
    return float(positives @ negatives_below / (positives.sum() * negatives.sum()))


def rmse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Returns the root of the mean squared difference, in the unit of the two."""
    return float(np.sqrt(np.mean((_finite(predicted) - _finite(target)) ** 2)))


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
        raise Unmeasurable("every text is negative: there is no recall")
    _, group = np.unique(-score, return_inverse=True)  # equal scores are one group, groups fall
    n_right = np.cumsum(np.bincount(group, positive))
    n_decided = np.cumsum(np.bincount(group))
    first = int(np.argmax(n_right / n_right[-1] >= recall))
    return float(n_right[first] / n_decided[first])


def expected_calibration_error(probabilities: ArrayLike, is_true: ArrayLike) -> float:
    """Returns |mean probability - share true| averaged over texts by their bin, 0 to 1 (Naeini et al. 2015)."""
    bins = reliability(probabilities, is_true)
    return sum(b.n * abs(b.mean_probability - b.share_true) for b in bins) / sum(b.n for b in bins)


def reliability(probabilities: ArrayLike, is_true: ArrayLike) -> list[ReliabilityBin]:
    """Returns the bins of equal width that hold texts, lowest first; a bin holds its upper edge, the first also 0."""
    probability, true = _finite(probabilities), np.asarray(is_true, dtype=bool)
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(f"probabilities from {probability.min()} to {probability.max()}: not within 0 to 1")
    number = np.ceil(probability * N_BINS).astype(np.int64).clip(1) - 1
    sizes, sums, trues = (np.bincount(number, w, N_BINS) for w in (np.ones(len(true)), probability, true))
    return [
        ReliabilityBin(
            i / N_BINS, (i + 1) / N_BINS, int(sizes[i]), float(sums[i] / sizes[i]), float(trues[i] / sizes[i])
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
        raise Unmeasurable("no texts")
    if not np.isfinite(array).all():
        raise ValueError("some values are not finite")
    return array
