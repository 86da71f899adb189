"""Layers by name, and one by one."""

import re
from collections.abc import Iterator

import keras


def begins(name: str, beginning: str) -> bool:
    """Tells whether a layer's name begins so; a number must match as a whole."""
    rest = name[len(beginning) :]
    return name.startswith(beginning) and not (beginning[-1:].isdigit() and re.match(r"\d", rest))


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model, and those of the models in it, from the input to the output."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer
