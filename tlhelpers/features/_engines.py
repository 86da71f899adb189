"""The engines: what each is called, how exactly it computes, whether it is here, how it runs a network."""

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from tlhelpers.features import _graphs, _onnx, _openvino

_STEP = 12 * 96 * 96  # pixels: the maps of a step fit into a core's cache
_compiled: weakref.WeakKeyDictionary[keras.Model, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Engine:
    """One way to compute features.

    Attributes:
        name: As `extract` takes it.
        precision: Of its arithmetic: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        packages: On whose versions its results depend.
        check: Raises where it is not available.
        runner: From a network, and images that set the ranges of integers, to a function that runs it.
        pixels: In a step, where no batch size is given.
        per_core: Whether a step runs on one core, so that as many run at once as there are cores.
    """

    name: str
    precision: str
    packages: tuple[str, ...]
    check: Callable[[], None]
    runner: Callable[[_graphs.Network, _onnx.Images | None], _graphs.Run]
    pixels: int = _STEP
    per_core: bool = True

    def available(self) -> bool:
        """Returns whether it can run here."""
        try:
            self.check()
        except (ImportError, RuntimeError):
            return False
        return True

    def runs(self, network: _graphs.Network) -> bool:
        """Returns whether it is here and runs a network; what it exports for that is kept."""
        try:
            self.runner(network, None)
        except Exception as error:  # exporters fail in many ways; the next engine gives the same features
            logging.getLogger(__name__).info("%s: %s", self.name, error)
            return False
        return True


def _by_keras(network: _graphs.Network, calibration: _onnx.Images | None) -> _graphs.Run:
    """Returns the network, run by Keras, which would run on what it compiled when the network was another."""
    if _compiled.get(network.model) != network.key:
        network.model.make_predict_function(force=True)
        _compiled[network.model] = network.key
    return lambda images: np.asarray(network.model.predict_on_batch(images))


_OPENVINO = ("keras", "openvino")
ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnx", "float32", ("onnxruntime",), _onnx.check, _onnx.runner),
        Engine("onnx-int8", "int8", ("onnxruntime",), _onnx.check, _onnx.runner_int8),
        Engine("openvino", "float32", _OPENVINO, _openvino.check, _openvino.runner),
        Engine(
            "openvino-bf16",
            "bfloat16",
            _OPENVINO,
            _openvino.check_bf16,
            partial(_openvino.runner, precision="bf16"),
            pixels=4 * 224 * 224,  # fewer do not fill the tiles in which processors multiply bfloat16
        ),
        Engine(
            "openvino-int8",
            "int8",
            (*_OPENVINO, "onnxruntime"),
            _openvino.check_int8,
            _openvino.runner_int8,
        ),
        Engine("keras", "float32", ("keras", "backend"), lambda: None, _by_keras, 64 * 96 * 96, False),
    )
}
FASTEST = ("onnx", "openvino", "keras")  # in float32 on a processor, as benchmarks/engines.py found
