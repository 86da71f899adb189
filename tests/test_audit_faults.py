"""Each detector of the auditor: a planted fault that it finds, and not when it is disabled; and a twin.

The networks are small and look pretrained; the images are crops of two photographs.
"""

import io

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from PIL import Image

from audit_models import (
    LOGITS,
    codes_with_and_without,
    compiled,
    head,
    known,
    photos,
    pretend,
    scaled,
    unknown,
)
from tlhelpers import audit, backbones, finetune
from tlhelpers.audit import _checks, _heads, _probe
from tlhelpers.audit._model import find_base

X, Y = photos(48)
X_VAL, Y_VAL = photos(16, seed=5)
SEVERAL = np.stack([Y, 1 - Y, np.ones_like(Y)], 1).astype("float32")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """The networks of one test are the same in each run."""
    keras.utils.set_random_seed(0)


def good(n: int = 2, end: str | None = None) -> keras.Model:
    return head(unknown(), n, end)


def tuned(optimizer: keras.Optimizer, other_images: bool = False) -> keras.Model:
    """Fine-tuning of a base but for its first layer; perhaps with the statistics of images unlike these."""
    base = unknown(trainable=True)
    base.layers[1].trainable = False
    for layer in base.layers:
        if other_images and isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(layer.moving_mean + 30)
    return compiled(head(base), optimizer=optimizer)


def focal(from_logits: bool):
    """A loss of one's own, whose name and attributes tell nothing."""

    def loss(true, given):
        true = ops.one_hot(ops.cast(ops.reshape(true, (-1,)), "int32"), 2)
        given = ops.clip(ops.softmax(given) if from_logits else given, 1e-6, 1)
        return -ops.sum(true * (1 - given) ** 2 * ops.log(given), -1)

    return loss


def from_logits(true, given):
    return keras.losses.sparse_categorical_crossentropy(true, given, from_logits=True)


def with_end(end) -> keras.Model:
    model = good()
    return compiled(keras.Model(model.input, end(model.output)))


def mistyped() -> keras.Model:
    base = unknown(trainable=True)
    base.trainabe = False
    return compiled(head(base))


def nothing_open() -> keras.Model:
    model = good()
    model.trainable = False
    return compiled(model)


def half_loaded() -> keras.Model:
    base, new = known(), known(looks_pretrained=False)
    for layer, fresh in list(zip(base.layers, new.layers, strict=True))[60:]:
        layer.set_weights(fresh.get_weights())
    return compiled(head(base))


def not_a_number() -> keras.Model:
    model = compiled(good())
    model.layers[-1].bias.assign([np.nan, 0.0])
    return model


def lora(frozen: bool) -> keras.Model:
    model = good()
    model.layers[-1].enable_lora(2)
    model.layers[-1].trainable = not frozen
    return compiled(model)


def late_regularizer() -> keras.Model:
    model = good()
    model.layers[-1].kernel_regularizer = keras.regularizers.L2(1e-3)
    return compiled(model)


def narrow(units: int, n: int = 5) -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(unknown()(scaled(image)))
    return compiled(keras.Model(image, layers.Dense(n)(layers.Dense(units, activation="relu")(x))))


def augmented(*steps) -> keras.Model:
    return compiled(head(unknown(), before=keras.Sequential(list(steps))))


def saved_again(images: np.ndarray) -> np.ndarray:
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=70)
        found.append(np.array(Image.open(file)))
    return np.stack(found)


def rate_came_down() -> keras.Model:
    model = compiled(good())
    model.fit(X[:8], Y[:8], verbose=0)
    model.optimizer.learning_rate = 1e-6
    return model


def grey(images: np.ndarray) -> np.ndarray:
    return np.repeat(images.mean(-1, keepdims=True), 3, -1).astype("uint8")


