"""Whether arguments are what they should be: arrays, labels, probabilities, numbers.

Each function returns what it checked in the form that formulas need, or says what is wrong, what was expected
and what to do. No array is taken that would make a formula answer NaN, or a number that means something else.
"""

from numbers import Integral, Real
from typing import Any

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
# A sound network's outputs are far below; the squares of what is above are lost in float32, or overflow.
LARGEST = 1e15


def array(values: Any, name: str, shape: str = "") -> np.ndarray:
    """Returns real numbers as an array that is not empty, at least float32 where they are floating.

    Half precision of either kind, integers and bools are fine; masked arrays with gaps are not, as the mask
    would be lost. A tensor of any library is taken if it lies in the memory of the CPU.

    Args:
        values: Array, list, or tensor.
        name: How the message begins, such as ``"The features"``.
        shape: The expected shape in words, such as ``"(n, d)"``; empty for any.

    Raises:
        ValueError: If these are no real numbers, the number of dimensions differs, or there is a gap.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import checks
        >>> checks.array(np.ones((2, 3), np.float16), "The features", "(n, d)").dtype
        dtype('float32')
    """
    found = _read(values, name)
    if found.dtype.kind not in "biuf":
        what = "objects, such as None or rows of different lengths" if found.dtype == object else found.dtype
        raise ValueError(f"{name} hold {what}, expected real numbers {shape}. Convert them with astype.")
    n_axes = shape.count(",") + (not shape.endswith(",)"))
    if shape and (found.ndim != n_axes or found.size == 0):
        raise ValueError(
            f"{name} must be {shape}, n > 0 and no side 0; these are {found.shape}. Reshape or pool first."
        )
    if found.dtype.kind == "f":
        return found.astype(np.float32 if found.dtype.itemsize <= 4 else np.float64, copy=False)
    return found


def floats(values: Any, name: str, shape: str = "(n, d)") -> np.ndarray:
    """Returns finite numbers of a sound size as float32, or as float64 where float32 would lose digits.

    Args:
        values: As `array` takes them.
        name: How the message begins.
        shape: The expected shape in words.

    Raises:
        ValueError: As `array`; and if a number is NaN, infinite, or beyond `LARGEST`.

    Example:
        >>> from tlhelpers import checks
        >>> checks.floats([[1, 2], [3, 4]], "The features").dtype
        dtype('float64')
    """
    found = array(values, name, shape)
    found = found.astype(np.promote_types(found.dtype, np.float32), copy=False)
    ends = np.array([found.min(), found.max()], float)  # NaN goes through both, and no copy is made
    if not np.isfinite(ends).all():
        raise ValueError(f"{name} hold NaN or infinity. Look at the images and the backbone's weights.")
    if np.abs(ends).max() > LARGEST:
        raise ValueError(
            f"{name} go from {ends[0]:.3g} to {ends[1]:.3g}, expected at most {LARGEST:g} in size: "
            "squares of larger ones overflow. Look at the backbone's weights, or divide by a constant."
        )
    return found


def labels(values: Any, name: str = "The labels", n: int | None = None, k: int | None = None) -> np.ndarray:
    """Returns labels, whole numbers from 0, as int64 ``(n,)``.

    Args:
        values: Integers, or bools of two classes. Floats are refused, since scores look the same.
        name: How the message begins.
        n: How many there must be.
        k: Number of classes, where it is known.

    Raises:
        ValueError: If they are no integers, or the shape or a value does not fit.

    Example:
        >>> from tlhelpers import checks
        >>> checks.labels([0, 2, 1], n=3, k=3)
        array([0, 2, 1])
    """
    found = _read(values, name)
    if found.ndim != 1 or len(found) == 0 or n not in (None, len(found)):
        there = "n > 0" if n is None else f"one for each of {n} images"
        raise ValueError(
            f"{name} must be (n,), {there}; these are {found.shape}. "
            "Turn one-hot labels or logits into labels with argmax(axis=1) first, a column with ravel()."
        )
    if found.dtype.kind not in ("iub" if k in (None, 2) else "iu"):
        raise ValueError(
            f"{name} must be whole numbers from 0 of an integer type; these are {found.dtype}. Convert class "
            "numbers with astype(int), and names with np.unique(y, return_inverse=True)[1]."
        )
    found = found.astype(np.int64)
    if found.min() < 0 or (k is not None and found.max() >= k):
        raise ValueError(
            f"{name} must be whole numbers from 0{'' if k is None else f' to {k - 1}'}; "
            f"these go from {found.min()} to {found.max()}."
        )
    return found


