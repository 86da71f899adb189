"""Heads on frozen features, and fine-tuning."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tlhelpers import data, features, losses, recipes
from tlhelpers.backbones import Backbone
from tlhelpers.recipes import Recipe

AUGMENTATION = "augmentation"  # the name of the layer that changes images while training

# Inverse strengths of the L2 penalty that a linear probe tries, in scikit-learn's sense of C.
PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class LinearProbe:
    """A multinomial logistic regression on standardised features.

    Attributes:
        pipeline: scikit-learn pipeline: `StandardScaler`, `LogisticRegression`.
        strength: The chosen C, inverse to the L2 penalty.
        val_accuracy: Accuracy on the validation features for each C tried, 0..1. The best of these is
            optimistic.
    """

    pipeline: Pipeline
    strength: float
    val_accuracy: dict[float, float]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.pipeline.predict(features).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns class probabilities ``(n, n_classes)`` of features ``(n, d)``."""
        return self.pipeline.predict_proba(features)

    def to_keras(self) -> keras.layers.Dense:
        """Returns the probe as one built Dense layer, features ``(n, d)`` -> logits ``(n, n_classes)``.

        Standardising is ``(f - m) / s``, and the regression is ``w f + b``; together they are one affine map
        with the kernel ``w / s`` and the bias ``b - w m / s``. The softmax of these logits equals
        `predict_proba`.
        """
        scaler, regression = self.pipeline[0], self.pipeline[1]
        kernel = (regression.coef_ / scaler.scale_).T
        bias = regression.intercept_ - regression.coef_ @ (scaler.mean_ / scaler.scale_)
        if kernel.shape[1] == 1:  # two classes: scikit-learn keeps one row, the log odds of the second class
            kernel, bias = np.hstack([0 * kernel, kernel]), np.concatenate([[0.0], bias])
        layer = keras.layers.Dense(kernel.shape[1], name="head")
        layer.build((None, kernel.shape[0]))
        layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
        return layer


def linear_probe(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray,
    y_val: np.ndarray,
    strengths: tuple[float, ...] = PROBE_STRENGTHS,
) -> LinearProbe:
    """Trains a linear classifier on frozen features; the L2 penalty is chosen on the validation features.

    Args:
        f_train: Features ``(n, d)``; their mean and spread standardise all features.
        y_train: Labels 0..n_classes-1, ``(n,)``; each class occurs.
        f_val: Validation features ``(m, d)``.
        y_val: Validation labels ``(m,)``.
        strengths: Values of C to try.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, or a class is missing.
    """
    _check_features(f_train, y_train, f_val, y_val)
    fitted: dict[float, Pipeline] = {}
    scores: dict[float, float] = {}
    with threadpool_limits(1):  # the solver's steps are small: more threads made it four times slower
        for strength in strengths:
            pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            fitted[strength] = pipeline.fit(f_train, y_train)
            scores[strength] = float(np.mean(pipeline.predict(f_val) == y_val))
    best = max(strengths, key=lambda c: (scores[c], -c))  # of equals, the stronger penalty
    return LinearProbe(fitted[best], best, scores)


