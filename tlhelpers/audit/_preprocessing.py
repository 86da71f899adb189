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

# Black of each, how far white is from it, and how bright values may become; from narrow to wide.
RANGES: dict[str, tuple[float, float, float]] = {
    TWICE: (0.0, 1 / 255, 0.02), UNIT: (0.0, 1.0, 1.7), CENTRED: (-0.5, 1.0, 0.7), TF: (-1.0, 2.0, 1.3),
    TORCH: (-2.12, 4.76, 2.9), RAW: (0.0, 255.0, np.inf), CAFFE: (-123.7, 274.8, 165.0),
}  # fmt: skip

# Families that scale inside, behind a `preprocess_input` that does nothing: what their first convolution
# expects. EfficientNet has its mean and deviation only with the ImageNet weights.
_SCALED_INSIDE = {
    "efficientnetb0": (TORCH, UNIT), "efficientnetv2b0": (TORCH, TF),
    "mobilenetv3small": (TF,), "convnexttiny": (TORCH,),
}  # fmt: skip

# Black, white, grey, the pure colours and two more: they tell order, scale and shift of the channels.
_SHADES = [[0] * 3, [255] * 3, [128] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 90, 200], [230, 60, 5]]
COLOURS = np.array(_SHADES, dtype=np.float32)


def styles_of(x: NDArray) -> tuple[str, ...]:
    """Returns how the images of an array may have been prepared: keys of `STYLES`, the likeliest first.

    A style that holds the darkest and the brightest value is likely if the images fill a fifth of it, and
    certain if they reach its black. Bright or pale images can be of several.
    """
    few = x.ravel()[:: max(1, x.size // 200_000)].astype(np.float32)
    low, least, most = np.nanpercentile(few, 1), float(np.nanmin(x)), float(np.nanmax(x))
    if np.issubdtype(x.dtype, np.integer) or (low >= 0 and most > 1 and bool((few == np.round(few)).all())):
        return (RAW,)
    held = [s for s, (dark, span, top) in RANGES.items() if low >= dark - 0.1 * span and most <= top]
    filled = [s for s in held if most - least >= 0.2 * RANGES[s][1]]
    black = [s for s in filled if _reaches(least, float(low), *RANGES[s][:2])]
    return tuple(black[:1] or filled or held[:1] or [RAW])


def _reaches(least: float, low: float, dark: float, span: float) -> bool:
    """Whether values reach black. Resizing overshoots: then it is what a hundredth of the values is."""
    overshot = least < dark - 0.004 * span
    return abs(low - dark) <= 0.01 * span if overshot else least - dark <= 0.004 * span


def expected_by(family: str) -> list[Prepare]:
    """Returns what makes raw pixels fit the first convolution of a family; any one of them will do."""
    if family in _SCALED_INSIDE:
        return [STYLES[style] for style in _SCALED_INSIDE[family]]
    return [lambda x: np.array(backbones.preprocessing(family)(x.copy()))]


def greys_of(colours: NDArray) -> NDArray:
    """Returns colours without their colour, written three times."""
    return np.repeat(colours.mean(axis=-1, keepdims=True), 3, axis=-1)


def scales_inside(family: str) -> bool:
    """Returns whether a family has its preprocessing in its own layers."""
    return family in _SCALED_INSIDE
