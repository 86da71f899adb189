"""The frozen lower part of a classifier, run once: only what is above it trains, on kept activations."""

from dataclasses import replace

import keras
import numpy as np

from tlhelpers import data, features, layers
from tlhelpers.backbones import Backbone

AUGMENTATION = "augmentation"  # the name of the layer that changes images while training


def above(model: keras.Model, ds: data.Dataset) -> tuple[keras.Model, data.Dataset]:
    """Splits a classifier below its first unfrozen layer, and computes what is below once.

    The frozen trunk gives the same activations in every epoch. So they are computed once, by
    `features.extract`, and kept in half precision. The part above shares its layers with ``model``, which is
    therefore trained when the part is. The result is that of training ``model`` itself, but for rounding, and
    for dropout inside the trunk, as in Keras' EfficientNets, which does not act.

    Args:
        model: From `finetune.build_classifier`, after `finetune.freeze`. Of augmentation it may have a
            horizontal `RandomFlip`: then each training image is computed mirrored, too, and in each step one
            of both is drawn. Other random changes of the pixels cannot pass through a cache.
        ds: Data set; its test images are not touched.

    Returns:
        The part above, activations ``(n, v, h, w, c)`` -> logits; and the data set with activations for
        training and validation images, float16, ``v`` views each.

    Raises:
        ValueError: If the model has no backbone or another augmentation, nothing is frozen below its first
            unfrozen layer, or nothing of it is unfrozen.

    Example:
        >>> from tlhelpers import backbones, data, finetune, trunk
        >>> ds = data.load("digits", n_train=8, n_val=4, n_test=4)
        >>> backbone = backbones.load(image_size=32)
        >>> model = finetune.build_classifier(backbone, ds.n_classes)
        >>> finetune.freeze(backbone, up_to="block1")
        >>> top, activations = trunk.above(model, ds)
        >>> len(activations.x_train), top.output_shape
        (8, (None, 10))
    """
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name != AUGMENTATION]
    if not inner:
        raise ValueError(f"{model.name} has no backbone whose lower part could be run once: cache=False.")
    network = inner[0]
    views = [ds.x_train]
    if _mirrors(model):
        x = ds.x_train
        views.append(x.mirrored() if isinstance(x, data.ImageSequence) else x[:, :, ::-1])
    name = _cut(network)
    backbone = Backbone(network.name, network.input_shape[1], network, f"of {model.name}")
    train = [features.extract(backbone, x, [name], pooled=False) for x in views]
    val = features.extract(backbone, ds.x_val, [name], pooled=False)

    below = network.get_layer(name).output
    inputs = keras.Input((None, *below.shape[1:]), name="activations")
    x = keras.Model(below, network.output)(RandomView(name="view")(inputs))
    for layer in model.layers[model.layers.index(network) + 1 :]:
        x = layer(x)
    top = keras.Model(inputs, x, name=f"{model.name}_top")
    return top, replace(ds, x_train=np.stack(train, axis=1), x_val=val[:, None])


def _mirrors(model: keras.Model) -> bool:
    """Whether a model mirrors images while training; an error where it changes them otherwise."""
    found = [layer for layer in model.layers if layer.name == AUGMENTATION]
    parts = [part for layer in found for part in layers.leaves(layer)]
    flips = [p for p in parts if isinstance(p, keras.layers.RandomFlip) and p.mode == "horizontal"]
    if others := [p.name for p in parts if p not in flips and not isinstance(p, keras.layers.InputLayer)]:
        raise ValueError(
            f"The augmentation {', '.join(others)} changes pixels anew in each epoch, which a cache cannot "
            'do. Use cache=False, or keep only RandomFlip("horizontal").'
        )
    return bool(flips)


def _cut(network: keras.Model) -> str:
    """Returns the highest layer below the first unfrozen one whose output is all that those above it need."""
    # Not all steps are layers: a sum written as ``x + y`` is an operation.
    steps = [step for step in network.operations if not isinstance(step, keras.layers.InputLayer)]
    live = [i for i, step in enumerate(steps) if getattr(step, "trainable_weights", ())]
    if not live:
        raise ValueError("Every layer of the backbone is frozen: train a head on extract(backbone, x).")
    position = {step.name: i for i, step in enumerate(steps)}
    frozen = [i for i, step in enumerate(steps[: live[0]]) if getattr(step, "weights", ())]
    for cut in range(live[0] - 1, frozen[0] - 1 if frozen else live[0], -1):
        crossing = {
            tensor._keras_history.operation.name
            for step in steps[cut + 1 :]
            for tensor in keras.tree.flatten(step.input)
            if position.get(tensor._keras_history.operation.name, -1) <= cut
        }
        if crossing == {steps[cut].name} and isinstance(steps[cut], keras.layers.Layer):
            return steps[cut].name
    raise ValueError(
        "No layer is frozen below the first unfrozen one: call finetune.freeze(backbone, up_to=...)."
    )


class RandomView(keras.layers.Layer):
    """Takes one of several views of each image while training, and the first one otherwise.

    Input ``(n, v, ...)``, output ``(n, ...)``.

    Example:
        >>> import keras
        >>> from tlhelpers.trunk import RandomView
        >>> views = keras.ops.ones((4, 2, 8))
        >>> RandomView()(views, training=True).shape == (4, 8)
        True
    """

    def __init__(self, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        if not training:
            return x[:, 0]
        draw = keras.random.uniform(keras.ops.shape(x)[:2], seed=self.seed_generator)
        chosen = keras.ops.cast(draw >= keras.ops.max(draw, axis=1, keepdims=True), x.dtype)
        each = (-1, x.shape[1] or keras.ops.shape(x)[1], *[1] * (len(x.shape) - 2))
        return keras.ops.sum(keras.ops.reshape(chosen, each) * x, axis=1)
