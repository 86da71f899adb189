"""What the auditor sees of a data set: a bounded number of rows, drawn once, whatever ``fit`` may take."""

import contextlib
import copy
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from tlhelpers import data

LOOK = 200  # rows that are looked at closely
BATCHES = 16  # at most, of a data set whose batches can be taken anywhere
IN_TURN = 64  # at most, of one that gives them in turn, of which all labels are wanted
VALUES = 64 * 224 * 224 * 3  # of inputs: after as many, and `LOOK` rows, no other batch is taken
LARGE = 500_000_000  # bytes in its arrays, from which on a data set is not copied
COMPARED = 10_000  # rows of a set that are compared with those of the others


class NotReadError(Exception):
    """A data set cannot be looked at; says why."""


@dataclass
class Sample:
    """Rows of a data set, as arrays.

    Attributes:
        x: The inputs, at most `LOOK` rows: an array, or a list or dictionary of arrays.
        y: The targets of the same rows; ``None`` if there are none.
        weights: Sample weights; ``None`` if there are none.
        labels: The targets of as many rows as were seen.
        whole: Whether `labels` are all that there are.
        source: Images to be compared with those of other sets; ``None``: those of `x`.
        sizes: Rows of each batch; empty where ``fit`` cuts the batches itself.
        reordered: Whether a second pass gave another order; ``None`` if there was none.
        spent: Whether it gave nothing when it was read once more.
        resizes: Whether images of another size are brought to the model's by whoever trains it.
    """

    x: Any
    y: Any = None
    weights: Any = None
    labels: Any = None
    whole: bool = False
    source: Any = None
    sizes: list[int] = field(default_factory=list)
    reordered: bool | None = None
    spent: bool = False
    resizes: bool = False

    def __len__(self) -> int:
        return len(tree.flatten(self.x)[0])

    def rows(self, which: int | NDArray) -> tuple[Any, Any, Any]:
        """Returns inputs, targets and weights of the first rows, or of those at some places."""
        places = slice(which) if isinstance(which, int) else which
        x, y, weights = (mapped(lambda a: a[places], part) for part in (self.x, self.y, self.weights))
        return x, y, weights


def mapped(function: Callable[..., Any], part: Any, *more: Any) -> Any:
    """Applies a function to each array of a structure; ``None`` stays ``None``, for a part of it, too."""
    return tree.map_structure(lambda *a: None if a[0] is None else function(*a), part, *more)


def array(value: Any) -> NDArray:
    """Returns what ``fit`` may take, of any framework, sparse or not, as an array."""
    value = ops.convert_to_numpy(value) if hasattr(value, "dense_shape") else value
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def tensor(value: Any) -> Any:
    """Returns an array as what a model is called with."""
    if value.dtype.kind not in "OSU":
        return ops.convert_to_tensor(value)
    import tensorflow as tf  # no other framework has texts

    return tf.constant(value)


def draw(given: Any, inputs: int, twice: bool) -> Sample:
    """Looks at a data set: arrays, batches of any kind, or a pair or triple of arrays.

    An iterator that cannot start again is left alone. Random numbers of Python and NumPy are as before.

    Args:
        given: What ``fit`` takes, or images alone.
        inputs: Number of the model's inputs; 0 if unknown.
        twice: Whether to look for another order in a second pass.

    Raises:
        NotReadError: If it cannot be looked at.
    """
    state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        if _is_array(given) or hasattr(given, "detach"):
            given = (given,)
        if isinstance(given, tuple | list) and 1 <= len(given) <= 3 and not _is_batch(given[0]):
            return _from_arrays(*given, inputs=inputs, reordered=False if twice else None)
        sample = from_batches(itertools.islice(_batches(given), IN_TURN), bounded=True)
        count, n = _count(given), len(sample.sizes)
        sample.whole = n == count
        if twice or count is None:
            later = _next_epoch(given) if twice else given
            again = list(itertools.islice(_batches(later), n if twice else 1))
            sample.spent = not again
            if twice and again:
                shuffles = getattr(given, "shuffle", None) is True
                sample.reordered = shuffles or _differ(sample, from_batches(again))
        return sample
    finally:
        np.random.set_state(state[0])  # noqa: NPY002
        random.setstate(state[1])


def from_batches(batches: Iterable[Any], bounded: bool = False) -> Sample:
    """Returns the sample that batches make: the inputs of the first `LOOK` rows, the labels of all.

    Args:
        batches: What one gets from a data set.
        bounded: Whether enough rows are enough: `LOOK`, or as many more as cost no more than they would.

    Raises:
        NotReadError: If there is none.
    """
    parts: list[tuple] = []
    sizes: list[int] = []
    labels: list[Any] = []
    for batch in batches:
        x, y, w = keras.utils.unpack_x_y_sample_weight(tuple(batch) if isinstance(batch, list) else batch)
        labels += _fitting([mapped(array, y)], labels)
        if sum(sizes) < LOOK:
            parts += _fitting([(mapped(array, x), mapped(array, y), mapped(array, w))], parts)
        sizes.append(int(tree.flatten(x)[0].shape[0]))
        row = sum(int(np.prod(np.shape(a)[1:])) for a in tree.flatten(parts[0][0]))
        if bounded and sum(sizes) >= max(LOOK, VALUES / row):
            break
    if not parts:
        raise NotReadError("it gives no batch")
    x, y, weights = (_joined(part) for part in zip(*parts, strict=True))
    return Sample(x, y, weights, _joined(labels), sizes=sizes)


