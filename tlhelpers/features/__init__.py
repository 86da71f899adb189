"""Features of a frozen backbone: computed once, at the speed of ONNX Runtime, and kept on disk."""

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import keras
import numpy as np

from tlhelpers import cache as disk
from tlhelpers import data
from tlhelpers.backbones import Backbone
from tlhelpers.features import _key, _onnx

ENGINES = ("auto", "onnx", "onnx-int8", "keras")
_FORMAT = 3  # enters every cache key: raise it when features computed by new code would differ from old ones
# Pixels in one step, where no batch size is given. ONNX Runtime works on a step a core, and is fastest where
# the maps of a step fit into the core's cache; larger steps of Keras are no faster.
_PIXELS = {"onnx": 12 * 96 * 96, "keras": 64 * 96 * 96}
_PART_BYTES = 1 << 23  # about so much is lost when a run is stopped


def extract(
    backbone: Backbone,
    x: np.ndarray | data.ImageSequence,
    taps: str | Sequence[str] = "last",
    *,
    engine: str = "auto",
    cache: bool = True,
    batch_size: int | None = None,
    pooled: bool = True,
    calibration: np.ndarray | data.ImageSequence | None = None,
) -> np.ndarray:
    """Computes the features of images, once.

    The images are resized to the backbone's input outside the network. ONNX Runtime works on as many steps at
    once as there are cores, one core each; Keras takes all cores for a step, and images are read
    ahead meanwhile. The result is kept in the cache folder under a key made of all that it depends on: the
    images, the backbone with its weights, the taps, the engine and the version of its library. Memory does
    not grow with the number of images, and a run that was stopped goes on where it was.

    Args:
        backbone: From `tlhelpers.backbones.load`.
        x: Images, uint8 RGB ``(n, h, w, 3)``, of any size: an array, or images that stay on disk, from
            ``data.load(..., lazy=True)``.
        taps: Where to listen. ``"last"``: the output of the backbone. ``"multi"``: several depths, see
            `multi_taps`. Or names of layers; ``"last"`` may be among them.
        engine: ``"onnx"`` (ONNX Runtime, the fastest in full precision on a CPU), ``"onnx-int8"`` (in
            integers of 8 bits; needs ``calibration``), ``"keras"``, or ``"auto"``: Keras where a GPU
            is in use, the extra ``onnx`` is not installed or the backbone cannot be exported, else ONNX
            Runtime.
        cache: Whether to read and write features in the cache. An exported graph is kept in any case.
        batch_size: Images in one step; ``None`` chooses by the size of the images.
        pooled: Whether maps are averaged over their positions. ``False`` takes one tap and returns its map in
            half precision.
        calibration: For ``"onnx-int8"``: training images of the target task, 160 of which set the range of
            each activation. Never test images.

    Returns:
        Features, float32 ``(n, d)``, those of the taps side by side; with ``pooled=False`` float16
        ``(n, h, w, c)``. From the cache, the array is mapped from its file and takes memory only where it is
        read.

    Raises:
        ValueError: If an argument is not as described.
        OSError: If the cache cannot be written, for example on a full disk.
        ImportError: If ONNX Runtime is asked for, and it or the exporter is not installed.

    Example:
        >>> from tlhelpers import backbones, data, features
        >>> ds = data.load("digits", n_train=8, n_val=4, n_test=4)
        >>> backbone = backbones.load(image_size=32)
        >>> features.extract(backbone, ds.x_train, engine="keras").shape
        (8, 1280)
    """
    _check_engine(engine, calibration)
    _check_images(x)
    names = _names(backbone, taps)
    network = tapped(backbone, names, pooled)
    row_shape = tuple(network.output.shape[1:])
    dtype = np.dtype(np.float32 if pooled else np.float16)
    if len(x) == 0:
        return np.zeros((0, *row_shape), dtype)
    known = f"{_FORMAT} {backbone.fingerprint()} {_places(backbone, names)} {pooled}"
    images = _key.digest(x)
    if calibration is not None and engine == "onnx-int8":
        images += _key.digest(calibration)

    def key(engine: str) -> str:
        return sha256(f"{known} {engine} {_key.versions(engine)} {images}".encode()).hexdigest()[:40]

    if engine == "auto":
        engine = "keras" if _on_accelerator() else "onnx"
        if engine == "onnx" and not (cache and disk.has(key("onnx"))):
            engine = "onnx" if _onnx.exportable(backbone, network, known) else "keras"

    pixels = _PIXELS["keras" if engine == "keras" else "onnx"]
    step = batch_size or max(1, min(256, pixels // backbone.image_size**2))

    def rows(done: int = 0) -> Iterator[np.ndarray]:
        run = _runner(engine, backbone, network, known, calibration)

        def read(start: int) -> np.ndarray:
            return data.resize(np.asarray(x[start : start + step]), backbone.image_size)

        starts = range(done, len(x), step)
        if engine == "keras":
            found: Iterator[np.ndarray] = map(run, _in_threads(read, starts))
        else:
            found = _in_threads(lambda start: run(read(start)), starts)
        with _progress(f"features of {backbone.name}", len(x), done) as advance:
            for part in found:
                yield _narrowed(part, dtype)
                advance(len(part))

    if not cache:
        return _joined(rows(), (len(x), *row_shape), dtype)
    name = key(engine)
    part_rows = max(1, _PART_BYTES // (math.prod(row_shape) * dtype.itemsize))
    with disk.lock(name):  # a second process waits, and finds the entry
        entry = disk.load(name)
        if entry is not None:
            return entry
        parts = disk.Parts(name, row_shape, dtype)
        for part in _gathered(rows(parts.done), part_rows):
            parts.append(part)
        where = taps if isinstance(taps, str) else "+".join(taps)
        return parts.finish(
            f"{backbone.name} at {backbone.image_size} pixels, {len(x):,} images, {engine}, taps {where}"
        )


def multi_taps(backbone: Backbone) -> tuple[str, ...]:
    """Returns the taps of ``"multi"``: the last layer of each resolution, and the output.

    Counted are the resolutions from a fourth of the input's side down to twice the last map's. Before it
    halves its resolution, a network has done all it does at that scale; so these layers sum up a depth each.
    The idea of using features of many depths is that of Head2Toe (Evci et al., 2022).

    Example:
        >>> from tlhelpers import backbones, features
        >>> features.multi_taps(backbones.load(image_size=32))[-1]
        'last'
    """
    last_of: dict[int, str] = {}
    for layer in backbone.model.layers:
        shape: tuple[int | None, ...] = getattr(layer.output, "shape", ())
        if len(shape) == 4 and shape[1] and not isinstance(layer, keras.layers.ZeroPadding2D):
            last_of[round(math.log2(backbone.image_size / shape[1]))] = layer.name
    depths = sorted(last_of)
    return (*(last_of[depth] for depth in depths[:-1] if depth >= 2), "last")


def _check_engine(engine: str, calibration: np.ndarray | data.ImageSequence | None) -> None:
    if engine not in ENGINES:
        raise ValueError(f"There is no engine {engine!r}. Choose one of: {', '.join(map(repr, ENGINES))}.")
    if engine == "onnx-int8":
        if calibration is None:
            raise ValueError(
                "The engine 'onnx-int8' needs calibration=...: training images of the target task (x_train), "
                "from which it takes the range of each activation."
            )
        _check_images(calibration)
        if len(calibration) == 0:
            raise ValueError(
                "calibration holds no images. Pass training images of the target task (x_train)."
            )


def _check_images(x: Any) -> None:
    if isinstance(x, data.ImageSequence):
        return
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] != 3:
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(
            f"extract takes uint8 RGB images of shape (n, h, w, 3), values 0 to 255; this is {found}."
        )


def _names(backbone: Backbone, taps: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(taps, str):
        if taps not in ("last", "multi"):
            raise ValueError(f"taps is 'last', 'multi' or a list of layer names, not {taps!r}.")
        return ("last",) if taps == "last" else multi_taps(backbone)
    if len(taps) == 0:
        raise ValueError("There are no taps in this list. Write 'last', 'multi' or names of layers.")
    layers = {layer.name for layer in backbone.model.layers}
    unknown = [name for name in taps if name != "last" and name not in layers]
    if unknown:
        raise ValueError(
            f"{backbone.name} has no layer {', '.join(map(repr, unknown))}. "
            "Its layers: [layer.name for layer in backbone.model.layers]."
        )
    return tuple(taps)


def _places(backbone: Backbone, names: tuple[str, ...]) -> list[int]:
    """Returns the positions of taps: Keras may number a layer otherwise when the backbone is made again."""
    position = {layer.name: i for i, layer in enumerate(backbone.model.layers)} | {"last": -1}
    return [position[name] for name in names]


def tapped(backbone: Backbone, names: tuple[str, ...], pooled: bool) -> keras.Model:
    """Returns the network from images to the outputs of the taps; it shares the backbone's weights.

    Example:
        >>> from tlhelpers import backbones, features
        >>> backbone = backbones.load(image_size=32)
        >>> features.tapped(backbone, ("block2a_project_bn", "last"), pooled=True).output_shape
        (None, 1304)
    """
    model = backbone.model
    if names == ("last",) and pooled:
        return model
    outputs = [model.output if name == "last" else model.get_layer(name).output for name in names]
    if not pooled:
        if len(outputs) > 1:
            raise ValueError(f"pooled=False takes one tap; these are {len(outputs)}.")
        return keras.Model(model.input, outputs[0], name=model.name)
    pool = keras.layers.GlobalAveragePooling2D
    flat = [pool(name=f"tap{i}")(t) if len(t.shape) == 4 else t for i, t in enumerate(outputs)]
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate(name="taps")(flat)
    return keras.Model(model.input, joined, name=model.name)


def _on_accelerator() -> bool:
    """Whether Keras computes on a GPU or TPU."""
    if keras.backend.backend() == "torch":  # whose devices Keras does not list
        return keras.ops.zeros(()).device.type != "cpu"
    return any(not device.lower().startswith("cpu") for device in keras.distribution.list_devices())


def _in_threads(function: Callable[[int], np.ndarray], items: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields ``function(item)`` in the order of the items; a thread a core works, and few results wait."""
    cores = _n_cores()
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _n_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _narrowed(part: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype == np.float16 and np.abs(part).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(
            "This map has values above 65,504, which half precision cannot hold. Choose a layer behind a "
            "normalisation or a bounded activation."
        )
    return part.astype(dtype, copy=False)


def _joined(parts: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns parts as one array, without holding them twice."""
    found = np.empty(shape, dtype)
    done = 0
    for part in parts:
        found[done : done + len(part)] = part
        done += len(part)
    return found


def _gathered(batches: Iterator[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Yields the same rows in larger pieces of at least ``n_rows`` rows, but the last."""
    held: list[np.ndarray] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= n_rows:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


@contextmanager
def _progress(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar for work of more than a few seconds, on a terminal alone."""
    if total < 2000 or os.environ.get("CI") or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console  # Keras needs it, too
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _runner(
    engine: str,
    backbone: Backbone,
    network: keras.Model,
    known: str,
    calibration: np.ndarray | data.ImageSequence | None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from uint8 images ``(m, s, s, 3)`` to features."""
    if engine == "keras":
        return lambda images: np.asarray(network.predict_on_batch(images))
    path = _onnx.graph(backbone, network, known)
    if engine == "onnx-int8":
        assert calibration is not None
        path = _onnx.quantized(path, backbone, known, calibration)
    return _onnx.session(path)
