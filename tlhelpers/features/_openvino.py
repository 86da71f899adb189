"""A backbone as an OpenVINO graph, exported by Keras itself, and its run in float32, bfloat16 or integers."""

import io
import threading
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from joblib import cpu_count

from tlhelpers.extras import extra
from tlhelpers.features import _graphs, _onnx, _processor

EXPORTS_SINCE = (3, 11)  # of Keras
BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}  # as processors call it


def check() -> None:
    """Looks whether OpenVINO is here, and whether Keras can export to it.

    Raises:
        MissingExtraError: If it is not here.
        RuntimeError: If Keras is too old.
    """
    with extra("openvino"):
        import openvino  # noqa: F401
    if tuple(map(int, keras.__version__.split(".")[:2])) < EXPORTS_SINCE:
        raise RuntimeError(
            f"Keras {keras.__version__} cannot export to OpenVINO; {'.'.join(map(str, EXPORTS_SINCE))} and "
            "later can. Run: pip install --upgrade keras"
        )


def check_bf16() -> None:
    """Looks whether OpenVINO is here, and whether the processor computes in bfloat16.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        RuntimeError: If Keras is too old, or the processor does not: OpenVINO would imitate it, more slowly
            than in float32.
    """
    check()
    has = _processor.instructions()
    if has is None:  # no list of them on this system: OpenVINO knows
        has = {name.lower() for name in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    if not BFLOAT16 & has:
        telling = sorted(name for name in has if name.startswith(("avx", "amx", "sse4", "asimd", "sve")))
        raise RuntimeError(
            f"The engine 'openvino-bf16' needs a processor with avx512_bf16 or amx_bf16. This one "
            f"({_processor.name()}) has {', '.join(telling) or 'none of their kind'}. "
            "Take engine='openvino' or engine='auto'."
        )


def check_int8() -> None:
    """Looks whether OpenVINO is here, and ONNX, whose quantized graph it runs.

    Raises:
        MissingExtraError: If one of them is not.
    """
    check()
    _onnx.check()


def runner(network: _graphs.Network, calibration: _onnx.Images | None, precision: str = "f32") -> _graphs.Run:
    """Returns the network, run by OpenVINO."""
    check_bf16() if precision == "bf16" else check()
    name = _name(network)

    def make() -> _graphs.Run:
        found = _graphs.kept(
            name,
            "openvino",
            network,
            lambda: _graphs.exported(network, name, "OpenVINO", partial(_write, network), session),
        )
        return session(found, precision)

    return _graphs.session(f"{name} {precision}", make)


def runner_int8(network: _graphs.Network, calibration: _onnx.Images | None) -> _graphs.Run:
    """Returns the quantized graph of ONNX, run by OpenVINO."""
    check_int8()
    name = f"{_name(network)} {_onnx.name(network, calibration)}"
    return _graphs.session(name, lambda: session(_onnx.quantized(network, calibration)))


def _core() -> Any:
    import openvino

    return openvino.Core()


def _name(network: _graphs.Network) -> str:
    import openvino

    return network.graph_name(f"openvino {openvino.__version__}")


def _write(network: _graphs.Network, folder: Path) -> bytes:
    """Returns the two files that Keras writes, in one."""
    network.model.export(str(folder / "model.xml"), format="openvino", verbose=False)
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as both:
        for name in ("model.xml", "model.bin"):
            both.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
    return found.getvalue()


def session(graph: bytes, precision: str = "f32") -> _graphs.Run:
    """Returns a function from images, uint8 ``(m, s, s, 3)``, to what a graph computes.

    Each thread that calls it has a request of its own, and each request runs on one core.
    """
    import openvino

    core = _core()
    if zipfile.is_zipfile(io.BytesIO(graph)):
        with zipfile.ZipFile(io.BytesIO(graph)) as both:
            model = core.read_model(both.read("model.xml"), both.read("model.bin"))
    else:
        model = core.read_model(graph)
    # Pixels become float32 in the graph: no copy of four times their size.
    prepared = openvino.preprocess.PrePostProcessor(model)
    prepared.input().tensor().set_element_type(openvino.Type.u8)
    cores = cpu_count()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        "ENABLE_CPU_PINNING": False,  # two programs would hold the same cores
    }
    compiled = core.compile_model(prepared.build(), "CPU", settings)
    own = threading.local()

    def run(images: np.ndarray) -> np.ndarray:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return own.request.infer([np.ascontiguousarray(images)], share_inputs=True)[0]

    return run
