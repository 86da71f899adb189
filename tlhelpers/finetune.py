"""Fine-tuning: a classifier on a backbone, what of it is frozen, and its training."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from tlhelpers import data, features, losses, recipes
from tlhelpers.backbones import Backbone
from tlhelpers.recipes import Recipe
from tlhelpers.streams import fit_arguments

AUGMENTATION = "augmentation"  # the name of the layer that changes images while training


def build_classifier(
    backbone: Backbone,
    n_classes: int,
    head: keras.layers.Layer | None = None,
    *,
    dropout: float = 0.0,
    augmentation: keras.layers.Layer | None = None,
) -> keras.Model:
    """Puts a head on a backbone.

    The backbone is one layer of the new model, named like the backbone, and shares its weights with
    ``backbone.model``. Its BatchNorm layers keep the statistics of the pretraining where `freeze` has frozen
    them; else these move with each batch of training.

    Args:
        backbone: From `tlhelpers.backbones.load`.
        n_classes: Number of classes of the target task.
        head: Built or unbuilt layer from features to logits; ``None`` makes a fresh Dense layer.
        dropout: Share of features dropped before the head while training, 0..1.
        augmentation: Layer applied to the raw images while training, such as `keras.layers.RandomFlip`.

    Returns:
        Uncompiled model: raw RGB 0..255 ``(n, s, s, 3)`` -> logits ``(n, n_classes)``.
    """
    inputs = keras.Input((backbone.image_size, backbone.image_size, 3), name="image")
    x = _augmented(inputs, augmentation)
    x = backbone.model(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = (head or keras.layers.Dense(n_classes, name="head"))(x)
    if outputs.shape[-1] != n_classes:
        raise ValueError(f"The head gives {outputs.shape[-1]} numbers, but there are {n_classes} classes.")
    return keras.Model(inputs, outputs, name=f"{backbone.name}_classifier")


def for_inference(model: keras.Model) -> keras.Model:
    """Returns a classifier without its augmentation, to be saved or exported; the weights are shared.

    Its layers are Keras' own, so that ``keras.models.load_model`` needs nothing of this package.

    Args:
        model: From `build_classifier` or `small_cnn`.
    """
    inputs = keras.Input(model.input_shape[1:], name="image")
    x = inputs
    for layer in model.layers[1:]:
        if layer.name != AUGMENTATION:
            x = layer(x)
    return keras.Model(inputs, x, name=model.name)


def _augmented(inputs: keras.KerasTensor, augmentation: keras.layers.Layer | None) -> keras.KerasTensor:
    """Applies an augmentation under a name by which `for_inference` finds it."""
    if augmentation is None:
        return inputs
    return keras.Sequential([augmentation], name=AUGMENTATION)(inputs)


def freeze(
    backbone: Backbone, *, up_to: str | None = None, blocks: str | Sequence[str] | None = None
) -> None:
    """Freezes a whole backbone, or its lower part, or some of its layers; and every BatchNorm layer.

    A frozen BatchNorm layer keeps its statistics, since Keras runs it in inference mode. That is the only way
    that holds in Keras 3: in a functional model, ``base(x, training=False)`` is overridden by the
    ``training=True`` of ``fit``, and the statistics of unfrozen layers move.

    Args:
        backbone: From `tlhelpers.backbones.load`. With nothing else given, all of it is frozen.
        up_to: Beginning of a layer's name, such as ``"block4"``: freezes the last layer named so, and all
            layers below it. The layers above become trainable.
        blocks: Beginning of the names of the layers to freeze, or several, such as ``("stem", "block1")``;
            all other layers but BatchNorm become trainable.

    Raises:
        ValueError: If no layer is named so, both ``up_to`` and ``blocks`` are given, or ``blocks`` is empty.
    """
    if blocks is not None and up_to is not None:
        raise ValueError("Give up_to or blocks, not both.")
    if blocks is not None and not blocks:
        raise ValueError(
            "blocks is empty. To train all layers but BatchNorm, call freeze_batchnorm(backbone); "
            "to freeze all, call freeze(backbone)."
        )
    names = (blocks,) if isinstance(blocks, str) else tuple(blocks or ())
    layers = list(recipes.leaf_layers(backbone.model))
    for beginning in (*names, *(() if up_to is None else (up_to,))):
        if not any(recipes.begins(layer.name, beginning) for layer in layers):
            raise ValueError(
                f"No layer of {backbone.name} has a name that begins with {beginning!r}. "
                f"Its blocks: {', '.join(backbone.blocks)}."
            )
    if up_to is not None:
        last = max(i for i, layer in enumerate(layers) if recipes.begins(layer.name, up_to))
        chosen = layers[: last + 1]
    elif names:
        chosen = [layer for layer in layers if any(recipes.begins(layer.name, name) for name in names)]
    else:
        chosen = layers
    _freeze_layers(backbone, chosen)


def freeze_batchnorm(backbone: Backbone) -> None:
    """Makes a whole backbone trainable, but for its BatchNorm layers, which keep the pretrained statistics.

    Args:
        backbone: From `tlhelpers.backbones.load`.
    """
    _freeze_layers(backbone, [])


def _freeze_layers(backbone: Backbone, chosen: list[keras.layers.Layer]) -> None:
    """Freezes these layers and BatchNorm; frees all others."""
    layers = list(recipes.leaf_layers(backbone.model))
    frozen = {id(layer) for layer in chosen}
    backbone.model.trainable = True  # sets the flag of every layer, and of the model itself
    for layer in layers:
        layer.trainable = not (id(layer) in frozen or isinstance(layer, keras.layers.BatchNormalization))
    if len(frozen) == len(layers):
        backbone.model.trainable = False


class RandomView(keras.layers.Layer):
    """Takes one of several views of each image while training, and the first one otherwise.

    Input ``(n, v, ...)``, output ``(n, ...)``.
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


