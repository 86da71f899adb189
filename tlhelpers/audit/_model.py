"""What a Keras model looks like: layers at any depth, the pretrained base, the end of the head, the loss."""

from dataclasses import dataclass
from typing import NamedTuple

import keras

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
NORMALISATION = keras.layers.BatchNormalization

# A layer near the input that tells a family -> a name that `backbones.preprocessing` knows. The order counts:
# some families share layer names.
_SIGNATURES = {
    "block1_pool": "vgg16",
    "conv2_block1_preact_bn": "resnet50v2",
    "conv2_block1_add": "resnet50",
    "conv2_block1_concat": "densenet121",
    "conv_dw_1": "mobilenet",
    "bn_Conv1": "mobilenetv2",
    "expanded_conv_depthwise": "mobilenetv3small",
    "mixed0": "inceptionv3",
    "mixed_5b": "inceptionresnetv2",
    "block2_sepconv1": "xception",
    "stem_bn1": "nasnetmobile",
    "block1a_relu": "efficientnet_lite0",
    "block1a_se_reduce": "efficientnetb0",
    "stem_activation": "efficientnetv2b0",
    **{f"convnext_{size}_stem": "convnexttiny" for size in ("tiny", "small", "base", "large", "xlarge")},
}


@dataclass(frozen=True)
class Base:
    """The pretrained part of a model.

    Attributes:
        family: Name that `backbones.preprocessing` knows; ``None`` for an unknown network.
        network: The model inside the model; ``None`` where its layers lie open.
        top: The layers of the model itself that hold it.
        layers: All layers in it, at any depth.
    """

    family: str | None
    network: keras.Model | None
    top: list[keras.layers.Layer]
    layers: list[keras.layers.Layer]


class Loss(NamedTuple):
    """A cross-entropy.

    Attributes:
        kind: ``"sparse categorical"``, ``"categorical"`` or ``"binary"``.
        from_logits: Whether it wants logits; else probabilities.
    """

    kind: str
    from_logits: bool


def find_base(model: keras.Model) -> Base | None:
    """Returns the pretrained part; ``None`` if nothing in the model looks like one."""
    everything = _inside(model)
    names = {layer.name for layer in everything}
    sign = next((name for name in _SIGNATURES if name in names), None)
    family = None if sign is None else _SIGNATURES[sign]
    networks = [layer for layer in everything if isinstance(layer, keras.Model) and _has_convolution(layer)]
    if sign is not None:
        networks = [network for network in networks if any(layer.name == sign for layer in _inside(network))]
    if networks:
        network = max(networks, key=lambda n: n.count_params())  # of equals the first, which is the outermost
        top = [layer for layer in model.layers if layer is network or network in _inside(layer)]
        return Base(family, network, top, _inside(network))
    if sign is None:
        return None
    last = max(i for i, layer in enumerate(model.layers) if _has_convolution(layer))
    top = model.layers[: last + 1]
    return Base(family, None, top, [x for layer in top for x in [layer, *_inside(layer)]])


def _inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers inside a layer, at any depth."""
    return list(layer._flatten_layers(include_self=False))


def _has_convolution(layer: keras.layers.Layer) -> bool:
    return any(isinstance(part, CONVOLUTIONS) for part in [layer, *_inside(layer)])


def image_shape(model: keras.Model) -> tuple[int | None, int | None] | None:
    """Returns height and width of the images that a model takes; ``None`` if it takes no colour images."""
    shape = getattr(model, "input_shape", None)
    return shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 else None


def last_activation(model: keras.Model) -> str | None:
    """Returns "softmax", "sigmoid" or "linear"; ``None`` for another one and where it cannot be told."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None
    tensor = outputs[0]
    while True:
        operation, index, _ = tensor._keras_history
        if isinstance(operation, keras.Model):
            return last_activation(operation)
        activation = getattr(operation, "activation", None)
        name = getattr(activation, "__name__", type(operation).__name__.lower())
        if name in ("softmax", "sigmoid"):
            return name
        if activation not in (None, keras.activations.linear):
            return None
        sources = operation._inbound_nodes[index].input_tensors
        if getattr(operation, "weights", None) or len(sources) != 1:
            return "linear"
        tensor = sources[0]  # dropout, reshape, a change of dtype: look further up


def loss_of(model: keras.Model) -> Loss | None:
    """Returns the cross-entropy that a model is compiled with; ``None`` for another loss."""
    loss = model.loss if model.compiled else None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kinds = {f"{k.replace(' ', '')}crossentropy": k for k in ("sparse categorical", "categorical", "binary")}
    kind = kinds.get(str(name).replace("_", "").lower())
    return None if kind is None else Loss(kind, bool(getattr(loss, "from_logits", False)))
