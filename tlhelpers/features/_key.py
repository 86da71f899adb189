"""What features depend on, as text: the key under which they are kept."""

import importlib.metadata
import sys
from hashlib import sha256

import keras
import numpy as np

from tlhelpers import data


def digest(x: np.ndarray | data.ImageSequence) -> str:
    """Returns a digest of images."""
    if isinstance(x, data.ImageSequence):
        return x.digest()
    found = sha256(str(x.shape).encode())
    for start in range(0, len(x), 256):  # in slices: a view may have to be copied
        found.update(np.ascontiguousarray(x[start : start + 256]).data)
    return found.hexdigest()


def versions(engine: str) -> str:
    """Returns the names and versions of what computes with an engine."""
    library = "onnxruntime" if engine.startswith("onnx") else keras.backend.backend()
    above = "" if engine.startswith("onnx") else f"keras {keras.__version__} "
    try:
        return f"{above}{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:  # such as tensorflow, installed as tensorflow-cpu
        return f"{above}{library} {getattr(sys.modules.get(library), '__version__', '')}"
