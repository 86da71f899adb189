"""Preprocessing: the styles that there are, what each family expects, what reaches the first convolution."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tlhelpers import backbones
from tlhelpers.audit._model import CONVOLUTIONS, Base, image_shape

Prepare = Callable[[NDArray], NDArray]


def _keras_style(mode: str, x: NDArray) -> NDArray:
    return keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)  # it writes into its input


# What can have happened to RGB pixels of 0..255.
STYLES: dict[str, Prepare] = {
    "nothing done": lambda x: x,
    "divided by 255": lambda x: x / 255,
    "tf style: -1 to 1": partial(_keras_style, "tf"),
    "caffe style: blue-green-red, minus the mean": partial(_keras_style, "caffe"),
    "torch style: minus the mean, divided by the deviation": partial(_keras_style, "torch"),
}
RAW, _UNIT, _TF, _CAFFE, _TORCH = STYLES

# Families that scale inside, behind a `preprocess_input` that does nothing: what their first convolution
# expects. EfficientNet has its mean and deviation only with the ImageNet weights.
_SCALED_INSIDE = {
    "efficientnetb0": (_TORCH, _UNIT),
    "efficientnetv2b0": (_TORCH, _TF),
    "mobilenetv3small": (_TF,),
    "convnexttiny": (_TORCH,),
}

# Black, white, grey, the pure colours and two more: they tell order, scale and shift of the channels.
COLOURS = np.array(
    [[0] * 3, [255] * 3, [128] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 90, 200], [230, 60, 5]],
    dtype=np.float32,
)


def style_of(x: NDArray) -> str:
    """Returns how the images of an array seem to have been prepared: a key of `STYLES`."""
    low, high = float(x.min()), float(x.max())
    if np.issubdtype(x.dtype, np.integer) or (low >= 0 and high > 1):
        return RAW
    if low >= 0:
        return _UNIT
    if low < -3:
        return _CAFFE
    return _TF if low >= -1.01 and high <= 1.01 else _TORCH


def expected_by(family: str) -> list[Prepare]:
    """Returns what makes raw pixels fit the first convolution of a family; any one of them will do."""
    if family in _SCALED_INSIDE:
        return [STYLES[style] for style in _SCALED_INSIDE[family]]
    return [lambda x: np.array(backbones.preprocessing(family)(x.copy()))]


class _ReachedError(Exception):
    """Ends a call of the model at its first convolution."""


def at_first_convolution(model: keras.Model, base: Base, colours: NDArray) -> NDArray | None:
    """Returns what reaches the first convolution of the base, ``(k, 3)``, from ``k`` images of one colour.

    Resizing and padding change nothing in the middle of such images. ``None`` where the model takes
    something else than colour images.
    """
    shape = image_shape(model)
    if shape is None:
        return None
    images = np.tile(colours[:, None, None], (1, shape[0] or 64, shape[1] or 64, 1)).astype(np.float32)
    seen: list[NDArray] = []

    def stop(inputs: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(np.array(ops.convert_to_numpy(inputs)))
        raise _ReachedError

    convolutions = [layer for layer in base.layers if isinstance(layer, CONVOLUTIONS)]
    for layer in convolutions:
        vars(layer)["call"] = stop  # hides the method of the class
    try:
        model(images, training=False)
    except Exception:  # Keras may wrap what a layer raises
        if not seen:
            raise
    finally:
        for layer in convolutions:
            del vars(layer)["call"]
    middle = seen[0][:, seen[0].shape[1] // 2, seen[0].shape[2] // 2]
    return middle if middle.shape == colours.shape else None