def batches(x: np.ndarray, y: np.ndarray) -> list[tuple]:
    return [(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]


class Shuffled(keras.utils.PyDataset):
    """Another order in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple:
        rows = self.rng.permutation(16)[:8]
        return X_VAL[rows], Y_VAL[rows]


def tinted(strength: float, permuted: bool = False, n: int = 120) -> tuple:
    """Crops, a tint for each of five classes."""
    y = np.arange(n) % 5
    tints = np.random.default_rng(1).uniform(-1, 1, (5, 3))
    x = photos(n)[0] * (1 + strength * tints[y][:, None, None])
    y = np.random.default_rng(3).permutation(y) if permuted else y
    return np.clip(x, 0, 255).astype("uint8"), y


def lite0() -> keras.Model:
    """Real weights: their features tell scenes apart."""
    backbone = backbones.load("efficientnet_lite0", 64)
    model = finetune.build_classifier(backbone, 2)
    finetune.freeze(backbone)
    return compiled(model)


def two_scenes(permuted: bool) -> tuple:
    x, y = photos(60, 64)
    return x, np.random.default_rng(1).permutation(y) if permuted else y


def on_top(layer, end: str | None = "softmax", loss="sparse_categorical_crossentropy") -> keras.Model:
    """A classifier, and one more layer on it."""
    model = good(2, end)
    return compiled(keras.Model(model.input, layer(model.output)), loss)


def logits_with(**metrics) -> keras.Model:
    model = good(1)
    model.compile("adam", BINARY, **metrics)
    return model


def classes_with(metric, n: int = 2, loss="categorical_crossentropy") -> keras.Model:
    return compiled(good(n, "softmax"), loss, metrics=[metric])


def no_clip(true, given):
    """A loss that is not a number for what is no probability."""
    return -ops.sum(ops.one_hot(ops.cast(ops.reshape(true, (-1,)), "int32"), 2) * ops.log(given), -1)


def late_depthwise_regularizer() -> keras.Model:
    base = known()
    next(
        x for x in base.layers if hasattr(x, "depthwise_regularizer")
    ).depthwise_regularizer = keras.regularizers.L2(1e-3)
    return compiled(head(base))


class InTurn:
    """Batches that come in turn."""

    def __init__(self, x: np.ndarray, y: np.ndarray, **more) -> None:
        self.given = batches(x, y)
        vars(self).update(more)

    def __len__(self) -> int:
        return len(self.given)

    def __iter__(self):
        return iter(self.given)


def map_of(end: str | None, loss=LOGITS) -> keras.Model:
    """Two classes for each place."""
    base = unknown()
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(2, 1, activation=end)(layers.Resizing(16, 16)(base(scaled(image))))
    return compiled(keras.Model(image, x), loss)


def open_base(*more, channels: int = 3, before=lambda x: x) -> keras.Model:
    """A network whose layers lie open, and more layers after it."""
    image = keras.Input((32, 32, channels))
    base = known()
    model = keras.Model(image, base(before(image))) if channels != 3 else base
    x = model.output
    for layer in more:
        x = layer(x)
    return compiled(keras.Model(model.input, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))


def conv_head() -> keras.Model:
    return open_base(layers.Conv2D(8, 1), layers.BatchNormalization(), layers.ReLU())


def unet() -> keras.Model:
    """A frozen network, and a new decoder with what it skips."""
    base = known()
    x = base.output
    for name in ("block_6_expand_relu", "block_1_expand_relu"):
        skipped = base.get_layer(name).output
        x = layers.UpSampling2D(skipped.shape[1] // x.shape[1])(x)
        x = layers.Concatenate()([x, skipped])
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))
    return compiled(keras.Model(base.input, layers.Conv2D(2, 1)(x)))


def grey_input() -> keras.Model:
    return open_base(channels=1, before=lambda x: layers.Concatenate()([scaled(x)] * 3))


def adapter(channels: int) -> keras.Model:
    """A learned convolution before the base; it has learned to pass the colours on."""
    image = keras.Input((32, 32, channels))
    passing = keras.initializers.Constant(np.eye(channels, 3)[None, None])
    x = known()(layers.Conv2D(3, 1, kernel_initializer=passing)(scaled(image)))
    return compiled(keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))


def bright(low: float) -> np.ndarray:
    return low + X.astype("float32") * (255 - low) / 255


def spots() -> np.ndarray:
    """A dark field with a few bright spots."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.3, (48, 32, 32, 3)).clip(0)
    for image in x:
        row, column = rng.integers(0, 30, 2)
        image[row, column : column + 2] = 180
    return x.astype("float32")


def one_part(n: int, seed: int) -> tuple:
    """Photographs of one part under one lamp, with scratches."""
    rng = np.random.default_rng(seed)
    x = photos(1, 64)[0].astype(float) + rng.normal(0, 6, (n, 64, 64, 3)) + rng.normal(0, 3, (n, 1, 1, 1))
    for image in x[1::2]:
        row, column = rng.integers(8, 50, 2)
        image[row : row + 3, column : column + 9] -= 80
    return np.clip(x, 0, 255).astype("uint8"), np.arange(n) % 2


def rare() -> tuple:
    x, y = photos(160)[0], np.zeros(160, int)
    y[7] = y[90] = 1
    return x, y


def with_loss(loss, n: int = 1, end: str | None = None) -> keras.Model:
    return compiled(good(n, end), loss, metrics=[])


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
MASK = (X[:, ::2, ::2].mean(-1) > 110).astype("int32")
NAN = np.where(np.arange(48)[:, None, None, None] == 3, np.nan, X.astype("float32"))
BRIGHT = np.clip(X[:8].astype(int) + 25, 0, 255).astype("uint8")
ONE_COLOUR = np.zeros_like(X) + np.arange(48, dtype="uint8")[:, None, None, None]
SORTED = np.sort(Y)

# Detector, code, what is planted: a model and the sets.
FAULTS = {
    "set to another name": ("base_moves", "base-moves", lambda: (mistyped(), (X, Y))),
    "trains unasked": ("base_moves", "base-trains", lambda: (compiled(head(unknown(True))), (X, Y))),
    "batch statistics": (
        "statistics_move",
        "statistics-move",
        lambda: (tuned(optimizers.Adam(1e-4), other_images=True), (X, Y)),
    ),
    "a rate for fine-tuning, and all frozen": (
        "base_still",
        "base-still",
        lambda: (compiled(good(), optimizer=optimizers.Adam(1e-5)), (X, Y)),
    ),
    "batch statistics of small batches": (
        "statistics_move",
        "statistics-move",
        lambda: (tuned(optimizers.Adam(1e-4)), batches(X, Y)),
    ),
    "nothing trains": ("nothing_trains", "nothing-trains", lambda: (nothing_open(), (X, Y))),
    "random base": (
        "base_random",
        "base-random",
        lambda: (compiled(head(known(looks_pretrained=False))), (X, Y)),
    ),
    "half loaded": ("base_random", "base-random", lambda: (half_loaded(), (X, Y))),
    "NaN in a weight": ("broken", "weights-broken", lambda: (not_a_number(), (X, Y))),
    "frozen LoRA": ("lora_frozen", "lora-frozen", lambda: (lora(frozen=True), (X, Y))),
    "late regularizer": ("regulariser_lost", "regulariser-lost", lambda: (late_regularizer(), (X, Y))),
    "scaled twice": ("preprocessing", "preprocessing-twice", lambda: (compiled(good()), (X / 255 / 255, Y))),
    "brightness of 0..255": (
        "augmentation_scale",
        "augmentation-scale",
        lambda: (augmented(layers.Rescaling(1 / 255), layers.RandomBrightness(0.3)), (X, Y)),
    ),
    "another size": ("images_size", "images-size", lambda: (compiled(good()), photos(12, 48))),
    "NaN in a pixel": ("pixels", "pixels-broken", lambda: (compiled(good()), (NAN, Y))),
    "black after a cast": (
        "pixels",
        "pixels-empty",
        lambda: (compiled(good()), ((X / 255).astype("uint8"), Y)),
    ),
    "one colour each": ("pixels", "pixels-empty", lambda: (compiled(good()), (ONE_COLOUR, Y))),
    "all alike": ("pixels", "pixels-alike", lambda: (compiled(good()), (np.repeat(X[:1], 48, 0), Y))),
    "16 bits": ("pixels", "pixels-range", lambda: (compiled(good()), (X.astype("uint16") * 257, Y))),
    "two scales": ("pixels", "pixels-differ", lambda: (compiled(good()), (X, Y), (X_VAL / 255, Y_VAL))),
    "grey in one set": ("pixels", "colours-differ", lambda: (compiled(good()), (grey(X), Y), (X_VAL, Y_VAL))),
    "same images": ("shared_images", "shared-images", lambda: (compiled(good()), (X, Y), (X[:8], Y[:8]))),
    "mirrored": (
        "shared_images",
        "shared-images",
        lambda: (compiled(good()), (X, Y), (X[:8, :, ::-1], Y[:8])),
    ),
    "brightened": ("shared_images", "shared-images", lambda: (compiled(good()), (X, Y), (BRIGHT, Y[:8]))),
    "saved again": (
        "shared_images",
        "shared-images",
        lambda: (compiled(good()), (X, Y), (saved_again(X[:8]), Y[:8])),
    ),
    "another order": ("order_changes", "order-changes", lambda: (compiled(good()), (X, Y), Shuffled())),
    "labels of others": (
        "labels_meaningless",
        "labels-meaningless",
        lambda: (compiled(good(5)), tinted(0.5, permuted=True)),
    ),
    "labels of others, two scenes": (
        "labels_meaningless",
        "labels-meaningless",
        lambda: (lite0(), two_scenes(permuted=True)),
    ),
    "one class": (
        "classes_missing",
        "classes-missing",
        lambda: (compiled(good()), (X, Y), (X_VAL[::2], Y_VAL[::2])),
    ),
    "one class a batch": (
        "batches_sorted",
        "batches-sorted",
        lambda: (compiled(good()), batches(X[np.argsort(Y)], SORTED)),
    ),
    "focal loss of logits": (
        "head_logits",
        "head-logits",
        lambda: (compiled(good(2, "softmax"), focal(True)), (X, Y)),
    ),
    "focal loss of probabilities": (
        "head_logits",
        "head-logits",
        lambda: (compiled(good(), focal(False)), (X, Y)),
    ),
    "function as a loss": (
        "head_logits",
        "head-logits",
        lambda: (compiled(good(2, "softmax"), from_logits), (X, Y)),
    ),
    "softmax as an operation": ("head_logits", "head-logits", lambda: (with_end(ops.softmax), (X, Y))),
    "softmax in a lambda": (
        "head_logits",
        "head-logits",
        lambda: (with_end(layers.Lambda(lambda x: ops.softmax(x), output_shape=(2,))), (X, Y)),
    ),
    "one softmax": ("head_loss", "head-loss", lambda: (compiled(good(1, "softmax"), "mse"), (X, Y))),
    "relu last": ("head_activation", "head-activation", lambda: (compiled(good(2, "relu")), (X, Y))),
    "tanh last": (
        "head_activation",
        "head-activation",
        lambda: (compiled(good(1, "tanh"), "binary_crossentropy"), (X, Y)),
    ),
    "few units": ("head_activation", "head-narrow", lambda: (narrow(3), (X, np.arange(48) % 5))),
    "accuracy at 0.5": ("metric_threshold", "metric-threshold", lambda: (compiled(good(1), BINARY), (X, Y))),
    "several labels": (
        "labels_several",
        "labels-several",
        lambda: (compiled(good(3, "softmax"), "categorical_crossentropy"), (X, SEVERAL)),
    ),
    "NaN in a label": (
        "labels_broken",
        "labels-broken",
        lambda: (compiled(good(1), "mse"), (X, np.where(Y, np.nan, 1.0))),
    ),
    "a softmax of a softmax": ("head_logits", "head-logits", lambda: (on_top(layers.Softmax()), (X, Y))),
    "a softmax of a relu": (
        "head_activation",
        "head-activation",
        lambda: (on_top(layers.Softmax(), "relu"), (X, Y)),
    ),
    "softmax of each place": ("head_logits", "head-logits", lambda: (map_of("softmax"), (X, MASK))),
    "precision of logits": (
        "metric_threshold",
        "metric-threshold",
        lambda: (logits_with(metrics=[keras.metrics.Precision()]), (X, Y)),
    ),
    "area of logits": (
        "metric_threshold",
        "metric-threshold",
        lambda: (logits_with(metrics=[keras.metrics.AUC()]), (X, Y)),
    ),
    "weighted accuracy at 0.5": (
        "metric_threshold",
        "metric-threshold",
        lambda: (logits_with(weighted_metrics=["accuracy"]), (X, Y)),
    ),
    "yes or no of ten classes": (
        "metric_threshold",
        "metric-threshold",
        lambda: (classes_with(keras.metrics.BinaryAccuracy(), 10), (X, np.eye(10)[np.arange(48) % 10])),
    ),
    "equal numbers": (
        "metric_threshold",
        "metric-threshold",
        lambda: (classes_with(keras.metrics.Accuracy()), (X, np.eye(2)[Y])),
    ),
    "categorical accuracy of integers": (
        "metric_threshold",
        "metric-threshold",
        lambda: (classes_with("categorical_accuracy", 2, "sparse_categorical_crossentropy"), (X, Y)),
    ),
    "a loss that is no number": ("step_destroys", "step-destroys", lambda: (with_loss(no_clip, 2), (X, Y))),
    "contrast of -1..1": (
        "augmentation_scale",
        "augmentation-scale",
        lambda: (augmented(layers.Rescaling(1 / 127.5, -1), layers.RandomContrast(0.3)), (X, Y)),
    ),
    "late depthwise regularizer": (
        "regulariser_lost",
        "regulariser-lost",
        lambda: (late_depthwise_regularizer(), (X, Y)),
    ),
    "ten outputs for a folder of two classes": (
        "outputs_and_labels",
        "outputs-many",
        lambda: (compiled(good(10)), InTurn(X, Y, class_names=["a", "b"])),
    ),
    "one class in many batches": (
        "classes_missing",
        "classes-missing",
        lambda: (compiled(good()), (X, Y), InTurn(photos(320, seed=5)[0][::2], np.zeros(160, int))),
    ),
    "too many outputs": ("outputs_and_labels", "outputs-many", lambda: (compiled(good(5)), (X, Y))),
    "momentum": ("large_rate", "rate-large", lambda: (tuned(optimizers.SGD(0.05, momentum=0.9)), (X, Y))),
    "a rate that is measured": ("large_rate", "rate-large", lambda: (tuned(optimizers.Adagrad(0.5)), (X, Y))),
    "a step too far": (
        "step_destroys",
        "step-destroys",
        lambda: (compiled(good(), optimizer=optimizers.Adam(5.0)), (X, Y)),
    ),
}

TWINS = {
    "a frozen base": lambda: (compiled(head(known())), (X, Y), (X_VAL, Y_VAL)),
    "labels of a hard task": lambda: (compiled(good(5)), tinted(0.03)),
    "two scenes": lambda: (lite0(), two_scenes(permuted=False)),
    "statistics that fit the images": lambda: (tuned(optimizers.Adam(1e-3)), (X, Y)),
    "a small rate of a head that has trained": lambda: (rate_came_down(), (X, Y)),
    "LoRA": lambda: (lora(frozen=False), (X, Y)),
    "augmentation before the scaling": lambda: (
        augmented(
            layers.RandomBrightness(0.2),
            layers.RandomRotation(0.1),
            layers.RandomContrast(0.2),
            layers.Rescaling(1 / 255),
        ),
        (X, Y),
    ),
    "brightness told its range": lambda: (
        augmented(layers.Rescaling(1 / 255), layers.RandomBrightness(0.2, value_range=(0, 1))),
        (X, Y),
    ),
    "grey everywhere": lambda: (compiled(good()), (grey(X), Y), (grey(X_VAL), Y_VAL)),
    "bicubic overshoot": lambda: (compiled(good()), (X.astype("float32") * 1.08 - 10, Y)),
    "focal loss of logits": lambda: (compiled(good(), focal(True)), (X, Y)),
    "focal loss of probabilities": lambda: (compiled(good(2, "softmax"), focal(False)), (X, Y)),
    "label smoothing": lambda: (
        compiled(good(), keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)),
        (X, np.eye(2)[Y]),
    ),
    "accuracy at 0": lambda: (
        compiled(good(1), BINARY, metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)]),
        (X, Y),
    ),
    "several labels and sigmoids": lambda: (
        compiled(good(3, "sigmoid"), "binary_crossentropy", metrics=["binary_accuracy"]),
        (X, SEVERAL),
    ),
    "a number as the target": lambda: (compiled(good(1), "mse", metrics=["mae"]), (X, Y * 3.5)),
    "wide enough": lambda: (narrow(64, 2), (X, Y)),
    "mixed batches": lambda: (compiled(good()), batches(X, Y)),
    "a softmax of linear": lambda: (on_top(layers.Softmax(), None), (X, Y)),
    "logits of each place": lambda: (map_of(None), (X, MASK)),
    "metrics of logits": lambda: (
        logits_with(
            metrics=[keras.metrics.Precision(thresholds=0.0), keras.metrics.AUC(from_logits=True)],
            weighted_metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
        ),
        (X, Y),
    ),
    "accuracy that finds its form": lambda: (classes_with("accuracy"), (X, np.eye(2)[Y])),
    "two outputs and binary cross-entropy": lambda: (
        classes_with("accuracy", 2, "binary_crossentropy"),
        (X, np.eye(2)[Y]),
    ),
    "counts": lambda: (with_loss("poisson", 1, "softplus"), (X, Y * 3.0 + 1)),
    "counts by their logarithm": lambda: (with_loss("poisson", 1, "exponential"), (X, Y * 3.0 + 1)),
    "angles": lambda: (
        with_loss(keras.losses.CosineSimilarity(), 8),
        (X, np.random.default_rng(0).normal(size=(48, 8)).astype("float32")),
    ),
    "overlaps": lambda: (
        with_loss(keras.losses.Dice(), 2, "softmax"),
        (X, np.eye(2, dtype="float32")[Y]),
    ),
    "overlaps of one output": lambda: (
        with_loss(keras.losses.Tversky(), 1, "sigmoid"),
        (X, Y[:, None].astype("float32")),
    ),
    "forty units before fifty classes": lambda: (narrow(40, 50), (X, np.arange(48))),
    "a convolution in the head": lambda: (conv_head(), [(X / 127.5 - 1, Y)]),
    "an encoder and a decoder": lambda: (unet(), [(X / 127.5 - 1, MASK)]),
    "one channel made three": lambda: (grey_input(), (X.mean(-1, keepdims=True), Y)),
    "a learned convolution before the base": lambda: (adapter(3), (X.astype("float32"), Y)),
    "the same for four channels": lambda: (
        adapter(4),
        (np.concatenate([X, X[..., :1]], -1).astype("float32"), Y),
    ),
    "bright images": lambda: (compiled(head(known(), before=None)), (bright(130) / 127.5 - 1, Y)),
    "quite bright images": lambda: (compiled(head(known(), before=None)), (bright(118) / 127.5 - 1, Y)),
    "a dark field": lambda: (compiled(head(known(), before=layers.Rescaling(2.0, -1))), (spots() / 255, Y)),
    "a dark field of 0..255": lambda: (compiled(head(known())), (spots(), Y)),
    "one part under one lamp": lambda: (compiled(head(unknown(size=64))), one_part(32, 1), one_part(16, 2)),
    "one image in eighty": lambda: (compiled(good(1, "sigmoid"), "binary_crossentropy"), InTurn(*rare())),
    "first rows without weight": lambda: (compiled(good()), (X, Y, (np.arange(48) > 20).astype("float32"))),
    "regularizer in time": lambda: (
        compiled(
            keras.Model(
                (model := good()).input,
                layers.Dense(2, kernel_regularizer="l2")(model.layers[-1].input),
            )
        ),
        (X, Y),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_only_by_its_detector(name, monkeypatch):
    """Random features say nothing about labels; where it is not the fault, that is let pass."""
    detector, code, plant = FAULTS[name]
    model, *given = plant()
    found, rest, failed = codes_with_and_without(
        detector,
        model,
        *given,
        base="fine-tuned" if detector == "large_rate" else None,
        monkeypatch=monkeypatch,
    )
    assert code in found
    assert code not in rest
    assert not failed


@pytest.mark.parametrize("name", TWINS)
def test_its_correct_twin_passes(name):
    model, *given = TWINS[name]()
    report = audit.check(model, *given)
    assert report.codes == ()
    assert not [line for line in report.unchecked if "could not be" in line or "stops with" in line]


def test_every_detector_has_a_planted_fault():
    """Those of freezing, families and fit are planted in `test_audit` and `test_audit_data`."""
    elsewhere = {
        "stale_compile",
        "labels_loss",
        "loss_explodes",
        "modes_differ",
        "failing_step",
    }
    planted = {detector for detector, _, _ in FAULTS.values()} | elsewhere
    assert {detector.__name__ for detector in _checks.DETECTORS} == planted


@pytest.mark.parametrize("make", [conv_head, unet])
def test_a_new_part_after_an_open_base_is_no_base(make):
    """It may learn where the base is frozen; what is frozen, or was trained before, is the base."""
    labels = MASK if make is unet else Y
    model = make()
    assert audit.check(model, (X / 127.5 - 1, labels), base="frozen").ok
    next(x for x in model.layers[30:] if isinstance(x, layers.Conv2D)).trainable = True
    moves = audit.check(compiled(model), (X / 127.5 - 1, labels), base="frozen").codes
    assert "base-moves" in moves or "statistics-move" in moves


def test_copies_among_images_that_are_all_alike():
    """Nearer than they are to each other, which is said."""
    x, y = one_part(32, 1)
    model = compiled(head(unknown(size=64)))
    brighter = np.clip(x[:8].astype(int) + 10, 0, 255).astype("uint8")
    report = audit.check(model, (x, y), (brighter, y[:8]))
    assert "shared-images" in report.codes
    assert "as alike themselves as copies" in "\n".join(report.unchecked)


@pytest.mark.parametrize("loss", ["dice", "tversky"])
def test_an_overlap_of_logits_is_none(loss):
    model = with_loss(keras.losses.get(loss), 1)
    assert audit.check(model, (X, Y[:, None].astype("float32"))).codes == ("head-logits",)


def test_an_image_set_of_another_crop_is_no_copy():
    report = audit.check(compiled(good()), (X, Y), (photos(6, seed=9)))
    assert "shared-images" not in report.codes


def test_a_network_of_ones_own_may_look_a_little_like_vgg():
    """A plain stack of convolutions with other widths is of no family."""
    image = keras.Input((32, 32, 3))
    x = image
    for filters in (32, 32, 64, 64, 128, 128, 128):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    base = pretend(keras.Model(image, layers.MaxPooling2D()(x)))
    base.trainable = False
    report = audit.check(compiled(head(base, before=None), LOGITS), (X / 255, Y))
    assert report.ok
    assert any("family of the base is unknown" in line for line in report.unchecked)


@pytest.mark.parametrize("given", [1.0, 1 - 2**-24])
def test_a_softmax_of_one_output_is_one_up_to_rounding(given):
    """Without oneDNN, TensorFlow's softmax over one output gives a neighbour of 1 for some rows."""
    assert _heads._end(np.full((16, 1), given, "float32"), "softmax") == "ones"


def test_many_small_images_of_small_numbers_are_told_apart():
    """Two sets of 4,000 have 16 million pairs, so that what stands for an image must not be short."""
    a, b = np.random.default_rng(0).random((2, 4000, 8, 8, 3), np.float32)
    y = np.arange(4000) % 2
    assert "shared-images" not in audit.check(good(), (a, y), (b, y)).codes
    b[7] = a[9]
    found = {f.code: f.measured for f in audit.check(good(), (a, y), (b.astype("float64"), y)).findings}
    assert found["shared-images"] == 1


def test_small_images_are_looked_at_in_one_call(monkeypatch):
    """A call costs much in itself; and where there are several, they give the same."""
    calls, given_by, model = [], _probe.given_by, good()
    monkeypatch.setattr(_probe, "given_by", lambda *given: calls.append(given) or given_by(*given))
    once = _probe.look(model, find_base(model), X)
    assert len(calls) == 1
    monkeypatch.setattr(_probe, "VALUES", 5 * X[0].size)
    several = _probe.look(model, find_base(model), X)
    assert len(calls) == 1 + 10
    np.testing.assert_allclose(once.features, several.features, rtol=1e-3, atol=1e-5)
