"""The doors to what Keras keeps to itself. Nothing else in this room uses a private name of Keras."""

from collections.abc import Iterator
from typing import Any

import keras

TESTED = ((3, 8), (3, 15))  # oldest and newest Keras on which the doors below were tried


def untested() -> str | None:
    """Says that this Keras is older or newer than those tried; ``None`` if it is not."""
    if TESTED[0] <= tuple(map(int, keras.__version__.split(".")[:2])) <= TESTED[1]:
        return None
    low, high = (".".join(map(str, tested)) for tested in TESTED)
    return f"Keras {keras.__version__} was not tried; this auditor knows Keras {low} to {high}"


def layers_inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns all layers inside a layer, at any depth. `Model.layers` shows one level of models alone."""
    return list(_private(layer, "_flatten_layers")(include_self=False))


def learning_rate(optimizer: keras.Optimizer) -> Any:
    """Returns the rate as it was given: a schedule, or a variable. `learning_rate` is a number."""
    return _private(optimizer, "_learning_rate")


def iterations(optimizer: keras.Optimizer) -> keras.Variable:
    """Returns the counter of steps. `iterations` is a tensor where gradients are accumulated."""
    return _private(optimizer, "_iterations")


def optimized(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Returns the variables that a built optimizer was built for."""
    return _private(optimizer, "_trainable_variables")


def drop_metrics(model: keras.Model) -> None:
    """Takes the compiled metrics off a model: ``compile`` without metrics leaves those of before."""
    vars(model)["_compile_metrics"] = None


def flags_at_compile(model: keras.Model) -> dict[keras.layers.Layer, bool]:
    """Returns the flags of the layers when the model was compiled; empty before Keras 3.15."""
    return getattr(model, "_compiled_trainable_state", {})


def _private(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        known = untested() or f"Keras {keras.__version__}"
        raise RuntimeError(f"{type(owner).__name__}.{name} is missing: {known}.") from None


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layers inside a layer that hold no others."""
    yield from (inner for inner in layers_inside(layer) if not layers_inside(inner))
