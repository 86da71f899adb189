"""The outputs of a model, each with the end that it comes from, its loss and its labels."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from tlhelpers.audit._draw import Sample
from tlhelpers.audit._probe import Seen, Wants, wants

_KINDS = {f"{k.replace(' ', '')}crossentropy": k for k in ("sparse categorical", "categorical", "binary")}
_KINDS |= {"categoricalfocalcrossentropy": "categorical", "binaryfocalcrossentropy": "binary"}


@dataclass
class Head:
    """One output.

    Attributes:
        name: Its name where a model has several, else empty.
        n: Number of outputs.
        end: "softmax", "sigmoid", "relu" or another activation, "linear", "ones" where all are 1, or
            "softmax over the batch".
        under: The activation that this one is taken of, such as a "relu" below a softmax, or ``None``.
        last: The last two layers with weights, the last one first.
        loss: Its loss; ``None`` where there is none.
        kind: ``"sparse categorical"``, ``"categorical"`` or ``"binary"``; ``None`` for another loss.
        wants: Whether the loss takes logits or probabilities; ``None`` if neither, or if it cannot be told.
        labels: The targets of each set that has some.
    """

    name: str
    n: int
    end: str | None
    under: str | None
    last: list[keras.layers.Layer]
    loss: Any
    kind: str | None = None
    wants: Wants | None = None
    labels: dict[str, NDArray] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The head, in words."""
        return f"The output {self.name!r}" if self.name else "The model"

    @property
    def classes(self) -> dict[str, NDArray]:
        """The classes of each set, as whole numbers; no set whose labels are something else."""
        found = {name: as_classes(y) for name, y in self.labels.items()}
        return {name: y for name, y in found.items() if y is not None}


def heads_of(model: keras.Model, seen: Seen, sets: dict[str, Sample]) -> list[Head]:
    """Returns the heads of a model."""
    given = model.loss if getattr(model, "compiled", False) else None
    heads = []
    for place, (name, values) in enumerate(seen.outputs.items()):
        loss = of_output(given, name, place)
        labels = {s: of_output(sample.labels, name, place, len(seen.outputs)) for s, sample in sets.items()}
        known = {s: np.asarray(y) for s, y in labels.items() if y is not None}
        end, under, last = seen.ends[name]
        head = Head(name if len(seen.outputs) > 1 else "", values.shape[-1] if values.ndim > 1 else 1,
                    _end(_rows(values), end), under, last, loss, labels=known)  # fmt: skip
        if loss is not None and values.ndim in (2, 4):
            head.kind = _KINDS.get(_loss_name(loss))
            with contextlib.suppress(Exception):  # a name that Keras does not know
                if (function := keras.losses.get(loss)) is not None and "hinge" not in _loss_name(loss):
                    head.wants = wants(function, head.n, next(map(_rows, known.values()), None))
        heads.append(head)
    return heads


def as_classes(y: NDArray) -> NDArray | None:
    """Returns labels as whole numbers ``(n,)``; ``None`` for several labels a row and for measures."""
    if y.dtype.kind not in "iubf" or not np.isfinite(y).all():
        return None
    if is_one_hot(y):
        return y.argmax(1) if np.allclose(y.sum(1), 1, atol=1e-3) else None
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    return y.ravel().astype(np.int64) if column and (y == np.round(y)).all() else None


def is_one_hot(y: NDArray) -> bool:
    """Returns whether labels have a column for each class."""
    return y.ndim == 2 and y.shape[1] > 1


def _rows(values: NDArray) -> NDArray:
    """Returns outputs or labels ``(n, k)``: of a map, those of some places."""
    if values.ndim != 4:
        return values
    return values.reshape(-1, values.shape[-1])[:: max(1, values[..., 0].size // 10_000)]


def _end(values: NDArray, activation: str | None) -> str | None:
    """By what comes out, where that is certain: a softmax may be written in many ways."""
    if values.ndim != 2 or not np.isfinite(values).all():
        return activation
    if np.allclose(values, 1, rtol=0, atol=1e-5):  # on some processors a softmax of one output is 1 - 6e-8
        return "ones"
    if values.shape[1] > 1 and (values >= 0).all() and np.allclose(values.sum(1), 1, atol=5e-3):
        return "softmax"
    sums = values.sum(0)  # where outputs share 1 over the batch: the number of calls
    shared = len(sums) > 1 and np.allclose(sums, np.round(sums[0]), atol=5e-3)
    if shared and len(values) > sums[0] > 0.5 and np.ptp(values, 0).min() > 0:
        return "softmax over the batch"
    if activation is not None or values.size < 8:
        return activation
    if values.min() > 0 and values.max() < 1:
        return "sigmoid"
    return "relu" if values.min() == 0 else "linear"


def of_output(given: Any, name: str, place: int, n: int = 1) -> Any:
    """Returns what belongs to an output: by its name, by its place, or all there is."""
    if isinstance(given, dict):
        return given.get(name, list(given.values())[place] if len(given) > place else None)
    if isinstance(given, list | tuple):
        return given[place] if len(given) > place else None
    return given if n == 1 else None


def _loss_name(loss: Any) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return str(name).replace("_", "").lower()


def labels_in(sample: Sample) -> list[NDArray]:
    """Returns all arrays of targets of a set."""
    return [np.asarray(y) for y in tree.flatten(sample.labels) if y is not None]
