"""A network of two blocks, images of noise, and a look at what moved: for tests of training."""

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.backbones import Backbone

SIZE = 8


def make_backbone(blocks: int = 2, filters: int = 4) -> Backbone:
    """A backbone with batch normalisation, as pretrained ones have."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name="preprocess")(inputs)
    for block in (f"block{k + 1}" for k in range(blocks)):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", name=f"{block}_conv")(x)
        x = keras.layers.BatchNormalization(momentum=0.5, name=f"{block}_bn")(x)
        x = keras.layers.ReLU(name=f"{block}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return Backbone("tiny", SIZE, keras.Model(inputs, x, name="tiny"), "random")


def images(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def make_dataset(size: int = SIZE) -> data.Dataset:
    """24 training and 6 validation images. There are no test images: nothing that trains may look at them."""
    y = np.arange(24) % 3
    return data.Dataset(
        images(24, size), y, images(6, size), np.arange(6) % 3, None, None, ("a", "b", "c"), "noise"
    )


def weights(model: keras.Model, part: str = "") -> dict[str, np.ndarray]:
    """Copies of the weights whose path holds ``part``."""
    return {w.path: np.array(w) for w in model.weights if part in w.path}


def moved(before: dict[str, np.ndarray], model: keras.Model) -> set[str]:
    """The paths of the weights that are not exactly what they were."""
    now = weights(model)
    return {path for path, value in before.items() if not np.array_equal(value, now[path])}
