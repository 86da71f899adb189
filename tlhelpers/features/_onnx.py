"""A backbone as an ONNX graph, in full precision or in integers, and its run by ONNX Runtime."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.backbones import Backbone
from tlhelpers.extras import extra
from tlhelpers.features import _key
from tlhelpers.paths import atomic_path, cache_dir

CALIBRATION_IMAGES = 160
EXPORTERS = ("keras", "tf2onnx", "onnxruntime", "tensorflow")  # another version may export what failed
FAILURE_LASTS = 24 * 3600  # seconds: what stood in the way may be gone tomorrow


def exportable(backbone: Backbone, network: keras.Model, known: str) -> bool:
    """Returns whether a network can be exported; the graph is kept."""
    try:
        graph(backbone, network, known)
    except Exception as error:  # exporters fail in many ways; Keras gives the same features, more slowly
        logging.getLogger(__name__).info("%s is not exported to ONNX: %s", backbone.name, error)
        return False
    return True


def _graph_name(backbone: Backbone, known: str) -> str:
    with extra("onnx"):  # whatever has to do with a graph comes by here first
        import onnxruntime
    versions = f"{keras.__version__} onnxruntime {onnxruntime.__version__}"
    digest = sha256(f"{known} {versions}".encode()).hexdigest()[:24]
    return f"{backbone.name}-{backbone.image_size}-{digest}"


def _keep(graph: bytes, name: str, kind: str) -> Path:
    """Writes a graph, its checksum in its name."""
    path = cache_dir() / "onnx" / f"{name}.{sha256(graph).hexdigest()[:16]}.{kind}"
    with atomic_path(path) as part:
        part.write_bytes(graph)
    return path


def _kept(name: str, kind: str) -> Path | None:
    """Returns the file of a graph, if there is one that was not altered; an altered one is removed."""
    for path in sorted((cache_dir() / "onnx").glob(f"{name}.*.{kind}")):
        if path.name == f"{name}.{sha256(path.read_bytes()).hexdigest()[:16]}.{kind}":
            return path
        logging.getLogger(__name__).warning("%s was altered and is made again.", path)
        path.unlink(missing_ok=True)
    return None


def graph(backbone: Backbone, network: keras.Model, known: str) -> Path:
    """Returns the network as an ONNX file, exported on first use and checked against Keras on two images.

    Raises:
        RuntimeError: If it cannot be exported, or the graph does not compute what Keras computes. That is
            noted on disk, so that it is tried once a day, and again with other versions of the exporters.
    """
    name = _graph_name(backbone, known)
    if (path := _kept(name, "onnx")) is not None:
        return path
    failure = cache_dir() / "onnx" / f"{name}.failed"
    if (known_failure := _failed(failure)) is not None:
        raise RuntimeError(known_failure)
    # The exporter takes tensors that a layer holds for further inputs of the graph, but arrays for constants.
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    shape = (2, backbone.image_size, backbone.image_size, 3)
    probe = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = np.asarray(network.predict_on_batch(probe))
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "model.onnx")
        try:
            with warnings.catch_warnings():  # the converter asks numpy for a name that it deprecates
                warnings.simplefilter("ignore", FutureWarning)
                network.export(str(exported), format="onnx", verbose=False)
            error = np.abs(session(exported)(probe) - expected).max() / max(np.abs(expected).max(), 1e-12)
            if not error < 1e-4:
                raise RuntimeError(f"the graph differs from Keras by {error:.1e} of the largest feature")
        except (OSError, MemoryError, ImportError):  # of this machine at this moment, not of the network
            raise
        except Exception as error:
            message = f"{backbone.name} cannot be exported to ONNX: {type(error).__name__}: {error}"[:500]
            if _lacks_package(error):
                raise RuntimeError(message) from error
            message += f" To try again, run tlhelpers cache clear, or delete {failure}."
            with atomic_path(failure) as part:
                part.write_text(f"{_versions()}\n{message}", encoding="utf-8")
            raise RuntimeError(message) from error
        return _keep(exported.read_bytes(), name, "onnx")


def _versions() -> str:
    found = []
    for package in EXPORTERS:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # tensorflow has several names; another exporter needs none
            found.append(f"{package} none")
    return ", ".join(found)


def _failed(note: Path) -> str | None:
    """Returns what a note says, if it is of these versions and of the last day."""
    if not note.is_file() or not 0 <= time.time() - note.stat().st_mtime < FAILURE_LASTS:
        return None
    versions, _, message = note.read_text(encoding="utf-8", errors="replace").partition("\n")
    return message if versions == _versions() else None


def _lacks_package(error: BaseException | None) -> bool:
    """Returns whether an error comes from a package that is not there: installing it is the remedy."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error is not None


def quantized(
    path: Path, backbone: Backbone, known: str, calibration: np.ndarray | data.ImageSequence
) -> Path:
    """Returns the graph in integers: static, QDQ, one scale per channel, activations of 8 bits, weights of 7.

    With weights of 8 bits, sums overflow on processors without VNNI, and the features are far off. The first
    two convolutions see the pixels with all their range, and stay in full precision.
    """
    target = _graph_name(backbone, f"{known} {_key.digest(calibration)}")
    if (found := _kept(target, "int8")) is not None:
        return found
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = _input_name(path)
    chosen = np.linspace(0, len(calibration) - 1, min(len(calibration), CALIBRATION_IMAGES)).astype(int)
    images = data.resize(np.stack([np.asarray(calibration[int(i)]) for i in chosen]), backbone.image_size)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([images[i : i + 16].astype(np.float32) for i in range(0, len(images), 16)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            reduce_range=True,
            nodes_to_exclude=_first_nodes(prepared),
        )
        return _keep(quantized.read_bytes(), target, "int8")


def _first_nodes(path: Path) -> list[str]:
    """Returns the names of the steps up to the second convolution, where there are more than two."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    places = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    return [node.name for node in nodes[: places[1] + 1] if node.name] if len(places) > 2 else []


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """ONNX Runtime's quantizer talks through the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _input_name(path: Path) -> str:
    import onnx

    return onnx.load(str(path), load_external_data=False).graph.input[0].name


def session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images ``(m, s, s, 3)`` to what the graph in a file computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # `extract` runs a step a core
    options.log_severity_level = 3
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = runtime.get_inputs()[0].name
    return lambda images: runtime.run(None, {name: images.astype(np.float32)})[0]
