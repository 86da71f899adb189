"""Fine-tuning: a classifier on a backbone, what of it is frozen, and its training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tlhelpers import data, layers, losses, recipes, trunk
from tlhelpers.backbones import Backbone
from tlhelpers.batches import fit_arguments
from tlhelpers.recipes import Recipe
from tlhelpers.resume import Backup


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

    Example:
        >>> from tlhelpers import backbones, finetune
        >>> backbone = backbones.load(image_size=32)
        >>> finetune.build_classifier(backbone, n_classes=10).output_shape
        (None, 10)
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

    Example:
        >>> import keras
        >>> from tlhelpers import finetune
        >>> model = finetune.small_cnn(8, 10, augmentation=keras.layers.RandomFlip("horizontal"))
        >>> len(model.layers) - len(finetune.for_inference(model).layers)
        1
    """
    inputs = keras.Input(model.input_shape[1:], name="image")
    x = inputs
    for layer in model.layers[1:]:
        if layer.name != trunk.AUGMENTATION:
            x = layer(x)
    return keras.Model(inputs, x, name=model.name)


def _augmented(inputs: keras.KerasTensor, augmentation: keras.layers.Layer | None) -> keras.KerasTensor:
    """Applies an augmentation under a name by which `for_inference` finds it."""
    if augmentation is None:
        return inputs
    return keras.Sequential([augmentation], name=trunk.AUGMENTATION)(inputs)


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
        TypeError: If a beginning is no text.
        ValueError: If no layer is named so, both ``up_to`` and ``blocks`` are given, or one of them is empty.
            To train all layers but BatchNorm, call `freeze_batchnorm`.

    Example:
        >>> from tlhelpers import backbones, finetune
        >>> backbone = backbones.load(image_size=32)
        >>> finetune.freeze(backbone, up_to="block4")
        >>> [backbone.model.get_layer(name).trainable for name in ("stem_conv", "head_conv")]
        [False, True]
    """
    if blocks is not None and up_to is not None:
        raise ValueError("Give up_to or blocks, not both.")
    chosen = leaves = list(layers.leaves(backbone.model))
    if up_to is not None:
        (lowest,) = layers.beginnings([up_to], "up_to", leaves)
        last = max(i for i, leaf in enumerate(leaves) if layers.begins(leaf.name, lowest))
        chosen = leaves[: last + 1]
    if blocks is not None:
        names = layers.beginnings(blocks, "blocks", leaves)
        chosen = [leaf for leaf in leaves if any(layers.begins(leaf.name, name) for name in names)]
    _freeze_layers(backbone, chosen)


def freeze_batchnorm(backbone: Backbone) -> None:
    """Makes a whole backbone trainable, but for its BatchNorm layers, which keep the pretrained statistics.

    Args:
        backbone: From `tlhelpers.backbones.load`.

    Example:
        >>> from tlhelpers import backbones, finetune
        >>> backbone = backbones.load(image_size=32)
        >>> finetune.freeze_batchnorm(backbone)
        >>> [backbone.model.get_layer(name).trainable for name in ("stem_conv", "stem_bn")]
        [True, False]
    """
    _freeze_layers(backbone, [])


def _freeze_layers(backbone: Backbone, chosen: list[keras.layers.Layer]) -> None:
    """Freezes these layers and BatchNorm; frees all others."""
    leaves = list(layers.leaves(backbone.model))
    frozen = {id(layer) for layer in chosen}
    backbone.model.trainable = True  # sets the flag of every layer, and of the model itself
    for leaf in leaves:
        leaf.trainable = not (id(leaf) in frozen or isinstance(leaf, keras.layers.BatchNormalization))
    if len(frozen) == len(leaves):
        backbone.model.trainable = False


def fine_tune(
    model: keras.Model,
    ds: data.Dataset,
    recipe: Recipe,
    *,
    cache: bool = False,
    resume: str | Path | None = None,
    verbose: int = 0,
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> keras.callbacks.History:
    """Compiles a classifier and trains whatever is trainable in it, as a recipe says.

    It is compiled here, with a new optimizer, so that the present ``trainable`` flags are the ones that
    count. What it was compiled with before is forgotten.

    Args:
        model: From `build_classifier`: images -> logits.
        ds: Data set; its training images are resized to the model's input. Its validation images, if any, are
            watched.
        recipe: Epochs, rates, penalties.
        cache: Whether to run the frozen part below the first unfrozen layer once instead of in every epoch
            (`tlhelpers.trunk.above`). The activations stay in the cache folder. The result is the same, but
            for rounding; callbacks see the part above as their model.
        resume: Folder for a backup after each epoch (`tlhelpers.resume.Backup`), from which the same call, in
            a new process, goes on when it was interrupted: to the same result. It goes when the training is
            done.
        verbose: As in ``keras.Model.fit``.
        callbacks: As in ``keras.Model.fit``.

    Returns:
        Keras' history, one entry an epoch, of those before an interruption, too.

    Raises:
        ValueError: If the recipe names layers that are not there or holds nothing, or, with ``cache``, as
            `tlhelpers.trunk.above`.

    Example:
        >>> from tlhelpers import data, finetune
        >>> from tlhelpers.recipes import Recipe
        >>> ds = data.load("digits", n_train=64, n_val=32, n_test=32)
        >>> model = finetune.small_cnn(8, ds.n_classes)
        >>> history = finetune.fine_tune(model, ds, Recipe(epochs=1))
        >>> len(history.history["val_accuracy"])
        1
    """
    if cache:
        part, activations = trunk.above(model, ds)
        history = _fit(part, activations, recipe, resume, verbose, callbacks)
        _compile(model, part.optimizer)
        return history
    x_train, x_val = (data.resize(x, model.input_shape[1]) for x in (ds.x_train, ds.x_val))
    return _fit(model, replace(ds, x_train=x_train, x_val=x_val), recipe, resume, verbose, callbacks)


def _fit(
    model: keras.Model,
    ds: data.Dataset,
    recipe: Recipe,
    resume: str | Path | None,
    verbose: int,
    callbacks: list[keras.callbacks.Callback] | None,
) -> keras.callbacks.History:
    """Trains on what the model takes: images of its size, or the activations of a trunk."""
    seed = int(keras.random.randint((), 0, 2**31 - 1))
    _compile(model, recipes.optimizer(recipe, model, -(-len(ds.y_train) // recipe.batch_size)))
    held = _held(model) if recipe.l2_sp else []
    for variable, _ in held:
        variable.regularizer = losses.L2SP(variable, recipe.l2_sp)  # before a backup changes the variable
    try:
        backup = Backup(Path(resume), model, ds, recipe, seed) if resume is not None else None
        first = backup.epochs if backup else 0
        watched = (np.asarray(ds.x_val), ds.y_val) if len(ds.y_val) else None
        stream = fit_arguments(
            (np.asarray(ds.x_train), ds.y_train),
            watched,
            recipe.batch_size,
            seed=backup.seed if backup else seed,
            first_epoch=first,
        )
        # The backup comes last, so that it holds what other callbacks change.
        called = [*(callbacks or []), *([backup] if backup else [])]
        if backup and first == recipe.epochs:  # stopped behind the last epoch
            history = keras.callbacks.History()
            model.optimizer.finalize_variable_values(model.trainable_variables)
        else:
            history = model.fit(**stream, epochs=recipe.epochs, verbose=verbose, callbacks=called)
    finally:
        for variable, regularizer in held:
            variable.regularizer = regularizer
    if backup:
        history.history, history.epoch = backup.history, list(range(backup.epochs))
        backup.clear()
    return history


def _held(model: keras.Model) -> list[tuple[keras.Variable, Any]]:
    """Returns the variables that L2-SP holds, each with its regularizer: all that train, but the head's."""
    # By the variables: the `input` of a head above a trunk is that of the whole classifier.
    free = {id(variable) for variable in model.layers[-1].trainable_weights}
    held = [(v, v.regularizer) for v in model.trainable_weights if id(v) not in free]
    if not held:
        raise ValueError(
            "Nothing but the head is trainable, so L2-SP has nothing to hold. "
            "Unfreeze a part of the backbone, or leave l2_sp at 0."
        )
    return held


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def predict(model: keras.Model, x: np.ndarray | data.ImageSequence, batch_size: int = 64) -> np.ndarray:
    """Returns labels, int64 ``(n,)``, of images uint8 ``(n, h, w, 3)``, resized to the model's input.

    Example:
        >>> from tlhelpers import data, finetune
        >>> ds = data.load("digits", n_train=20, n_val=10, n_test=10)
        >>> finetune.predict(finetune.small_cnn(8, ds.n_classes), ds.x_test).shape
        (10,)
    """
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(x), batch_size):
        logits = model.predict_on_batch(data.resize(x[start : start + batch_size], model.input_shape[1]))
        found.append(np.asarray(logits).argmax(axis=1))
    return np.concatenate(found)


def small_cnn(
    image_size: int, n_classes: int, *, augmentation: keras.layers.Layer | None = None
) -> keras.Model:
    """Builds a small convolutional network with random weights: the baseline that learns from scratch.

    Six convolutions of 24 to 96 filters in three stages, each with batch normalisation and ReLU, then the
    mean over the image, dropout and a linear layer: about 164,000 parameters.

    Args:
        image_size: Side of the square input, in pixels.
        n_classes: Number of classes.
        augmentation: Layer applied to the raw images while training.

    Returns:
        Uncompiled model: raw RGB 0..255 ``(n, image_size, image_size, 3)`` -> logits ``(n, n_classes)``.

    Example:
        >>> from tlhelpers import finetune
        >>> model = finetune.small_cnn(image_size=32, n_classes=10)
        >>> model.input_shape, model.output_shape
        ((None, 32, 32, 3), (None, 10))
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
