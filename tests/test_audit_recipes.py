"""Correct recipes of Keras' own guides: the auditor is silent about them."""

import os

import keras
import numpy as np
import pytest
from keras import layers

from audit_models import LOGITS, compiled, photos, pretend, scaled, unknown
from tlhelpers import audit, backbones

ALL = bool(os.environ.get("TLHELPERS_ALL_BACKBONES"))
X, Y = photos(48)
VAL = photos(16, seed=9)
AUGMENTATION = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]


def densenet() -> keras.Model:
    keras.utils.set_random_seed(0)
    make = keras.applications.DenseNet121
    base = pretend(make(include_top=False, weights=None, input_shape=(32, 32, 3)))
    base.trainable = False
    return base


# A network of one's own, Lite0 with its real weights, and in the weekly run one of Keras'.
FAMILIES = {
    "own": (unknown, scaled),
    "lite0": (lambda: _frozen(backbones.load("efficientnet_lite0", image_size=32).model), None),
}
if ALL:
    prepare = keras.applications.densenet.preprocess_input
    FAMILIES |= {"densenet": (densenet, prepare)}


def _frozen(network: keras.Model) -> keras.Model:
    network.trainable = False
    return network


def classifier(family: str, n: int = 2, end: str | None = None, augmentation=(), dtype=None):
    base, before = FAMILIES[family][0](), FAMILIES[family][1]
    image = keras.Input((32, 32, 3))
    x = image
    for layer in augmentation:
        x = layer(x)
    x = base(before(x) if before else x, training=False)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    x = layers.Dropout(0.2)(x)
    return base, keras.Model(image, layers.Dense(n, activation=end, dtype=dtype)(x))


def feature_extraction(family):
    return compiled(classifier(family)[1]), (X, Y), VAL


def fine_tuning(family):
    base, model = classifier(family)
    base.trainable = True
    return compiled(model, optimizer=keras.optimizers.Adam(1e-5)), (X, Y), VAL


def upper_layers(family):
    base, model = classifier(family)
    base.trainable = True
    for layer in base.layers[:-4]:
        layer.trainable = False
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return compiled(model, optimizer=keras.optimizers.Adam(1e-4)), (X, Y), VAL


def mixed_precision(family):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return compiled(classifier(family, dtype="float32")[1]), (X, Y), VAL
    finally:
        keras.mixed_precision.set_global_policy("float32")


def lora(family):
    _, model = classifier(family)
    model.layers[-1].enable_lora(2)
    return compiled(model), (X, Y)


def several_labels(family):
    labels = np.stack([Y, 1 - Y, np.ones_like(Y)], 1).astype("float32")
    model = classifier(family, 3, "sigmoid")[1]
    return compiled(model, "binary_crossentropy", metrics=["binary_accuracy"]), (X, labels)


def focal_loss(family):
    model = classifier(family, 1, "sigmoid")[1]
    return compiled(model, keras.losses.BinaryFocalCrossentropy()), (X, Y)


def label_smoothing(family):
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    return compiled(classifier(family, 2, "softmax")[1], loss), (X, np.eye(2)[Y])


def augmentation_in_the_model(family):
    return compiled(classifier(family, augmentation=AUGMENTATION)[1]), (X, Y), VAL


def augmentation_in_the_data(family):
    turned = np.stack([np.rot90(image) for image in X]).astype("float32")
    batches = [(turned[i : i + 16], Y[i : i + 16]) for i in range(0, 48, 16)]
    return compiled(classifier(family)[1]), batches, VAL


def grey_made_colour(family):
    grey = np.repeat(X.mean(-1, keepdims=True), 3, -1)
    return compiled(classifier(family)[1]), (grey, Y)


def weights_of_rows(family):
    return compiled(classifier(family)[1]), (X, Y, np.where(Y, 3.0, 1.0))


def one_hot(family):
    return compiled(classifier(family, 2, "softmax")[1], "categorical_crossentropy"), (X, np.eye(2)[Y])


def regression(family):
    return compiled(classifier(family, 1)[1], "mse", metrics=["mae"]), (X, Y * 2.5 + 1)


RECIPES = [
    feature_extraction,
    fine_tuning,
    upper_layers,
    mixed_precision,
    lora,
    several_labels,
    focal_loss,
    label_smoothing,
    augmentation_in_the_model,
    augmentation_in_the_data,
    grey_made_colour,
    weights_of_rows,
    one_hot,
    regression,
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_correct_recipe_passes(recipe, family):
    if family == "lite0" and not ALL and recipe not in (feature_extraction, fine_tuning, grey_made_colour):
        pytest.skip("takes minutes in all: runs weekly, and where TLHELPERS_ALL_BACKBONES is set")
    model, *given = recipe(family)
    report = audit.check(model, *given)
    assert report.codes == (), report
    assert not [line for line in report.unchecked if "could not be" in line or "stops with" in line]


def test_a_task_of_kerashub_passes():
    """Its preprocessor is part of the path. The package is no dependency: this runs where it is installed."""
    hub = pytest.importorskip("keras_hub", reason="keras_hub is not installed")
    backbone = pretend(
        hub.models.DenseNetBackbone(stackwise_num_repeats=[2, 2], image_shape=(32, 32, 3)),
    )
    converter = hub.layers.ImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1.0)
    task = hub.models.ImageClassifier(
        backbone, 2, preprocessor=hub.models.ImageClassifierPreprocessor(converter), activation=None
    )
    task.backbone.trainable = False
    task.compile("adam", LOGITS)
    assert audit.check(task, (X, Y)).ok
    auditor = audit.Callback()
    task.fit(X, Y, verbose=0, callbacks=[auditor])
    assert auditor.report.ok