def _next_epoch(given: Any) -> Any:
    """Returns a data set as it is after an epoch; what it holds itself stays in its order."""
    kinds = (list, np.ndarray, np.random.Generator, np.random.RandomState, random.Random)
    held = {name: value for name, value in getattr(given, "__dict__", {}).items() if isinstance(value, kinds)}
    light = sum(getattr(value, "nbytes", 0) for value in held.values()) < LARGE
    if light and callable(getattr(given, "on_epoch_end", None)):
        with contextlib.suppress(Exception):  # what cannot be copied is read in the same epoch once more
            twin = copy.copy(given)
            for name, value in held.items():
                vars(twin)[name] = copy.copy(value) if isinstance(value, list) else copy.deepcopy(value)
            twin.on_epoch_end()
            return twin
    return given


def _fitting(new: list[Any], known: list[Any]) -> list[Any]:
    """Returns a new batch, unless its rows have other shapes than those before: sizes may change."""
    first, other = ([np.shape(a)[1:] for a in tree.flatten(part)] for part in ((known or new)[0], new[0]))
    return new if first == other else []


def _joined(parts: Sequence[Any]) -> Any:
    return mapped(lambda *a: np.concatenate(a), *parts)


def _batches(given: Any) -> Iterable[Any]:
    if callable(getattr(given, "take", None)) and hasattr(given, "element_spec"):  # tf.data
        return given.take(IN_TURN)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        places = dict.fromkeys(np.linspace(0, len(given) - 1, BATCHES).astype(int).tolist())
        return (given[i] for i in places)
    if not hasattr(given, "__iter__"):
        raise NotReadError(f"a {type(given).__name__} is nothing that fit takes")
    if iter(given) is given:
        raise NotReadError("a generator can be read only once: audit.Callback sees its batches inside fit")
    return given


def _from_arrays(x: Any, y: Any = None, weights: Any = None, *, inputs: int, **more: Any) -> Sample:
    if isinstance(x, list) and inputs == 1 and len(x) > 1:
        x = np.stack([array(a) for a in x])
    parts = [mapped(lambda a: a if _is_array(a) else array(a), part) for part in (x, y, weights)]
    lengths = {len(a) for part in parts for a in tree.flatten(part) if a is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise NotReadError("it is empty" if lengths == {0} else f"its arrays have lengths {sorted(lengths)}")
    (n,) = lengths
    # At random, since a set may be laid out in blocks or in turns.
    places = np.sort(np.random.default_rng(0).permutation(n)[:COMPARED])
    some = places[np.sort(np.random.default_rng(1).permutation(len(places))[:LOOK])]
    x, labels, weights = (mapped(lambda a: a[some], part) for part in parts)
    images = images_in(parts[0])[:1]
    source = small(images[0], places) if images and isinstance(images[0], np.ndarray) else None
    return Sample(x, labels, weights, parts[1], True, source, **more)


def small(images: NDArray, places: NDArray | None = None) -> NDArray:
    """Returns about 32 x 32 pixels of each image, at even distances: enough to tell images apart."""
    height, width = (max(1, n // 32) for n in images.shape[1:3])
    seen = images[:, : height * 32 : height, : width * 32 : width]
    return np.ascontiguousarray(seen if places is None else seen[places])


def is_image(value: Any) -> bool:
    """Returns whether an array holds images with their channels last."""
    return len(getattr(value, "shape", ())) == 4 and value.shape[3] in (1, 3)


def images_in(x: Any) -> list[NDArray]:
    """Returns the arrays of images among the inputs."""
    return [value for value in tree.flatten(x) if is_image(value)]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | data.ImageSequence)


def _is_batch(value: Any) -> bool:
    """Whether the first element is a batch itself: a list of batches has pairs in it."""
    return isinstance(value, tuple) and len(value) in (2, 3)


def _count(given: Any) -> int | None:
    """Number of batches, where it is known."""
    try:
        return len(given)
    except TypeError:
        return None


def _differ(a: Sample, b: Sample) -> bool:
    """By the labels, where there are several: images may be augmented, and differ for that."""
    labels = [] if a.labels is None else tree.flatten(a.labels)
    by_labels = any(len(np.unique(v, axis=0)) > 1 for v in labels)
    first, second = (tree.flatten(s.labels if by_labels else s.x) for s in (a, b))
    return not all(map(np.array_equal, first, second))
