"""What a model does with images, seen from inside one call of it, and what its losses want."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from tlhelpers.audit._draw import mapped, tensor
from tlhelpers.audit._keras import leaves
from tlhelpers.audit._model import CONVOLUTIONS, Base
from tlhelpers.audit._training import restored

# Values of the inputs in one call, which costs much in itself; and after how many seconds of the processor no
# other call is begun.
VALUES, SECONDS = 16 * 224 * 224 * 3, 3.0
ACTIVATIONS = {"softmax", "sigmoid", "relu", "relu6", "tanh", "elu", "gelu", "silu", "leakyrelu", "softplus"}
Layers = list[keras.layers.Layer]
End = tuple[str | None, str | None, Layers]
Wants = Literal["logits", "probabilities"]


@dataclass
class Seen:
    """What was seen in calls of a model in inference mode.

    Attributes:
        outputs: What the model gave: name -> array ``(n, ...)``.
        features: What the base gave, averaged over the map: ``(n, d)``; ``None`` if there is no base.
        ends: The name of the activation that an output comes from, ``None`` where that cannot be told; of the
            one that this is taken of, if any; and the last two layers with weights, the last one first.
        pinned: Whether the base is called with ``training=False`` inside the model.
        used: Ids of the layers that were called.
    """

    outputs: dict[str, NDArray]
    features: NDArray | None
    ends: dict[str, End]
    pinned: bool
    used: set[int]


# Layer, ids of inputs, output, arguments.
Call = tuple[keras.layers.Layer, tuple[int, ...], Any, dict[str, Any]]


def look(model: keras.Model, base: Base | None, x: Any) -> Seen:
    """Calls a model on images, some at a time, and records what its layers do.

    Args:
        model: A built model.
        base: Its pretrained part.
        x: Inputs, as the model itself takes them.
    """
    begun = time.process_time()
    calls: list[Call] = []
    with restored(model, whole=False), _watched(_all(model, base), functools.partial(_record, calls)):
        named = _named(model, _call(model, x, slice(2)))
    inner = set() if base is None else {id(layer) for layer in base.layers}
    of_base = [layer for layer, *_ in calls if id(layer) in inner and not isinstance(layer, keras.Model)]
    ends = {name: _end(calls, value) for name, value in named.items()}
    network = None if base is None else base.network
    pinned = any(kw.get("training") is False for layer, _, _, kw in calls if layer is network)
    used = {id(layer) for layer, *_ in calls}
    calls = []  # they hold every map of the network
    outputs, maps = [], []
    parts = tree.flatten(x)
    chunk = max(2, VALUES // sum(int(np.prod(part.shape[1:])) for part in parts))
    for start in range(0, len(parts[0]), chunk):
        if start and time.process_time() - begun > SECONDS:
            break
        with _watched(of_base[-1:], functools.partial(_record, calls)):
            outputs.append(given_by(model, x, slice(start, start + chunk)))
        maps += [pooled(calls[-1][2])] if of_base else []
        calls.clear()
    given = {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
    return Seen(given, np.concatenate(maps) if maps else None, ends, pinned, used)


def given_by(model: keras.Model, x: Any, rows: slice = slice(None)) -> dict[str, NDArray]:
    """Returns what a model gives for some rows of its inputs: name -> array ``(n, ...)``."""
    return tree.map_structure(_numpy, _named(model, _call(model, x, rows, training=False)))


def pooled(output: Any) -> NDArray:
    """Returns what a network gives, averaged over the map: ``(n, d)``."""
    values = _numpy(tree.flatten(output)[0])
    return values.mean(axis=tuple(range(1, values.ndim - 1)))


def _call(model: keras.Model, x: Any, rows: slice, **how: bool) -> Any:
    # Without `training=False` a Resizing in front would have all behind it train (Keras' pull request 23166).
    return model(mapped(lambda a: tensor(a[rows]), x), **how)


def at_first_convolution(
    model: keras.Model, base: Base | None, x: Any, training: bool = False
) -> NDArray | None:
    """Returns what reaches the first convolution of the base; ``None`` if nothing does."""
    layers = [] if base is None else base.layers
    return entering(model, [layer for layer in layers if isinstance(layer, CONVOLUTIONS)], x, training)


def learned_before(model: keras.Model, base: Base, x: Any) -> bool:
    """Returns whether a layer with weights of its own sees the images before the base does."""
    inside = {id(layer) for layer in base.layers}
    learned = [la for la in leaves(model) if la.weights and not isinstance(la, keras.layers.Normalization)]
    first = _first(model, learned, x, False)
    return first is not None and id(first[0]) not in inside


def entering(model: keras.Model, layers: Layers, x: Any, training: bool = False) -> NDArray | None:
    """Returns what the first one of some layers gets; ``None`` if none is reached.

    Args:
        model: A built model.
        layers: Layers in it.
        x: Inputs, as the model itself takes them.
        training: Whether in training mode: with augmentation.
    """
    first = _first(model, layers, x, training)
    return None if first is None else first[1]


def _first(model: keras.Model, layers: Layers, x: Any, training: bool) -> Any:
    """Returns the first one of some layers that is reached, and what it gets; ``None`` if none is."""
    seen: list[tuple[keras.layers.Layer, NDArray]] = []

    def stop(layer: keras.layers.Layer, call: Callable, inputs: Any, *args: Any, **kwargs: Any) -> None:
        seen.append((layer, _numpy(inputs)))
        raise _ReachedError

    with _watched(layers, stop):
        try:
            model(mapped(tensor, x), training=training)
        except Exception:  # Keras may wrap what a layer raises
            if not seen:
                raise
    return seen[0] if seen else None


class _ReachedError(Exception):
    """Ends a call of the model at its first convolution."""


def _all(model: keras.Model, base: Base | None) -> Iterator[keras.layers.Layer]:
    yield from leaves(model)
    if base is not None and base.network is not None and base.network is not model:
        yield base.network


@contextlib.contextmanager
def _watched(layers: Iterable[keras.layers.Layer], see: Callable) -> Iterator[None]:
    """Puts a function before the calls of layers: it gets the layer, its own call and the arguments."""
    hidden = []
    try:
        for layer in {id(layer): layer for layer in layers}.values():
            hidden.append((vars(layer), vars(layer).get("call")))
            vars(layer)["call"] = functools.partial(see, layer, layer.call)  # hides the method of the class
        yield
    finally:
        for attributes, call in hidden:
            attributes.pop("call", None)
            attributes.update({} if call is None else {"call": call})


def _record(calls: list[Call], layer: keras.layers.Layer, call: Callable, *args: Any, **kwargs: Any) -> Any:
    output = call(*args, **kwargs)
    inputs = tree.flatten(args[:1])
    calls.append((layer, tuple(map(id, inputs)), output, {**kwargs, "held": inputs}))  # held: ids stay unique
    return output


def _end(calls: list[Call], output: Any) -> End:
    """Follows an output down to its activation, the one below that, and the second layer with weights."""
    names: list[str | None] = []
    last: Layers = []
    wanted, place = id(output), len(calls)
    while place and len(last) < 2:
        place -= 1
        layer, inputs, given, _ = calls[place]
        if wanted not in map(id, tree.flatten(given)) or isinstance(layer, keras.Model):
            continue
        activation = getattr(layer, "activation", None)
        own = str(getattr(activation, "__name__", type(activation or layer).__name__)).lower()
        if not last:
            names += [own] if own in ACTIVATIONS else []
            if layer.weights and not names:
                names = ["linear" if own in ("linear", "dense", "nonetype") else None]
        last += [layer] if layer.weights else []
        if len(inputs) != 1:
            break
        wanted = inputs[0]
    end, under = (*names, None, None)[:2]
    return end, under, last


def _named(model: keras.Model, given: Any) -> dict[str, Any]:
    """Returns outputs by the names that losses and labels know them by."""
    if isinstance(given, dict):
        return dict(given)
    values = tree.flatten(given)
    names = getattr(model, "output_names", None) or []
    names = names if len(names) == len(values) else list(map(str, range(len(values))))
    return dict(zip(names, values, strict=True))


def _numpy(value: Any) -> NDArray:
    found = np.array(ops.convert_to_numpy(value))
    return found if found.dtype.kind in "iub" else found.astype(np.float32)


def wants(loss: Callable, n_outputs: int, targets: NDArray | None) -> Wants | None:
    """Returns what a loss takes, by trying it; ``None`` if it takes neither, as a squared error does.

    Beyond 1, a cross-entropy of logits still falls as the right output rises; one of probabilities is cut
    off. From 0.6 to 0.9 both fall, so that this is asked second.

    Args:
        loss: Function of targets and outputs.
        n_outputs: Number of outputs.
        targets: Some targets, which tell their form; ``None``: each form is tried.
    """
    n = max(2, min(n_outputs, 8))
    right = np.eye(n, max(n_outputs, 2), dtype=np.float32)
    right = right if n_outputs > 1 else np.array([[0.0], [1.0]], np.float32)
    numbers = np.arange(n, dtype=np.int32)
    forms = {"rows": right, "numbers": numbers, "column": numbers[:, None]}
    if targets is not None:
        rows = targets.ndim == 2 and targets.shape[1] == n_outputs
        forms = {key: forms[key] for key in (("rows",) if rows else ("numbers", "column"))}
    elif n_outputs == 1:
        forms = {"rows": right}
    for form in forms.values():
        with contextlib.suppress(Exception):
            at = functools.partial(_mean, loss, form)
            near, far, end = (at(k * (2 * right - 1)) for k in (1.05, 1.5, 30.0))
            if near - far > 1e-4 * abs(near) + 1e-7 and end > -1e-3:  # below 0: a ratio, such as Dice
                return "logits"
            poor, good = (at(_probabilities(right, p)) for p in (0.6, 0.9))
            if poor - good > 1e-4 * abs(poor):
                return None if far > near * (1 + 1e-4) + 1e-3 else _of_probabilities(at, right)
    return None


def _of_probabilities(at: Callable[[NDArray], float], right: NDArray) -> Wants | None:
    """Tells losses of probabilities from counts, distances and angles, which fall from 0.6 to 0.9, too.

    A right output of 3 gains nothing, or falls below what can be. A wrong one costs more and more.
    """
    sure = _probabilities(right, 0.9)
    gain = at(sure) - at(np.where(right > 0, 2.7, sure))
    wrong = [at(_probabilities(right, p)) for p in (0.1, 1e-2, 1e-4)]
    steep = wrong[2] - wrong[1] > 0.5 * (wrong[1] - wrong[0])
    return "probabilities" if gain > 0.02 or (steep and not gain < -0.02) else None


def _probabilities(right: NDArray, p: float) -> NDArray:
    rest = (1 - p) / max(1, right.shape[1] - 1)
    return np.where(right > 0, p, rest).astype(np.float32)


def _mean(loss: Callable, targets: NDArray, outputs: NDArray) -> float:
    value = loss(ops.convert_to_tensor(targets), ops.convert_to_tensor(outputs.astype(np.float32)))
    return float(np.mean(ops.convert_to_numpy(value)))