def cached_trunk(
    model: keras.Model, backbone: Backbone, ds: data.Dataset, flips: bool = False, cache: bool = True
) -> tuple[keras.Model, data.Dataset]:
    """Splits a classifier below its first unfrozen layer, and computes what is below once.

    The frozen trunk gives the same activations in every epoch, so they are computed once, by `extract`, and
    kept in half precision. Only the part above trains on. It shares its layers with ``model``, so that
    ``model`` is fine-tuned when the part is. The result is that of training ``model`` itself, but for
    rounding: the trunk must be frozen, BatchNorm included (`freeze` does that), and of augmentation only what
    ``flips`` does is left, since random changes of the pixels cannot pass through a cache. Dropout inside the
    trunk, as in Keras' EfficientNets, does not act either.

    Args:
        model: From `build_classifier`, with this backbone; its augmentation is left out.
        backbone: The backbone, after `freeze`.
        ds: Data set; its test images are not touched.
        flips: Whether to compute each training image mirrored, too. In each step one of both is drawn, as
            ``RandomFlip("horizontal")`` does.
        cache: As in `extract`.

    Returns:
        The part above, activations ``(n, v, h, w, c)`` -> logits, for `fine_tune`; and the data set with
        activations for training and validation images, float16, ``v`` views each.

    Raises:
        ValueError: If nothing is frozen below the first unfrozen layer, or nothing is unfrozen.
    """
    name = _cut(backbone)
    views = [ds.x_train]
    if flips:
        x = ds.x_train
        views.append(x.mirrored() if isinstance(x, data.ImageSequence) else x[:, :, ::-1])
    train = [features.extract(backbone, x, [name], cache=cache, pooled=False) for x in views]
    val = features.extract(backbone, ds.x_val, [name], cache=cache, pooled=False)

    below = backbone.model.get_layer(name).output
    inputs = keras.Input((None, *below.shape[1:]), name="activations")
    x = keras.Model(below, backbone.model.output)(RandomView(name="view")(inputs))
    chain = model.layers[model.layers.index(backbone.model) + 1 :]
    for layer in chain:
        x = layer(x)
    top = keras.Model(inputs, x, name=f"{model.name}_top")
    return top, replace(ds, x_train=np.stack(train, axis=1), x_val=val[:, None])


def _cut(backbone: Backbone) -> str:
    """Returns the highest layer below the first unfrozen one whose output is all that those above it need."""
    # Not all steps are layers: a sum written as ``x + y`` is an operation.
    steps = [step for step in backbone.model.operations if not isinstance(step, keras.layers.InputLayer)]
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


