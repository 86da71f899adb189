"""Presets of KerasHub as backbones: their own preprocessing inside, one vector an image out."""

from pathlib import Path
from typing import Any

import keras

# Beginnings of the classes whose first token stands for the image; convolutional maps are averaged.
_FIRST_TOKEN = ("CLIP", "DeiT", "DINOV2", "DINOV3", "MetaCLIP2", "ViT")


def is_preset(hub: Any, name: str) -> bool:
    """Returns whether KerasHub knows a preset so: by its name, an address, or a folder."""
    return name in hub.models.Backbone.presets or "://" in name or Path(name).is_dir()


def load(hub: Any, name: str, size: int | None, weights: str | Path | None) -> keras.Model:
    """Returns a preset's network: raw RGB 0..255 ``(n, s, s, 3)`` -> features ``(n, d)``.

    Args:
        hub: The package ``keras_hub``.
        name: As KerasHub names the preset.
        size: Side of the input in pixels; ``None`` takes the preset's.
        weights: ``"imagenet"`` takes the preset's own, whatever they were trained on; else as
            `backbones.load`.

    Raises:
        ValueError: If the preset does not take this size, or its output is not known here.
    """
    shape = {} if size is None else {"image_shape": (size, size, 3)}
    try:
        backbone = hub.models.Backbone.from_preset(name, load_weights=weights == "imagenet", **shape)
    except (TypeError, ValueError) as error:
        sized = "" if size is None else f" for images of {size} pixels"
        raise ValueError(f"KerasHub's preset {name!r} cannot be built{sized}: {error}") from error
    if weights not in ("imagenet", None):
        backbone.load_weights(str(weights))
    network = getattr(backbone, "vision_encoder", backbone)  # CLIP's image tower, without the tower for text
    converter = hub.layers.ImageConverter.from_preset(name)
    n_axes = len(getattr(network.output, "shape", ()))
    plain = type(converter).call is hub.layers.ImageConverter.call  # a scale and an offset, no more
    kind = type(network).__name__
    if not plain or not (n_axes == 4 or (n_axes == 3 and kind.startswith(_FIRST_TOKEN))):
        raise ValueError(
            f"Which numbers of {kind} stand for an image is not known here. Build the network "
            "with keras_hub, from raw pixels to (n, d), and put it into a backbones.Backbone."
        )
    keyed = isinstance(network.input, dict)
    own = (network.input["images"] if keyed else network.input).shape[1]
    side = own or size or max(converter.image_size or (224,))
    inputs = keras.Input((side, side, 3), name="image")
    scale = 1.0 if converter.scale is None else converter.scale
    x = keras.layers.Rescaling(scale, converter.offset or 0.0, name="pixels")(inputs)
    x = network({"images": x} if keyed else x)
    x = x[:, 0] if n_axes == 3 else keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name=Path(name).name)
