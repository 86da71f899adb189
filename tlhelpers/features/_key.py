"""What features depend on, as text: the key under which they are kept."""

import importlib.metadata
import sys
from hashlib import sha256

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.backbones import Backbone
from tlhelpers.features._graphs import Network

FORMAT = 4  # enters every key: raise it when features computed by new code would differ from old ones


def network(
    backbone: Backbone, model: keras.Model, places: list[int], pooled: bool, on_disk: bool
) -> Network:
    """Returns what is to be computed, with a key that follows from what it computes now.

    The key holds the description of the layers, with their weights, arrays and code, and what Keras makes of
    two images, step by step, without anything that it has compiled before. The description sees what the two
    images do not pass through; the two images see what no description has, such as a function of Keras that
    was exchanged. Another kind of processor rounds otherwise, and has another key.

    Args:
        backbone: From `backbones.load`.
        model: From its input to the taps.
        places: Positions of the taps.
        pooled: Whether maps are averaged.
        on_disk: Whether exported graphs are kept on disk.
    """
    side = backbone.image_size
    probe = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    expected = keras.ops.convert_to_numpy(model(probe.astype(np.float32), training=False))
    text = f"{FORMAT} {backbone.fingerprint()} {places} {pooled} {expected.dtype} {expected.shape}"
    key = sha256(text.encode() + np.ascontiguousarray(expected).tobytes()).hexdigest()
    return Network(backbone.name, side, model, key, probe, expected, on_disk)


def digest(x: np.ndarray | data.ImageSequence) -> str:
    """Returns a digest of images."""
    if isinstance(x, data.ImageSequence):
        return x.digest()
    found = sha256(str(x.shape).encode())
    for start in range(0, len(x), 256):  # in slices: a view may have to be copied
        found.update(np.ascontiguousarray(x[start : start + 256]).data)
    return found.hexdigest()


def versions(packages: tuple[str, ...]) -> str:
    """Returns the names and versions of what computes; ``"backend"`` stands for that of Keras."""
    found = []
    for package in packages:
        name = keras.backend.backend() if package == "backend" else package
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # such as tensorflow, installed as tensorflow-cpu
            found.append(f"{name} {getattr(sys.modules.get(name), '__version__', '')}")
    return " ".join(found)