@dataclass(frozen=True)
class MLPHead:
    """A network with one hidden layer on standardised features.

    Attributes:
        model: Features ``(n, d)`` -> logits ``(n, n_classes)``.
        val_accuracy: Accuracy on the validation features in the epoch that was kept, 0..1; optimistic.
    """

    model: keras.Model
    val_accuracy: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.predict_proba(features).argmax(axis=1).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns class probabilities ``(n, n_classes)`` of features ``(n, d)``."""
        return keras.ops.convert_to_numpy(keras.ops.softmax(self.model(features, training=False)))

    def to_keras(self) -> keras.Model:
        """Returns the head as one layer, features ``(n, d)`` -> logits ``(n, n_classes)``."""
        return self.model


def mlp_head(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray,
    y_val: np.ndarray,
    hidden: int = 256,
    dropout: float = 0.5,
    epochs: int = 40,
    batch_size: int = 128,
    seed: int = 0,
) -> MLPHead:
    """Trains a small network on frozen features, with AdamW; keeps its best epoch on the validation features.

    Args:
        f_train: Features ``(n, d)``; their mean and spread standardise all features.
        y_train: Labels 0..n_classes-1, ``(n,)``; each class occurs.
        f_val: Validation features ``(m, d)``.
        y_val: Validation labels ``(m,)``.
        hidden: Units of the hidden layer, with ReLU.
        dropout: Share of the standardised features, and of the hidden units, dropped in training.
        epochs: Most epochs; five without an improvement end the training.
        batch_size: Features in one step.
        seed: Of the initial weights, the dropout and the order.

    Raises:
        ValueError: As `linear_probe`.
    """
    _check_features(f_train, y_train, f_val, y_val)
    keras.utils.set_random_seed(seed)
    spread = f_train.std(axis=0)
    scale = keras.layers.Normalization(
        mean=f_train.mean(axis=0), variance=np.where(spread > 0, spread, 1) ** 2
    )
    model = keras.Sequential(
        [
            keras.Input(f_train.shape[1:]),
            scale,
            keras.layers.Dropout(dropout / 2),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(int(y_train.max()) + 1),
        ],
        name="mlp_head",
    )
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=5, mode="max", restore_best_weights=True)
    stream = _stream((f_train, y_train), (f_val, y_val), batch_size)
    history = model.fit(**stream, epochs=epochs, verbose=0, callbacks=[stop])
    return MLPHead(model, float(max(history.history["val_accuracy"])))


@dataclass(frozen=True)
class KNNHead:
    """The nearest training images, by the angle between their features.

    Attributes:
        neighbours: The fitted scikit-learn classifier; it takes features of length 1.
        k: The chosen number of neighbours.
        val_accuracy: Accuracy on the validation features for each number tried, 0..1.
    """

    neighbours: KNeighborsClassifier
    k: int
    val_accuracy: dict[int, float]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.neighbours.predict(_unit(features)).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns the share of each class among the neighbours, ``(n, n_classes)``."""
        return self.neighbours.predict_proba(_unit(features))


def knn_head(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray,
    y_val: np.ndarray,
    ks: tuple[int, ...] = (1, 5, 10, 20),
) -> KNNHead:
    """Classifies by the nearest training features; their number is chosen on the validation features.

    Nothing is trained: this is the baseline that a head has to beat.

    Args:
        f_train: Features ``(n, d)``.
        y_train: Labels 0..n_classes-1, ``(n,)``; each class occurs.
        f_val: Validation features ``(m, d)``.
        y_val: Validation labels ``(m,)``.
        ks: Numbers of neighbours to try; larger ones than there are training features are lowered to that.

    Raises:
        ValueError: As `linear_probe`.
    """
    _check_features(f_train, y_train, f_val, y_val)
    scores: dict[int, float] = {}
    for k in sorted({min(k, len(f_train)) for k in ks}):
        fitted = KNeighborsClassifier(k).fit(_unit(f_train), y_train)
        scores[k] = float(np.mean(fitted.predict(_unit(f_val)) == y_val))
    best = max(scores, key=lambda k: scores[k])
    return KNNHead(KNeighborsClassifier(best).fit(_unit(f_train), y_train), best, scores)


