"""Features of a frozen backbone: computed once, by ONNX Runtime, and kept on disk."""

import logging
import os
import tempfile
import warnings
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.backbones import Backbone
from tlhelpers.paths import atomic_path, cache_dir

BATCH_SIZE = 64
_FORMAT = 1  # enters every cache key: raise it when features computed by new code would differ from old ones
_GRAPHS: dict[str, Path] = {}


def extract(
    backbone: Backbone, x: np.ndarray, engine: str = "auto", cache: bool = True, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Computes the pooled features of images, once.

    The images are resized to the backbone's input outside the network. The result is kept in the cache folder
    under a key made of the images, the backbone with its weights, and the engine; a change in any of them
    computes anew.

    Args:
        backbone: From `tlhelpers.backbones.load`.
        x: Images, uint8 RGB ``(n, h, w, 3)``, of any size.
        engine: ``"onnx"`` (ONNX Runtime, the faster one on a CPU), ``"keras"`` (``predict``), or ``"auto"``:
            Keras where a GPU is in use or the backbone cannot be exported, else ONNX Runtime.
        cache: Whether to read and write the cache.
        batch_size: Images in one step.

    Returns:
        Features, float32 ``(n, n_features)``.

    Raises:
        ValueError: If the images or the engine are not as described.
    """
    if engine not in ("auto", "onnx", "keras"):
        raise ValueError(f"There is no engine {engine!r}. Choose 'auto', 'onnx' or 'keras'.")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] != 3:
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(
            f"extract takes uint8 RGB images of shape (n, h, w, 3), values 0 to 255; this is {found}."
        )
    if len(x) == 0:
        return np.zeros((0, backbone.n_features), np.float32)
    fingerprint = backbone.fingerprint()
    if engine == "auto":
        engine = "keras" if _on_accelerator() or not _exportable(backbone, fingerprint) else "onnx"
    digest = sha256(f"{_FORMAT} {fingerprint} {engine} {x.shape}".encode())
    digest.update(np.ascontiguousarray(x).data)
    path = cache_dir() / "features" / f"{digest.hexdigest()}.npy"
    if cache and path.is_file():
        return np.load(path, allow_pickle=False)

    images = data.resize(x, backbone.image_size)
    if engine == "keras":
        features = np.asarray(backbone.model.predict(images, batch_size=batch_size, verbose=0), np.float32)
    else:
        features = _run_onnx(_graph(backbone, fingerprint), images, batch_size)
    if cache:
        with atomic_path(path) as part, open(part, "wb") as file:
            np.save(file, features)
    return features


def _on_accelerator() -> bool:
    """Whether Keras computes on a GPU or TPU."""
    return any(not device.lower().startswith("cpu") for device in keras.distribution.list_devices())


def _exportable(backbone: Backbone, fingerprint: str) -> bool:
    try:
        _graph(backbone, fingerprint)
    except Exception as error:  # exporters fail in many ways; Keras gives the same features, more slowly
        logging.getLogger(__name__).info(
            "%s is not exported to ONNX (%s); Keras is used.", backbone.name, error
        )
        return False
    return True


def _graph(backbone: Backbone, fingerprint: str) -> Path:
    """Returns the backbone as an ONNX file, exported on first use and checked against Keras on two images."""
    if fingerprint in _GRAPHS and _GRAPHS[fingerprint].is_file():
        return _GRAPHS[fingerprint]
    path = cache_dir() / "onnx" / f"{backbone.name}-{fingerprint}.onnx"
    if not path.is_file():
        probe = np.random.default_rng(0).integers(0, 256, (2, backbone.image_size, backbone.image_size, 3))
        images = probe.astype(np.uint8)
        expected = np.asarray(backbone.model.predict(images, verbose=0))
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder, "model.onnx")
            with warnings.catch_warnings():  # the converter asks numpy for a name that it deprecates
                warnings.simplefilter("ignore", FutureWarning)
                backbone.model.export(str(exported), format="onnx", verbose=False)
            found = _run_onnx(exported, images, 2)
            error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)
            if not error < 1e-4:
                raise RuntimeError(
                    f"the exported graph differs from Keras by {error:.1e}, relative to the largest feature"
                )
            with atomic_path(path) as part:
                part.write_bytes(exported.read_bytes())
    _GRAPHS[fingerprint] = path
    return path


def _run_onnx(path: Path, images: np.ndarray, batch_size: int) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = (images[i : i + batch_size].astype(np.float32) for i in range(0, len(images), batch_size))
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
