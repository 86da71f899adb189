"""How good, and how sure: accuracy and intervals."""

import numpy as np
from scipy import stats


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the share of labels ``(n,)`` that the predicted labels ``(n,)`` hit, 0..1.

    Raises:
        ValueError: If the shapes differ or there is nothing to count.
    """
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.shape != predicted.shape or y.ndim != 1 or len(y) == 0:
        raise ValueError(
            f"accuracy takes two arrays of labels of one shape (n,), n > 0; "
            f"these are {y.shape} and {predicted.shape}. Turn logits into labels with argmax(axis=1) first."
        )
    return float(np.mean(y == predicted))


def t_interval(values: list[float] | np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student t interval of independent measurements.

    Args:
        values: One number a seed, ``(k,)`` with k >= 2.
        level: Confidence level, 0..1.

    Returns:
        Mean, lower end and upper end, in the unit of the values.

    Raises:
        ValueError: If there are fewer than two values or one is not finite.
    """
    v = np.asarray(values, float)
    if v.ndim != 1 or len(v) < 2 or not np.isfinite(v).all():
        raise ValueError(f"An interval needs at least two finite numbers, one a seed; these are {values!r}.")
    half = stats.t.ppf(0.5 + level / 2, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))
    return float(v.mean()), float(v.mean() - half), float(v.mean() + half)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for a share of counted hits, such as the accuracy of one model on one test set (Wilson, 1927).

    Args:
        hits: Number of hits, 0..n.
        n: Number of trials, at least 1.
        level: Confidence level, 0..1.

    Returns:
        Lower and upper end, 0..1.

    Raises:
        ValueError: If the counts are impossible.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(
            f"hits must lie between 0 and n, and n must be at least 1; these are {hits} and {n}."
        )
    interval = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
