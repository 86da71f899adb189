"""A backbone as an ONNX graph, in full precision or in integers, and its run by ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.extras import extra
from tlhelpers.features import _graphs, _key

CALIBRATION_IMAGES = 160
Images = np.ndarray | data.ImageSequence


def check() -> None:
    """Looks whether ONNX Runtime is here.

    Raises:
        MissingExtraError: If it is not.
    """
    with extra("onnx"):
        import onnxruntime  # noqa: F401


def runner(network: _graphs.Network, calibration: Images | None) -> _graphs.Run:
    """Returns the network, run by ONNX Runtime in float32."""
    check()
    return _graphs.session(name(network), lambda: session(graph(network)))


def runner_int8(network: _graphs.Network, calibration: Images | None) -> _graphs.Run:
    """Returns the network, run by ONNX Runtime in integers of 8 bits."""
    check()
    return _graphs.session(name(network, calibration), lambda: session(quantized(network, calibration)))


def name(network: _graphs.Network, calibration: Images | None = None) -> str:
    """Returns the name of the graph, in float32 or quantized with images."""
    import onnxruntime

    images = "" if calibration is None else _key.digest(calibration)
    return network.graph_name(f"onnxruntime {onnxruntime.__version__}", images)


def graph(network: _graphs.Network) -> bytes:
    """Returns the network as an ONNX graph, exported on first use and checked against Keras.

    Raises:
        RuntimeError: If it cannot be exported.
    """
    own = name(network)

    def write(folder: Path) -> bytes:
        # The exporter takes tensors that a layer holds for further inputs, but arrays for constants.
        for layer in network.model.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        network.model.export(str(folder / "model.onnx"), format="onnx", verbose=False)
        return (folder / "model.onnx").read_bytes()

    return _graphs.kept(own, "onnx", network, lambda: _graphs.exported(network, own, "ONNX", write, session))


def quantized(network: _graphs.Network, calibration: Images | None) -> bytes:
    """Returns the graph in integers: static, QDQ, one scale per channel, activations of 8 bits, weights of 7.

    With weights of 8 bits, sums overflow on processors without VNNI, and the features are far off. The first
    two convolutions see the pixels with all their range, and stay in full precision.
    """
    assert calibration is not None  # `extract` has checked
    return _graphs.kept(name(network, calibration), "int8", network, lambda: _quantize(network, calibration))


def _quantize(network: _graphs.Network, calibration: Images) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    full = graph(network)
    pixels = onnx.load_from_string(full).graph.input[0].name
    chosen = np.linspace(0, len(calibration) - 1, min(len(calibration), CALIBRATION_IMAGES)).astype(int)
    images = data.resize(np.stack([np.asarray(calibration[int(i)]) for i in chosen]), network.image_size)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([images[i : i + 16].astype(np.float32) for i in range(0, len(images), 16)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {pixels: batch}

    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        source, prepared, quantized = (Path(folder, f"{part}.onnx") for part in ("full", "prepared", "int8"))
        source.write_bytes(full)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
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
        return quantized.read_bytes()


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


def session(graph: bytes) -> _graphs.Run:
    """Returns a function from images ``(m, s, s, 3)`` to what a graph computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # `extract` runs a step a core
    options.log_severity_level = 3
    runtime = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    pixels = runtime.get_inputs()[0].name
    return lambda images: runtime.run(None, {pixels: images.astype(np.float32)})[0]