def fine_tune(
    model: keras.Model,
    ds: data.Dataset,
    recipe: Recipe,
    resume: str | Path | None = None,
    verbose: int = 0,
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> keras.callbacks.History:
    """Trains whatever is trainable in a classifier, as a recipe says.

    The model is compiled here, with a new optimizer, so that the present ``trainable`` flags are the ones
    that count.

    Args:
        model: From `build_classifier`: images -> logits.
        ds: Data set; its training images are resized to the model's input. Its validation images, if any, are
            watched. Or the activations of `cached_trunk`.
        recipe: Epochs, rates, penalties.
        resume: Folder for a backup after each epoch, from which the same call goes on when it was
            interrupted. The backup goes when the training is done.
        verbose: As in ``keras.Model.fit``.
        callbacks: As in ``keras.Model.fit``.

    Returns:
        Keras' history, one entry an epoch; after an interruption, of the epochs since.
    """
    watched = (as_inputs(model, ds.x_val), ds.y_val) if len(ds.y_val) else None
    train = (as_inputs(model, ds.x_train), ds.y_train)
    callbacks = list(callbacks or [])
    if resume is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(_backup(Path(resume), model, train, recipe)))
    model.compile(
        recipes.optimizer(recipe, model, -(-len(train[1]) // recipe.batch_size)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    held = []
    if recipe.l2_sp:
        # By the variables: `input` of a head that `cached_trunk` shares is that of the whole classifier.
        free = {id(variable) for variable in model.layers[-1].trainable_weights}
        held = [(v, v.regularizer) for v in model.trainable_weights if id(v) not in free]
        if not held:
            raise ValueError(
                "Nothing but the head is trainable, so L2-SP has nothing to hold. "
                "Unfreeze a part of the backbone, or leave l2_sp at 0."
            )
        for variable, _ in held:
            variable.regularizer = losses.L2SP(variable, recipe.l2_sp)
    try:
        stream = fit_arguments(train, watched, recipe.batch_size)
        return model.fit(**stream, epochs=recipe.epochs, verbose=verbose, callbacks=callbacks)
    finally:
        for variable, regularizer in held:
            variable.regularizer = regularizer


def _backup(folder: Path, model: keras.Model, train: tuple[np.ndarray, np.ndarray], recipe: Recipe) -> Path:
    """Returns a folder for the backup of this very training: another start must not go on from it."""
    digest = sha256(f"{recipe} {train[0].shape}".encode())
    for array in (train[1], *model.get_weights()):
        digest.update(np.ascontiguousarray(array).data)
    for weight in model.weights:
        digest.update(f"{weight.path} {weight.trainable}".encode())
    return folder / digest.hexdigest()[:16]


def predict(model: keras.Model, x: np.ndarray | data.ImageSequence, batch_size: int = 64) -> np.ndarray:
    """Returns labels, int64 ``(n,)``, of images uint8 ``(n, h, w, 3)``, resized to the model's input."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(x), batch_size):
        logits = model.predict_on_batch(as_inputs(model, x[start : start + batch_size]))
        found.append(np.asarray(logits).argmax(axis=1))
    return np.concatenate(found)


def as_inputs(model: keras.Model, x: np.ndarray | data.ImageSequence) -> np.ndarray:
    """Returns images resized to the model's input; activations of a trunk as they are."""
    takes_activations = len(model.input_shape) != 4
    if takes_activations and isinstance(x, np.ndarray) and x.dtype == np.float16:
        return x
    if takes_activations or (isinstance(x, np.ndarray) and x.dtype == np.float16):
        wanted = "the activations of `cached_trunk`" if takes_activations else "images, uint8 (n, h, w, 3)"
        found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(
            f"{model.name} takes {wanted}; this is {found}. The part that `cached_trunk` returned takes "
            "activations; the classifier that it was made of takes images, and was trained with it."
        )
    return data.resize(x, model.input_shape[1])


def small_cnn(image_size: int, n_classes: int, augmentation: keras.layers.Layer | None = None) -> keras.Model:
    """Builds a small convolutional network with random weights: the baseline that learns from scratch.

    Six convolutions of 24 to 96 filters in three stages, each with batch normalisation and ReLU, then the
    mean over the image, dropout and a linear layer: about 164,000 parameters.

    Args:
        image_size: Side of the square input, in pixels.
        n_classes: Number of classes.
        augmentation: Layer applied to the raw images while training.

    Returns:
        Uncompiled model: raw RGB 0..255 ``(n, image_size, image_size, 3)`` -> logits ``(n, n_classes)``.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = _augmented(inputs, augmentation)
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(x)
    for filters in (24, 48, 96):
        for stride in (1, 2):
            x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(n_classes)(x), name="small_cnn")
