"""Preprocessing: the styles that there are, and what the first convolution of each family expects."""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from numpy.typing import NDArray

from tlhelpers import backbones

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
    "centred: -0.5 to 0.5": lambda x: x / 255 - 0.5,
    "divided by 255 twice": lambda x: x / 255 / 255,
}
RAW, UNIT, TF, CAFFE, TORCH, CENTRED, TWICE = STYLES

# Families that scale inside, behind a `preprocess_input` that does nothing: what their first convolution
# expects. EfficientNet has its mean and deviation only with the ImageNet weights.
_SCALED_INSIDE = {
    "efficientnetb0": (TORCH, UNIT),
    "efficientnetv2b0": (TORCH, TF),
    "mobilenetv3small": (TF,),
    "convnexttiny": (TORCH,),
}

# Black, white, grey, the pure colours and two more: they tell order, scale and shift of the channels.
COLOURS = np.array(
    [[0] * 3, [255] * 3, [128] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 90, 200], [230, 60, 5]],
    dtype=np.float32,
)


def style_of(x: NDArray) -> str:
    """Returns how the images of an array seem to have been prepared: a key of `STYLES`.

    A hundredth of the values at each end is left out of account: resizing overshoots, brightness is changed.
    """
    if np.issubdtype(x.dtype, np.integer):
        return RAW
    few = x.ravel()[:: max(1, x.size // 200_000)].astype(np.float32)
    low, high = np.nanpercentile(few, [1, 99])
    if high > 20 or low < -20:
        return CAFFE if low < -20 else RAW
    if low >= -0.1:
        whole = bool((few == np.round(few)).all())
        return RAW if high > 1.7 or (whole and high > 1) else UNIT if high > 0.02 else TWICE
    if high - low <= 1.05 and low > -0.6:
        return CENTRED
    return TF if low >= -1.15 and high <= 1.15 else TORCH


def expected_by(family: str) -> list[Prepare]:
    """Returns what makes raw pixels fit the first convolution of a family; any one of them will do."""
    if family in _SCALED_INSIDE:
        return [STYLES[style] for style in _SCALED_INSIDE[family]]
    return [lambda x: np.array(backbones.preprocessing(family)(x.copy()))]


def scales_inside(family: str) -> bool:
    """Returns whether a family has its preprocessing in its own layers."""
    return family in _SCALED_INSIDE
