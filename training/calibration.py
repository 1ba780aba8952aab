"""How far a confidence can be trusted: numbers for one confidence a token and what became of the token.

Arrays are float64 or bool, one value a token. Where a figure has no meaning, Unmeasurable says why.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ECE_BINS = 15  # equal in width, as in Guo et al. 2017


class Unmeasurable(ValueError):
    """A figure that these tokens do not decide; the message says why."""


def mean(values: NDArray[Any]) -> float:
    """Returns the mean."""
    _check(values)
    return float(values.mean(dtype=np.float64))


def std(values: NDArray[Any]) -> float:
    """Returns the standard deviation of these values, not an estimate of a larger set's."""
    _check(values)
    return float(values.std(dtype=np.float64))


def r(predicted: Floats, target: Floats) -> float:
    """Returns Pearson's correlation."""
    if _is_constant(predicted) or _is_constant(target):
        raise Unmeasurable("a value that never changes has no correlation")
    return float(np.corrcoef(predicted, target)[0, 1])


def r2(predicted: Floats, target: Floats) -> float:
    """Returns the share of the target's variance that the prediction explains as it is, without a fit; at most 1."""
    if _is_constant(target):
        raise Unmeasurable("the target never changes: there is nothing to explain")
    return 1 - mean((target - predicted) ** 2) / std(target) ** 2


def auroc(confidence: Floats, is_right: Bools) -> float:
    """Returns how likely a right token has more confidence than a wrong one, a tie counting half."""
    _check(confidence)
    _, group = np.unique(confidence, return_inverse=True)  # tied tokens are one group, groups rise
    right, wrong = np.bincount(group, is_right), np.bincount(group, ~is_right)
    if not is_right.any() or is_right.all():
        raise Unmeasurable(f"every token is {'right' if is_right.any() else 'wrong'}: there is nothing to tell apart")
    wrong_below = np.cumsum(wrong) - wrong / 2
    return float(right @ wrong_below / (right.sum() * wrong.sum()))


def ece(confidence: Floats, is_right: Bools) -> float:
    """Returns the expected calibration error of probabilities: |mean confidence - accuracy|, weighted over bins.

    A bin holds its upper edge; confidence outside [0, 1] counts as 0 or 1.
    """
    _check(confidence)
    probability = confidence.clip(0, 1)
    bins = np.ceil(probability * ECE_BINS).astype(np.int64).clip(1) - 1
    gaps = np.bincount(bins, probability - is_right)
    return float(np.abs(gaps).sum() / len(probability))


def brier(confidence: Floats, is_right: Bools) -> float:
    """Returns the mean squared difference of probability and outcome (Brier 1950), clipped as for `ece`."""
    _check(confidence)
    return mean((confidence.clip(0, 1) - is_right) ** 2)


def _is_constant(values: Floats) -> bool:
    _check(values)
    return bool(values.min() == values.max())


def _check(values: NDArray[Any]) -> None:
    if not len(values):
        raise Unmeasurable("no tokens")
    if not np.isfinite(values).all():
        raise Unmeasurable("some values are not finite")