def features(f: Any, y: Any, of: str, d: int | None = None, k: int | None = None) -> Pair:
    """Returns features ``(n, d)`` as `floats` does, and their labels int64 ``(n,)``.

    Args:
        f: Features.
        y: Labels.
        of: What they belong to, for messages, such as ``"training"``.
        d: Number of features in a row, where it is known.
        k: Number of classes, where it is known.

    Raises:
        ValueError: As these; if there is another number of features.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import checks
        >>> f, y = checks.features(np.ones((2, 3)), [0, 1], "training")
        >>> f.shape, y.shape
        ((2, 3), (2,))
    """
    f = floats(f, f"The {of} features")
    if d not in (None, f.shape[1]):
        raise ValueError(
            f"The {of} features must be (n, {d}); these are {f.shape}. "
            "Extract all with the same backbone and the same taps."
        )
    return f, labels(y, f"The {of} labels", n=len(f), k=k)


def pair(y: Any, predicted: Any, k: int | None = None) -> Pair:
    """Returns labels and predicted labels, int64 ``(n,)`` each, as `labels` checks them.

    Example:
        >>> from tlhelpers import checks
        >>> checks.pair([0, 1], [1, 1])
        (array([0, 1]), array([1, 1]))
    """
    if bool in (np.asarray(y).dtype, np.asarray(predicted).dtype):
        k = k or 2  # a mask of hits is no label of one of several classes
    y = labels(y, k=k)
    return y, labels(predicted, "The predicted labels", n=len(y), k=k)


def classes(y: np.ndarray, name: str = "The labels") -> int:
    """Returns the number of classes of checked labels, of which each must be present.

    Raises:
        ValueError: If there is but one class, or a number is left out.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import checks
        >>> checks.classes(np.array([0, 1, 1]))
        2
    """
    found = np.unique(y)
    if len(found) < 2 or found[-1] != len(found) - 1:
        raise ValueError(
            f"{name} must be 0..n_classes-1, each present, at least two; these are {found}. "
            "Number the classes that occur: np.unique(y, return_inverse=True)[1]."
        )
    return len(found)


def scores(y: Any, values: Any, what: str) -> Pair:
    """Returns labels int64 ``(n,)``, and ``"probabilities"`` or ``"logits"`` float64 ``(n, k)`` of them.

    Raises:
        ValueError: As these; if labels do not fit the columns, or one is given for the other.

    Example:
        >>> from tlhelpers import checks
        >>> y, proba = checks.scores([0, 1], [[0.9, 0.1], [0.2, 0.8]], "probabilities")
        >>> y.shape, proba.shape
        ((2,), (2, 2))
    """
    found = probabilities(values) if what == "probabilities" else logits(values)
    return labels(y, n=len(found), k=found.shape[1]), found


def probabilities(values: Any, name: str = "The probabilities") -> np.ndarray:
    """Returns probabilities ``(n, k)`` as float64: 0 or more, and each row sums to 1.

    Raises:
        ValueError: As `floats`; if these are logits or percentages.

    Example:
        >>> from tlhelpers import checks
        >>> checks.probabilities([[0.25, 0.75]]).dtype
        dtype('float64')
    """
    found = _columns(values, name)
    if found.min() < -1e-6 or not _sums_to(found, 1):
        worst = max(found.sum(axis=1), key=lambda total: abs(total - 1))
        advice = "Divide percentages by 100" if _sums_to(found, 100) else "Apply softmax to logits"
        raise ValueError(
            f"Each row of probabilities is 0 or more and sums to 1; {name.lower()} go from {found.min():.3g} "
            f"to {found.max():.3g}, and a row sums to {worst:.3g}. {advice} first."
        )
    return np.maximum(found, 0)


