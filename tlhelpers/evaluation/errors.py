"""What a classifier gets wrong: by class, by slice, how confidently, and whether the label is to blame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tlhelpers import checks
from tlhelpers.evaluation import wilson_interval


@dataclass(frozen=True)
class Row:
    """One row of an error table. Returned by `by_class`, in a `Table`.

    Attributes:
        name: Class or slice.
        count: Images.
        accuracy: Share of hits, 0..1.
        low: Lower end of the 95 % Wilson interval of the accuracy.
        high: Upper end.
        precision: Share of right ones among the images that were taken for this class; NaN for a slice, and
            where none was taken for it.
    """

    name: str
    count: int
    accuracy: float
    low: float
    high: float
    precision: float


class Table(tuple[Row, ...]):
    """Rows of an error table; printed as text in columns. Returned by `by_class`."""

    def cells(self) -> list[list[str]]:
        """Returns the table as text, a list a row, the heading first."""
        rows = [["", "images", "accuracy", "95 % interval", "precision"]]
        for r in self:
            precision = "" if np.isnan(r.precision) else f"{r.precision:.1%}"
            interval = f"{r.low:.1%} to {r.high:.1%}"
            rows.append([r.name, str(r.count), f"{r.accuracy:.1%}", interval, precision])
        return [row if any(r[4] for r in rows[1:]) else row[:4] for row in rows]

    def __repr__(self) -> str:
        """The table as text."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in cells)


def by_class(y: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> Table:
    """Counts hits class by class, the worst class first.

    Args:
        y: Labels ``(n,)``, 0..k-1.
        predicted: Predicted labels ``(n,)``.
        class_names: The k names. A class without an image has no row.

    Raises:
        ValueError: If the shapes differ, there is nothing to count, or a label has no name.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import errors
        >>> errors.by_class(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), ["cat", "dog"])
             images  accuracy    95 % interval  precision
        dog       2     50.0%    9.5% to 90.5%     100.0%
        cat       2    100.0%  34.2% to 100.0%      66.7%
    """
    y, predicted = checks.pair(y, predicted, len(class_names))
    rows = []
    for k, name in enumerate(class_names):
        taken = predicted == k
        precision = float(np.mean(y[taken] == k)) if taken.any() else float("nan")
        if (y == k).any():
            rows.append(_row(name, (predicted == y)[y == k], precision))
    return Table(sorted(rows, key=lambda row: row.accuracy))


def by_slice(y: np.ndarray, predicted: np.ndarray, slices: Mapping[str, np.ndarray]) -> Table:
    """Counts hits slice by slice, in the order given. Slices may overlap.

    Whoever looks at many slices finds bad ones by chance alone: compare the intervals, and look again on
    other images.

    Args:
        y: Labels ``(n,)``.
        predicted: Predicted labels ``(n,)``.
        slices: Name -> which images belong to it, bool ``(n,)``, such as ``{"dark": brightness < 60}``.

    Raises:
        ValueError: If a shape or type does not fit, or a slice is empty.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import errors
        >>> y, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
        >>> dark = np.array([False, False, True, True])
        >>> errors.by_slice(y, predicted, {"dark": dark})[0].accuracy
        0.5
    """
    y, predicted = checks.pair(y, predicted)
    rows = []
    for name, inside in slices.items():
        inside = np.asarray(inside)
        if inside.dtype != bool or inside.shape != y.shape or not inside.any():
            raise ValueError(
                f"The slice {name!r} must be a bool array of shape {y.shape} with at least one True; "
                f"it is {inside.dtype} {inside.shape} with {int(np.sum(inside))}."
            )
        rows.append(_row(name, (y == predicted)[inside], float("nan")))
    return Table(rows)


def confident_mistakes(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Returns the positions of the wrong predictions, the most confident first, int64 ``(m,)``.

    Args:
        y: Labels ``(n,)``, 0..k-1.
        proba: Probabilities ``(n, k)``.

    Raises:
        ValueError: If these are no labels with probabilities.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import errors
        >>> proba = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
        >>> errors.confident_mistakes(np.array([1, 1, 1]), proba).tolist()
        [1, 0]
    """
    y, proba = checks.scores(y, proba, "probabilities")
    wrong = np.flatnonzero(proba.argmax(axis=1) != y)
    return wrong[np.argsort(-proba.max(axis=1)[wrong], kind="stable")]


def label_errors(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Returns positions of images whose label is in doubt, the least credible first, int64 ``(m,)``.

    The rule of confident learning (Northcutt, Jiang and Chuang, 2021): a class is credible for an image
    whose probability for it is at least the mean that images labelled so have. Where the most probable of
    the credible classes is not the label, the label is in doubt. Order is by the probability of the label.

    Args:
        y: Labels ``(n,)``, 0..k-1, each class present.
        proba: Probabilities ``(n, k)`` from models that did not train on the image, such as
            `evaluation.cross_validate` gives: a model that did agrees with wrong labels.

    Raises:
        ValueError: If these are no labels with probabilities, or a class has no image.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import errors
        >>> proba = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.95, 0.05], [0.1, 0.9]])
        >>> errors.label_errors(np.array([0, 0, 1, 1, 1]), proba).tolist()
        [3]
    """
    y, proba = checks.scores(y, proba, "probabilities")
    k = proba.shape[1]
    missing = sorted(set(range(k)) - set(y.tolist()))
    if missing:
        raise ValueError(f"The classes {missing} have no image, so that nothing is known about their labels.")
    threshold = np.array([proba[y == c, c].mean() for c in range(k)])
    credible = np.where(proba >= threshold, proba, -1.0)
    doubt = np.flatnonzero((credible.max(axis=1) >= 0) & (credible.argmax(axis=1) != y))
    return doubt[np.argsort(proba[doubt, y[doubt]], kind="stable")]


def _row(name: str, hits: np.ndarray, precision: float) -> Row:
    return Row(name, len(hits), float(hits.mean()), *wilson_interval(int(hits.sum()), len(hits)), precision)
