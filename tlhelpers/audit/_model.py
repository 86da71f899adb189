"""What a Keras model looks like: the pretrained base, its family, its images, its weights."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tlhelpers.audit._keras import layers_inside

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
NORMALISATION = keras.layers.BatchNormalization
OF_IMAGES = (*CONVOLUTIONS, NORMALISATION, keras.layers.LayerNormalization)

# How the networks of keras.applications begin: their first layers with weights, normalization left out.
# C, D, S: convolution, depthwise, separable; F: dense; then the kernel, s2 for a stride, b for a bias.
# A name that `backbones.preprocessing` knows stands for all that are prepared alike.
_BEGINNINGS = {
    "C3b C3b C3b C3b C3b C3b C3b": "vgg16",
    "C7s2b C1b C3b C1b C1b C1b C3b": "resnet50",
    "C7s2b C1 C3 C1b C1b C1 C3": "resnet50v2",
    "C7s2 C1 C3 C1 C3 C1 C3": "densenet121",
    "C3s2 D3 C1 D3s2 C1 D3 C1": "mobilenet",
    "C3s2 D3 C1 C1 D3s2 C1 C1 D3 C1 C1 D3s2": "mobilenetv2",
    "C3s2 D3 C1 C1 D3s2 C1 C1 D3 C1 C1 D5s2 C1 C1": "efficientnet_lite0",
    "C3s2 D3 C1 C1 D3s2 C1 C1 D3 C1 C1 D5s2 C1b C1b": "mobilenetv3small",
    "C3s2 D3s2 C1b C1b C1 C1 D3s2": "mobilenetv3small",
    "C3s2 C3 C3 C1 C3 C1": "inceptionv3",
    "C3s2 C3 S3 S3 C1s2 S3 S3": "xception",
    "C3s2 C1 S5s2 S7s2 S5 S7": "nasnetmobile",
    "C3s2 D3 C1b C1b C1": "efficientnetb0",
    "C3s2 C3 C3s2 C1 C3": "efficientnetv2b0",
    "C3s2 C3 C3 C3s2 C1": "efficientnetv2b0",
    "C4s4b C7b F F C7b F F": "convnexttiny",
}
LARGE = 5_000_000  # values of a kernel from which on it is not made a second time
_VGG_WIDTHS = [64, 64, 128, 128, 256, 256, 256]  # plain networks of one's own have the same kinds of layers


@dataclass(frozen=True)
class Base:
    """The pretrained part of a model.

    Attributes:
        family: Name that `backbones.preprocessing` knows; ``None`` for an unknown network.
        network: The model inside the model; ``None`` where its layers lie open.
        top: The layers of the model itself that hold it.
        layers: All layers in it, at any depth.
        others: Other networks with convolutions beside it.
    """

    family: str | None
    network: keras.Model | None
    top: list[keras.layers.Layer]
    layers: list[keras.layers.Layer]
    others: tuple[keras.Model, ...] = ()


def find_base(model: keras.Model) -> Base | None:
    """Returns the pretrained part; ``None`` if nothing in the model looks like one.

    It is the largest network with convolutions inside the model. Where layers lie open and begin like a known
    network, or some are frozen, it is everything up to the last convolution that is frozen or that has been
    trained: what comes after it is a head, or a decoder, that is new.
    """
    everything = layers_inside(model)
    networks = [layer for layer in everything if isinstance(layer, keras.Model) and _has_convolution(layer)]
    if networks:
        network = max(networks, key=lambda n: n.count_params())  # of equals the first, which is the outermost
        top = [layer for layer in model.layers if layer is network or network in layers_inside(layer)]
        inside = layers_inside(network)
        apart = [n for n in networks if n is not network and n not in inside]
        others = tuple(n for n in apart if network not in layers_inside(n))
        return Base(_family(network, inside), network, top, inside, others)
    family = _family(model, everything)
    frozen = [layer for layer in everything if layer.weights and not layer.trainable]
    places = [i for i, layer in enumerate(model.layers) if _has_convolution(layer)]
    if not places or (family is None and not any(isinstance(layer, CONVOLUTIONS) for layer in frozen)):
        return None
    old = [i for i, layer in enumerate(model.layers[: max(places) + 2]) if _is_old(layer)]
    last = max((i for i in places if old and i <= max(old)), default=max(places))
    top = model.layers[: last + 1]
    return Base(family, None, top, [x for layer in top for x in [layer, *layers_inside(layer)]])


def _is_old(layer: keras.layers.Layer) -> bool:
    """Whether something in a layer is frozen, or no longer as new."""
    own = [part for part in [layer, *layers_inside(layer)] if part.weights and isinstance(part, OF_IMAGES)]
    return any(not part.trainable or _as_new(part) is False for part in own)


def _as_new(layer: keras.layers.Layer) -> bool | None:
    """Whether statistics, scales and biases of a layer are those of a new one; ``None`` if it has none."""
    start = {"moving_variance": 1.0, "gamma": 1.0, "moving_mean": 0.0, "beta": 0.0, "bias": 0.0}
    own = [w for w in layer.weights if w.name in start]
    return all(bool(ops.all(w == start[w.name])) for w in own) if own else None


def _family(network: keras.Model, layers: list[keras.layers.Layer]) -> str | None:
    if type(network).__module__.startswith("keras_hub"):  # they are prepared as their presets say
        return None
    shapes = [(layer, mark) for layer in layers if (mark := _mark(layer))]
    marks = " ".join(mark for _, mark in shapes[:13]) + " "
    found = next((name for begin, name in _BEGINNINGS.items() if marks.startswith(begin + " ")), None)
    widths = [getattr(layer, "filters", 0) for layer, _ in shapes[:7]]
    return None if found == "vgg16" and widths != _VGG_WIDTHS else found


def _mark(layer: keras.layers.Layer) -> str:
    """Describes a convolution or a dense layer; empty for others."""
    if isinstance(layer, keras.layers.Dense):
        return "F"
    if not isinstance(layer, CONVOLUTIONS):
        return ""
    kind = "S" if isinstance(layer, keras.layers.SeparableConv2D) else "C"
    kind = "D" if isinstance(layer, keras.layers.DepthwiseConv2D) else kind
    stride = f"s{layer.strides[0]}" if layer.strides[0] > 1 else ""
    return f"{kind}{layer.kernel_size[0]}{stride}{'b' * layer.use_bias}"


def _has_convolution(layer: keras.layers.Layer) -> bool:
    return any(isinstance(part, CONVOLUTIONS) for part in [layer, *layers_inside(layer)])


def fresh_layers(base: Base) -> tuple[int, int]:
    """Counts layers whose statistics, scales and biases are those of a new layer, and all that have such.

    Training moves them all. Kernels are not looked at: they are random before, and look so after.
    """
    states = [_as_new(layer) for layer in base.layers if not layers_inside(layer)]
    return states.count(True), len(states) - states.count(None)


def as_made(layer: keras.layers.Layer) -> bool:
    """Whether a layer has the kernel that it was made with, which its initializer gives once more.

    A file does not hold the initializer's seed: of a model that was loaded whole, nothing is known.
    """
    kernel = getattr(layer, "kernel", None)
    initializer = getattr(layer, "kernel_initializer", getattr(layer, "depthwise_initializer", None))
    if kernel is None or not callable(initializer) or np.prod(kernel.shape) > LARGE:
        return False
    return bool(ops.all(ops.equal(ops.cast(kernel, "float32"), initializer(kernel.shape, dtype="float32"))))


def broken_weights(model: keras.Model) -> list[str]:
    """Returns the paths of the weights that hold NaN or infinity."""
    return [w.path for w in model.weights if not np.isfinite(np.sum(np.abs(ops.convert_to_numpy(w))))]