def _unit(features: np.ndarray) -> np.ndarray:
    """Scales features to length 1, so that the nearest are those with the most similar direction."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _check_features(f_train: np.ndarray, y_train: np.ndarray, f_val: np.ndarray, y_val: np.ndarray) -> None:
    for name, f, y in (("training", f_train, y_train), ("validation", f_val, y_val)):
        if f.ndim != 2 or f.shape[1] != f_train.shape[1] or y.shape != (len(f),) or len(f) == 0:
            raise ValueError(
                f"The {name} features must be (n, d) with labels (n,), n > 0, and the same d; "
                f"these are {f.shape} and {y.shape}."
            )
        if not np.isfinite(f).all():
            raise ValueError(
                f"The {name} features hold NaN or infinity. Look at the images and the backbone's weights."
            )
    classes = np.unique(y_train)
    if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
        raise ValueError(
            f"The training labels must be 0..n_classes-1, each present, at least two; these are {classes}."
        )


def build_classifier(
    backbone: Backbone,
    n_classes: int,
    head: keras.layers.Layer | None = None,
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


def freeze(backbone: Backbone, blocks: tuple[str, ...] | None = None, up_to: str | None = None) -> None:
    """Freezes a whole backbone, or some of its layers and every BatchNorm layer.

    A frozen BatchNorm layer keeps its statistics, since Keras runs it in inference mode. That is the only way
    that holds in Keras 3: in a functional model, ``base(x, training=False)`` is overridden by the
    ``training=True`` of ``fit``, and the statistics of unfrozen layers move.

    Args:
        backbone: From `tlhelpers.backbones.load`.
        blocks: Beginnings of the names of the layers to freeze, such as ``("stem", "block1")``; all other
            layers but BatchNorm become trainable. With neither this nor ``up_to``, everything is frozen.
        up_to: Beginning of a layer's name, such as ``"block4"``: freezes the last layer named so, and all
            layers below it.

    Raises:
        ValueError: If no layer is named so, or both ``blocks`` and ``up_to`` are given.
    """
    if blocks is not None and up_to is not None:
        raise ValueError("Give blocks or up_to, not both.")
    layers = list(recipes.leaf_layers(backbone.model))
    for beginning in (*(blocks or ()), *([up_to] if up_to is not None else [])):
        if not any(recipes.begins(layer.name, beginning) for layer in layers):
            raise ValueError(
                f"No layer of {backbone.name} has a name that begins with {beginning!r}. "
                f"Its blocks: {', '.join(backbone.blocks)}."
            )
    if up_to is not None:
        last = max(i for i, layer in enumerate(layers) if recipes.begins(layer.name, up_to))
        chosen = [i <= last for i in range(len(layers))]
    else:
        chosen = [
            blocks is None or any(recipes.begins(layer.name, block) for block in blocks) for layer in layers
        ]
    backbone.model.trainable = True  # sets the flag of every layer, and of the model itself
    for layer, found in zip(layers, chosen, strict=True):
        layer.trainable = not (found or isinstance(layer, keras.layers.BatchNormalization))
    if all(chosen):
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
        "No layer is frozen below the first unfrozen one: call transfer.freeze(backbone, up_to=...)."
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
    watched = (_inputs(model, ds.x_val), ds.y_val) if len(ds.y_val) else None
    train = (_inputs(model, ds.x_train), ds.y_train)
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
        stream = _stream(train, watched, recipe.batch_size)
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


def _stream(
    train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray] | None, batch_size: int
) -> dict[str, Any]:
    """Returns what `fit` takes to train on arrays: on TensorFlow streams of batches, elsewhere the arrays.

    Keras makes such streams of arrays by itself, but with the tuner of tf.data at work. The tuner's thread
    sleeps for longer and longer, and the end of an epoch waits for it: epochs of 6 seconds took 10.
    """
    if keras.backend.backend() != "tensorflow":
        return {"x": train[0], "y": train[1], "validation_data": val, "batch_size": batch_size}
    import tensorflow as tf

    untuned = tf.data.Options()
    untuned.autotune.enabled = False

    def batches(x: np.ndarray, y: np.ndarray, shuffled: bool) -> tf.data.Dataset:
        with tf.device("CPU:0"):  # all images may be too many for a GPU
            images, labels = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        rows = tf.data.Dataset.range(len(x))
        rows = rows.shuffle(len(x)) if shuffled else rows  # in another order in each epoch
        picked = rows.batch(batch_size).map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))
        return picked.prefetch(2).with_options(untuned)

    return {
        "x": batches(*train, shuffled=True),
        "validation_data": batches(*val, shuffled=False) if val else None,
        "shuffle": False,  # done above
    }


def predict(model: keras.Model, x: np.ndarray | data.ImageSequence, batch_size: int = 64) -> np.ndarray:
    """Returns labels, int64 ``(n,)``, of images uint8 ``(n, h, w, 3)``, resized to the model's input."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(x), batch_size):
        logits = model.predict_on_batch(_inputs(model, x[start : start + batch_size]))
        found.append(np.asarray(logits).argmax(axis=1))
    return np.concatenate(found)


def _inputs(model: keras.Model, x: np.ndarray | data.ImageSequence) -> np.ndarray:
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
