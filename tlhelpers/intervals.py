"""Numbers as the book shows them: a mean over seeds, its t interval inside what can be, both in words.

The standard library alone, so that notebooks, figures, tables and the website all take them from here.
"""

import math
from collections.abc import Sequence

__all__ = ["RANGES", "format_value", "mean_interval", "t_inside", "t_interval", "t_quantile"]

# What a value of each unit can be. A number without a unit brings its own ends.
RANGES = {"%": (0.0, 1.0), "pp": (-1.0, 1.0), "s": (0.0, math.inf), "nats": (0.0, math.inf)}


def format_value(value: float, unit: str) -> str:
    """Formats a number for the text: ``%`` takes fractions, ``pp`` (points) differences of fractions.

    Example:
        >>> from tlhelpers import intervals
        >>> intervals.format_value(0.123, "%"), intervals.format_value(0.02, "pp")
        ('12.3 %', '2.0 points')
    """
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "pp":
        return f"{100 * value:.1f} points"
    if unit == "s":
        return f"{value:.0f} s" if abs(value) >= 10 else f"{value:.1f} s"
    return f"{value:.3g}{' ' + unit if unit else ''}"


def t_inside(t: float, df: int) -> float:
    """Returns the probability that Student's t stays between ``-|t|`` and ``|t|``.

    For whole degrees of freedom it is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Example:
        >>> from tlhelpers import intervals
        >>> round(intervals.t_inside(4.3027, 2), 4)
        0.95
    """
    angle, odd = math.atan(abs(t) / math.sqrt(df)), df % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, df + 1, 2):
        total += term
        term *= (k - 1) / k * math.cos(angle) ** 2
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total


def t_quantile(df: int, level: float = 0.95) -> float:
    """Returns what ``|t|`` stays below with the probability ``level``.

    Example:
        >>> from tlhelpers import intervals
        >>> round(intervals.t_quantile(2), 3)
        4.303
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        inside = t_inside(math.tan(middle) * math.sqrt(df), df) < level
        low, high = (middle, high) if inside else (low, middle)
    return math.tan(low) * math.sqrt(df)


def t_interval(
    values: Sequence[float], level: float = 0.95, between: tuple[float, float] | None = None
) -> tuple[float, float, float]:
    """Returns mean, lower and upper end of the t interval of a mean; a single value is all three.

    Args:
        values: One number a seed, ``(k,)``.
        level: Confidence level, 0..1.
        between: The smallest and the largest value that there can be. With it the interval is computed on the
            logit scale between these ends (for correlations that is Fisher's z), on the logarithmic one where
            the upper end is infinite, by the delta method. So it stays inside; where the spread is small, it
            is the plain one.

    Example:
        >>> from tlhelpers import intervals
        >>> [round(v, 2) for v in intervals.t_interval([0.1, 0.1, 0.4])]
        [0.2, -0.23, 0.63]
        >>> [round(v, 2) for v in intervals.t_interval([0.1, 0.1, 0.4], between=(0, 1))]
        [0.2, 0.02, 0.79]
    """
    n, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / max(1, n - 1)
    if n == 1 or not variance:
        return mean, mean, mean
    half = t_quantile(n - 1, level) * math.sqrt(variance / n)
    if between is None or between[0] == -math.inf:
        return mean, mean - half, mean + half
    lowest, highest = between
    if highest == math.inf:
        factor = math.exp(min(half / (mean - lowest), 700))
        return mean, lowest + (mean - lowest) / factor, lowest + (mean - lowest) * factor
    share = (mean - lowest) / (highest - lowest)
    if not 0 < share < 1:  # all but one at an end, and that one by less than a float can say
        return mean, mean, mean
    logit, half = math.log(share / (1 - share)), half / (highest - lowest) / (share * (1 - share))
    low, high = (
        lowest + (highest - lowest) * (1 + math.tanh(x / 2)) / 2 for x in (logit - half, logit + half)
    )
    return mean, low, high


def mean_interval(
    values: Sequence[float], unit: str, between: tuple[float, float] | None = None
) -> tuple[float, float, float]:
    """Returns mean and 95 % interval as book, notebooks and figures show them.

    Differences of shares (``"pp"``) stay on their own scale, where zero is no end, and are cut at the ends of
    what can be; all else is a `t_interval` between these ends.

    Args:
        values: One number a seed, ``(k,)``; a single value is all three.
        unit: A unit of `RANGES`, or any other.
        between: What the quantity can be, where its unit does not say it; ``None``: anything.

    Example:
        >>> from tlhelpers import intervals
        >>> intervals.mean_interval([-0.9, 0.9], "pp")
        (0.0, -1.0, 1.0)
    """
    between = RANGES.get(unit) if between is None else between
    if unit != "pp" or between is None:
        return t_interval(values, between=between)
    mean, low, high = t_interval(values)
    return mean, max(low, between[0]), min(high, between[1])
