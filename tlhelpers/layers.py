"""Layers by name, one by one, and all of them as text."""

import json
import re
from collections.abc import Iterator
from typing import Any

import keras

# where Keras' description of a model names a layer
_NAMING = ("name", "keras_history", "input_layers", "output_layers")
_LEFT_OUT = ("trainable", "seed")


def begins(name: str, beginning: str) -> bool:
    """Tells whether a layer's name begins so; a number must match as a whole.

    Example:
        >>> from tlhelpers import layers
        >>> layers.begins("block1_conv", "block1"), layers.begins("block10_conv", "block1")
        (True, False)
    """
    rest = name[len(beginning) :]
    return name.startswith(beginning) and not (beginning[-1:].isdigit() and re.match(r"\d", rest))


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model, and those of the models in it, from the input to the output.

    Example:
        >>> import keras
        >>> from tlhelpers import layers
        >>> inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
        >>> model = keras.Sequential([inner, keras.layers.Dense(2, name="head")])
        >>> [layer.name for layer in layers.leaves(model)]
        ['hidden', 'head']
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def structure(model: keras.Model) -> str:
    """Returns the layers and their connections as text, the same each time that the model is built.

    Keras numbers layers without a name through a whole process, so names give way to positions. Which layers
    are frozen, and random seeds, change no output, and are left out.

    Example:
        >>> from tlhelpers import finetune, layers
        >>> first, second = finetune.small_cnn(8, 10), finetune.small_cnn(8, 10)
        >>> layers.structure(first) == layers.structure(second)
        True
    """
    places: dict[str, int] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if "layers" in value:  # a model, which may be a layer of another one
                for part in (value, *(layer["config"] for layer in value["layers"])):
                    places.setdefault(part.get("name"), len(places))
            value = list(value.values())
        for part in value if isinstance(value, list | tuple) else ():
            collect(part)

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: renamed(v, k) for k, v in value.items() if k not in _LEFT_OUT}
        if isinstance(value, list | tuple):
            return [renamed(v, key) for v in value]
        return places.get(value, value) if key in _NAMING and isinstance(value, str) else value

    config = model.get_config()
    collect(config)
    return json.dumps(renamed(config), sort_keys=True, default=str)
