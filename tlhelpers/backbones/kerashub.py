"""Presets of KerasHub as backbones: their own preprocessing inside, one vector an image out."""

import re
from pathlib import Path

import keras

from tlhelpers.backbones import Backbone, WeightsUnavailableError
from tlhelpers.extras import extra

# Beginnings of the classes whose first token stands for the image; convolutional maps are averaged.
_FIRST_TOKEN = ("CLIP", "DeiT", "DINOV2", "DINOV3", "MetaCLIP2", "ViT")


def load(preset: str | Path, *, image_size: int | None = None, pretrained: bool = True) -> Backbone:
    """Loads a preset of KerasHub for images as a backbone.

    Vision transformers (ViT, DeiT, DINOv2, DINOv3), CLIP's image tower, and convolutional networks. The
    features are the first token, or the mean over the map. It needs the extra ``hub``.

    Args:
        preset: As KerasHub names it, such as ``"dinov2_small"`` or ``"vit_base_patch16_224_imagenet"``; its
            address; or the folder that holds it.
        image_size: Side of the square input in pixels; ``None`` takes the preset's. Many take no other.
        pretrained: Whether to take the preset's weights; else they are random.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If there is no such preset, it does not take this size, or its output is not known here.
        WeightsUnavailableError: If the preset is neither here nor to be downloaded.

    Example:
        >>> from tlhelpers.backbones import kerashub
        >>> try:
        ...     kerashub.load("resnet-50")
        ... except (ImportError, ValueError) as error:  # no extra, or no such preset
        ...     print("No backbone.")
        No backbone.
    """
    with extra("hub"):
        import keras_hub as hub

    name = str(preset)
    if not (name in hub.models.Backbone.presets or "://" in name or Path(name).is_dir()):
        raise ValueError(
            f"KerasHub knows no preset {name!r}, and it is no folder. The names: "
            "sorted(keras_hub.models.Backbone.presets). Keras Applications are in backbones.load."
        )
    shape = {} if image_size is None else {"image_shape": (image_size, image_size, 3)}
    try:
        backbone = hub.models.Backbone.from_preset(name, load_weights=pretrained, **shape)
        converter = hub.layers.ImageConverter.from_preset(name)
    except OSError as error:  # a download says so when there is no network
        raise WeightsUnavailableError(
            f"KerasHub's preset {name!r} is not on this machine and could not be downloaded ({error}). "
            "Go online once, or give the folder of a preset."
        ) from error
    except (TypeError, ValueError) as error:
        sized = "" if image_size is None else f" for images of {image_size} pixels"
        raise ValueError(f"KerasHub's preset {name!r} cannot be a backbone{sized}: {error}") from error
    network = getattr(backbone, "vision_encoder", backbone)  # CLIP's image tower, without the tower for text
    kind, n_axes = type(network).__name__, len(getattr(network.output, "shape", ()))
    plain = type(converter).call is hub.layers.ImageConverter.call  # a scale and an offset, no more
    if not plain or not (n_axes == 4 or (n_axes == 3 and kind.startswith(_FIRST_TOKEN))):
        raise ValueError(
            f"Which numbers of {kind} stand for an image is not known here. Build the network "
            "with keras_hub, from raw pixels to (n, d), and put it into a backbones.Backbone."
        )
    keyed = isinstance(network.input, dict)
    side = (network.input["images"] if keyed else network.input).shape[1]
    side = side or image_size or max(converter.image_size or (224,))
    inputs = keras.Input((side, side, 3), name="image")
    scale = 1.0 if converter.scale is None else converter.scale
    x = keras.layers.Rescaling(scale, converter.offset or 0.0, name="pixels")(inputs)
    x = network({"images": x} if keyed else x)
    x = x[:, 0] if n_axes == 3 else keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, x, name=re.sub(r"\W", "_", Path(name).name))
    return Backbone(model.name, side, model, name if pretrained else "random")
