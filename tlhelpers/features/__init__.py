"""Features of a frozen backbone: computed once, at the speed of the fastest engine, and kept on disk."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

import keras
import numpy as np

from tlhelpers import cache as disk
from tlhelpers import data
from tlhelpers.backbones import Backbone
from tlhelpers.features import _key
from tlhelpers.features._difference import Difference, compared, sample
from tlhelpers.features._engines import ENGINES as _ENGINES
from tlhelpers.features._engines import FASTEST
from tlhelpers.features._exported import graph
from tlhelpers.features._graphs import Network, Run
from tlhelpers.features._steps import gathered, in_threads, joined, narrowed, progress

__all__ = ["ENGINES", "Difference", "available", "difference", "extract", "graph", "multi_taps", "tapped"]

ENGINES = ("auto", *_ENGINES)
_PART_BYTES = 1 << 23  # about so much is lost when a run is stopped
_FULL = "float32"


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
    labels: np.ndarray | None = None,
    compare: bool = True,
) -> np.ndarray:
    """Computes the features of images, once.

    The images are resized to the backbone's input outside the network. ONNX Runtime and OpenVINO work on as
    many steps at once as there are cores: a core reads the images of its step, and computes. Keras takes all
    cores for a step, and images are read ahead meanwhile. The result is kept in the cache folder under a key
    made of all that it depends on, at the moment of the call: the images, the backbone with its layers, code
    and weights, the taps, the engine and the version of its library. Memory does not grow with the number of
    images, and a run that was stopped goes on where it was.

    The engines in float32 differ by less than 1e-4 of the largest feature. Where a lower precision is asked
    for, what it changes is measured on some of the images, and printed: see `difference`.

    Args:
        backbone: From `tlhelpers.backbones.load`.
        x: Images, uint8 RGB ``(n, h, w, 3)``, of any size: an array, or images that stay on disk, from
            ``data.load(..., lazy=True)``.
        taps: Where to listen. ``"last"``: the output of the backbone. ``"multi"``: several depths, see
            `multi_taps`. Or names of layers; ``"last"`` may be among them.
        engine: In float32: ``"onnx"`` (ONNX Runtime), ``"openvino"``, ``"keras"``, or ``"auto"``: Keras where
            a GPU is in use, else the first of these that is installed and runs the backbone. In a lower
            precision, by name alone: ``"openvino-bf16"`` (bfloat16, on a processor that has it),
            ``"onnx-int8"`` and ``"openvino-int8"`` (integers of 8 bits; they need ``calibration``).
        cache: Whether to read and write the cache folder. ``False`` touches no file there.
        batch_size: Images in one step; ``None`` chooses by the size of the images.
        pooled: Whether maps are averaged over their positions. ``False`` takes one tap and returns its map in
            half precision.
        calibration: For integers: training images of the target task, 160 of which set the range of
            each activation. Never test images.
        labels: Classes of ``x``, ``(n,)``. With them, the accuracy that a lower precision costs is measured.
        compare: Whether what a lower precision changes is measured and printed.

    Returns:
        Features, float32 ``(n, d)``, those of the taps side by side; with ``pooled=False`` float16
        ``(n, h, w, c)``. From the cache, the array is mapped from its file and takes memory only where it is
        read.

    Raises:
        ValueError: If an argument is not as described.
        OSError: If the cache cannot be written, for example on a full disk.
        ImportError: If an engine is asked for, and it or its exporter is not installed.
        RuntimeError: If the engine that is asked for cannot run the backbone, the processor does not compute
            in the precision, or ``x`` changed meanwhile.
        DataError: If an image cannot be read, or its file changed meanwhile.

    Example:
        >>> from tlhelpers import backbones, data, features
        >>> ds = data.load("digits", n_train=8, n_val=4, n_test=4)
        >>> backbone = backbones.load(image_size=32)
        >>> features.extract(backbone, ds.x_train, engine="keras").shape
        (8, 1280)
    """
    options: dict[str, Any] = {"cache": cache, "batch_size": batch_size, "pooled": pooled}
    found = _features(backbone, x, taps, engine, calibration=calibration, **options)
    if compare and engine != "auto" and _ENGINES[engine].precision != _FULL and len(x):
        chosen = sample(len(x), labels)
        full = _features(backbone, x[chosen], taps, "auto", **options)
        print(compared(full, found[chosen], None if labels is None else labels[chosen], engine))
    return found


def difference(
    backbone: Backbone,
    x: np.ndarray | data.ImageSequence,
    engine: str,
    taps: str | Sequence[str] = "last",
    *,
    labels: np.ndarray | None = None,
    calibration: np.ndarray | data.ImageSequence | None = None,
    cache: bool = True,
) -> Difference:
    """Measures what an engine's precision changes, on a sample of the images.

    Args:
        backbone: As for `extract`.
        x: As for `extract`. Taken are 64 images, or 512 where there are labels, evenly spread.
        engine: As for `extract`, by name.
        taps: As for `extract`.
        labels: Classes of ``x``, ``(n,)``.
        calibration: As for `extract`.
        cache: As for `extract`.

    Raises:
        ValueError: If an argument is not as described, or there are no images.

    Example:
        >>> from tlhelpers import backbones, data, features
        >>> ds = data.load("digits", n_train=8, n_val=4, n_test=4)
        >>> round(features.difference(backbones.load(image_size=32), ds.x_train, "keras").cosine, 3)
        1.0
    """
    if engine == "auto" or len(x) == 0:
        raise ValueError("difference compares an engine, by its name, with float32, on images.")
    chosen = sample(len(x), labels)
    lower = _features(backbone, x[chosen], taps, engine, calibration=calibration, cache=cache)
    full = _features(backbone, x[chosen], taps, "auto", cache=cache)
    return compared(full, lower, None if labels is None else labels[chosen], engine)


def available() -> list[str]:
    """Returns the engines that can run here, by name.

    Example:
        >>> from tlhelpers import features
        >>> "keras" in features.available()
        True
    """
    return [name for name, engine in _ENGINES.items() if engine.available()]


def _features(
    backbone: Backbone,
    x: np.ndarray | data.ImageSequence,
    taps: str | Sequence[str],
    engine: str,
    *,
    cache: bool,
    batch_size: int | None = None,
    pooled: bool = True,
    calibration: np.ndarray | data.ImageSequence | None = None,
) -> np.ndarray:
    _check_engine(engine, calibration)
    _check_images(x)
    names = _names(backbone, taps)
    model = tapped(backbone, names, pooled=pooled)
    row_shape = tuple(model.output.shape[1:])
    dtype = np.dtype(np.float32 if pooled else np.float16)
    if len(x) == 0:
        return np.zeros((0, *row_shape), dtype)
    network = _key.network(backbone, model, _places(backbone, names), pooled, on_disk=cache)
    images = _key.digest(x)
    if not engine.endswith("int8"):
        calibration = None
    ranges = "" if calibration is None else _key.digest(calibration)

    def key(engine: str) -> str:
        depends = f"{engine} {_key.versions(_ENGINES[engine].packages)} {images}{ranges}"
        return sha256(f"{network.key} {depends}".encode()).hexdigest()[:40]

    if engine == "auto":
        there = [name for name in FASTEST if cache and disk.has(key(name))]
        engine = _fastest(network, there)
    step = batch_size or max(1, min(256, _ENGINES[engine].pixels // backbone.image_size**2))

    def rows(done: int = 0) -> Iterator[np.ndarray]:
        with ExitStack() as unchanged:
            for sequence in (x, calibration):
                if isinstance(sequence, data.ImageSequence):
                    unchanged.enter_context(sequence.unchanged())
            run = _runner(engine, network, calibration)

            def read(start: int) -> np.ndarray:
                return data.resize(np.asarray(x[start : start + step]), backbone.image_size)

            starts = range(done, len(x), step)
            if _ENGINES[engine].per_core:
                found = in_threads(lambda start: run(read(start)), starts)
            else:
                found = map(run, in_threads(read, starts))
            with progress(f"features of {backbone.name}", len(x), done) as advance:
                for part in found:
                    yield narrowed(part, dtype)
                    advance(len(part))
        if isinstance(x, np.ndarray) and _key.digest(x) != images:
            raise RuntimeError("The images x changed while their features were computed. Run again.")

    if not cache:
        return joined(rows(), (len(x), *row_shape), dtype)
    name = key(engine)
    part_rows = max(1, _PART_BYTES // (math.prod(row_shape) * dtype.itemsize))
    with disk.lock(name):  # a second process waits, and finds the entry
        entry = disk.load(name)
        if entry is not None:
            return entry
        parts = disk.Parts(name, row_shape, dtype)
        try:
            for part in gathered(rows(parts.done), part_rows):
                parts.append(part)
        except RuntimeError:
            if isinstance(x, np.ndarray) and _key.digest(x) != images:
                parts.discard()
            raise
        where = taps if isinstance(taps, str) else "+".join(taps)
        return parts.finish(
            f"{backbone.name} at {backbone.image_size} pixels, {len(x):,} images, {engine}, taps {where}"
        )


def _fastest(network: Network, there: list[str]) -> str:
    """Returns the fastest engine in float32 that is here and runs a network, or whose features are there."""
    if _on_accelerator():
        return "keras"
    for name in FASTEST:
        if _ENGINES[name].available() and (name in there or _ENGINES[name].runs(network)):
            return name
    raise AssertionError("Keras runs what it has made")


def _runner(engine: str, network: Network, calibration: np.ndarray | data.ImageSequence | None) -> Run:
    """Returns a function from uint8 images ``(m, s, s, 3)`` to features."""
    return _ENGINES[engine].runner(network, calibration)


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
    if engine.endswith("int8"):
        if calibration is None:
            raise ValueError(
                f"The engine {engine!r} needs calibration=...: training images of the target task (x_train), "
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


def tapped(backbone: Backbone, taps: str | Sequence[str], *, pooled: bool) -> keras.Model:
    """Returns the network from images to the outputs of the taps; it shares the backbone's weights.

    Args:
        backbone: As for `extract`.
        taps: As for `extract`.
        pooled: As for `extract`.

    Raises:
        ValueError: As `extract`.

    Example:
        >>> from tlhelpers import backbones, features
        >>> backbone = backbones.load(image_size=32)
        >>> features.tapped(backbone, ("block2a_project_bn", "last"), pooled=True).output_shape
        (None, 1304)
    """
    model, names = backbone.model, _names(backbone, taps)
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