def logits(values: Any, name: str = "The logits") -> np.ndarray:
    """Returns logits ``(n, k)`` as float64; rows that look like probabilities are refused.

    Raises:
        ValueError: As `floats`; if each row sums to 1 or to 100 and nothing is negative.

    Example:
        >>> from tlhelpers import checks
        >>> checks.logits([[2, -1]])
        array([[ 2., -1.]])
    """
    found = _columns(values, name)
    if found.min() >= 0 and (_sums_to(found, 1) or _sums_to(found, 100)):
        raise ValueError(
            f"{name} look like probabilities: each row sums to {found.sum(axis=1)[0]:.3g}. Take their "
            "logarithms with calibration.log_probabilities. If they are logits, add 1: it changes nothing."
        )
    return found


def whole(value: Any, name: str, low: int = 1) -> int:
    """Returns a whole number as int.

    Raises:
        TypeError: If it is no integer (``True`` and ``100.0`` are none either).
        ValueError: If it is below ``low``.

    Example:
        >>> from tlhelpers import checks
        >>> checks.whole(3, "epochs")
        3
    """
    expected = f"{name} must be a whole number of at least {low}, not {value!r}."
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(expected)
    if value < low:
        raise ValueError(expected)
    return int(value)


def number(
    value: Any, name: str, low: float = 0, high: float = np.inf, *, above: bool = False, below: bool = False
) -> float:
    """Returns a finite number of a range as float.

    Args:
        value: A number.
        name: Of the argument.
        low: The least; with ``above``, it must be more.
        high: The most; with ``below``, it must be less.
        above: Whether ``low`` itself is too low.
        below: Whether ``high`` itself is too high.

    Raises:
        TypeError: If it is no number.
        ValueError: If it lies outside, or is NaN.

    Example:
        >>> from tlhelpers import checks
        >>> checks.number(0.95, "level", 0, 1, above=True, below=True)
        0.95
    """
    upper = "" if high == np.inf else f" and below {high:g}" if below else f" and at most {high:g}"
    lower = f"above {low:g}" if above else f"{low:g} or more"
    expected = f"{name} is {value!r}, expected a number, {lower}{upper}."
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(expected)
    found = float(value)
    inside = (found > low if above else found >= low) and (found < high if below else found <= high)
    if not inside or found == np.inf:
        raise ValueError(expected + (" Divide a percentage by 100." if high == 1 < found <= 100 else ""))
    return found


def numbers(values: Any, name: str, low: float = 0, *, above: bool = False) -> tuple[float, ...]:
    """Returns one or more numbers as floats, each checked like `number`.

    Raises:
        TypeError: As `number`.
        ValueError: As `number`; if there is none.

    Example:
        >>> from tlhelpers import checks
        >>> checks.numbers([1, 2], "strengths", above=True)
        (1.0, 2.0)
    """
    found = tuple(number(value, name, low, above=above) for value in np.atleast_1d(values))
    if not found:
        raise ValueError(f"{name} is empty, expected one number or several.")
    return found


def _read(values: Any, name: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError(f"{name} are a masked array with gaps. Fill or leave out the gaps first.")
    try:
        found = np.asarray(values)
        # Among those of no kind are the numbers of other packages, such as bfloat16.
        return found.astype(np.float32) if found.dtype.kind == "V" and not found.dtype.names else found
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{name} cannot be read as an array ({error}). Pass a NumPy array; rows must have one length, "
            "and a tensor comes as x.detach().cpu().float().numpy()."
        ) from error


def _columns(values: Any, name: str) -> np.ndarray:
    found = floats(values, name, "(n, k)").astype(np.float64)
    if found.shape[1] < 2:
        raise ValueError(
            f"{name} must be (n, k), k > 1; these are {found.shape}. "
            "Of one sigmoid output p, make two columns: np.concatenate([1 - p, p], axis=1)."
        )
    return found


def _sums_to(rows: np.ndarray, total: float) -> bool:
    """Whether all rows do, but for the rounding of half precision."""
    return bool(np.abs(rows.sum(axis=1) / total - 1).max() < 5e-3)
