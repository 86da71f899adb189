"""Answers are compared here, and nowhere else: shape, kind, finiteness, then value.

What was found comes from a submission: it may be empty, infinite, of another shape so that it broadcasts, or
no number at all. So its form is looked at before any arithmetic.
"""

from typing import Any

import numpy as np

RTOL = 1e-4  # float32 is enough, unless a task asks for more
ATOL = 1e-6  # of the largest expected value, or of 1 if that is smaller
NUMBERS = "iuf"


def fault(found: Any, expected: Any, rtol: float = RTOL, atol: float = ATOL) -> str:
    """Returns what is wrong with an answer: "" if nothing is, "form: ..." or "value".

    Args:
        found: An array or a number, from a submission.
        expected: What is right: an array or a number, not empty.
        rtol: Relative tolerance, for expected floating point numbers.
        atol: Absolute tolerance, in units of the largest expected value (at least 1).

    Raises:
        ValueError: If nothing is expected; such a check could not fail.
    """
    right = np.asarray(expected)
    if right.size == 0:
        raise ValueError("an empty answer is expected: a check that looks at nothing")
    if not isinstance(found, np.ndarray | np.generic | bool | int | float):
        return "form: it is no number and no array of numbers"
    given = np.asarray(found)
    if given.shape != right.shape:
        return f"form: {_other_shape(given, right)}"
    kinds = {"b": "biu", "i": "iuf", "u": "iuf", "f": NUMBERS}[right.dtype.kind]
    if given.dtype.kind not in kinds:
        return "form: it holds something else than what was asked for, such as true and false for numbers"
    if not np.isfinite(given).all():
        return "form: it holds NaN or infinity"
    if right.dtype.kind in "biu":  # truth values and counts are exact
        return "" if bool((given == right).all()) else "value"
    scale = max(1.0, float(np.abs(right).max()))
    return "" if np.allclose(given.astype("float64"), right, rtol=rtol, atol=atol * scale) else "value"


def same(found: Any, expected: Any, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Tells whether an answer is right; see `fault`."""
    return fault(found, expected, rtol, atol) == ""


def judged(
    found: Any, expected: Any, message: str, rtol: float = RTOL, atol: float = ATOL
) -> tuple[bool, str]:
    """Returns whether an answer is right, and what to say if not: about its form, or else the message."""
    wrong = fault(found, expected, rtol, atol)
    if wrong.startswith("form: "):
        return False, f"What your code returned has another form: {wrong.removeprefix('form: ')}."
    return wrong == "", message


def places(found: Any, expected: Any) -> list[int] | None:
    """Returns for each row of ``found`` (n, ...) its place in ``expected`` (m, ...).

    ``None`` if one is not there. Rows of ``expected`` must differ. So pairs may come in any order.
    """
    rows, right = np.asarray(found), np.asarray(expected)
    if (
        rows.dtype.kind not in NUMBERS
        or rows.shape[1:] != right.shape[1:]
        or not 0 < len(rows) <= 4 * len(right)
    ):
        return None
    if not np.isfinite(rows).all():
        return None
    rows, right = (x.reshape(len(x), -1).astype("float64") for x in (rows, right))
    distances = np.abs(rows[:, None] - right[None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    scale = max(1.0, float(np.abs(right).max()))
    if (distances[np.arange(len(rows)), nearest] > RTOL * scale).any():
        return None
    return [int(place) for place in nearest]


def same_pairs(found_x: Any, found_y: Any, x: Any, y: Any) -> bool:
    """Tells whether the pairs (row of x, y) are those expected, each once, in any order."""
    order = places(found_x, x)
    return order is not None and sorted(order) == list(range(len(x))) and same(found_y, np.asarray(y)[order])


def answers(found: Any, expected: dict[str, Any]) -> tuple[float, str]:
    """Returns the share of right answers of a table, and which ones are not right."""
    if not isinstance(found, dict):
        return 0.0, "What your code holds here is no dict."
    wrong = [
        key
        for key, value in expected.items()
        if type(found.get(key)) is not type(value) or found[key] != value
    ]
    return 1 - len(wrong) / len(expected), f"Not right: {', '.join(wrong)}."


def _other_shape(given: np.ndarray, right: np.ndarray) -> str:
    """Says how a shape differs, without a number in it: a submission could tell hidden inputs by one."""
    if right.ndim == 0:
        return "it is an array, and a single number was asked for"
    if given.ndim == 0:
        return "it is a single number, and an array was asked for"
    if given.ndim != right.ndim:
        more = "more" if given.ndim > right.ndim else "fewer"
        return f"its shape has {more} dimensions than were asked for"
    return "its shape has another length than was asked for"
