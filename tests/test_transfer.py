"""Behaviour of tlhelpers.transfer, on networks so small that each test takes a moment."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.linear_model import LogisticRegression

from tlhelpers import data, transfer
from tlhelpers.backbones import Backbone

SIZE = 8


def make_backbone() -> Backbone:
    """A backbone with batch normalisation, as pretrained ones have."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name="preprocess")(inputs)
    for block in ("block1", "block2"):
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name=f"{block}_conv")(x)
        x = keras.layers.BatchNormalization(momentum=0.5, name=f"{block}_bn")(x)
        x = keras.layers.ReLU(name=f"{block}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return Backbone("tiny", SIZE, keras.Model(inputs, x, name="tiny"), "random")


def images(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def make_dataset(size: int = SIZE) -> data.Dataset:
    """24 training and 6 validation images. There are no test images: nothing that trains may look at them."""
    y = np.arange(24) % 3
    return data.Dataset(
        images(24, size), y, images(6, size), np.arange(6) % 3, None, None, ("a", "b", "c"), "noise"
    )


def weights(model: keras.Model, part: str = "") -> dict[str, np.ndarray]:
    """Copies of the weights whose path holds ``part``."""
    return {w.path: np.array(w) for w in model.weights if part in w.path}


def moved(before: dict[str, np.ndarray], model: keras.Model) -> set[str]:
    """The paths of the weights that are not exactly what they were."""
    now = weights(model)
    return {path for path, value in before.items() if not np.array_equal(value, now[path])}


# --- The linear probe ---


def blobs(
    n: int, classes: int, d: int = 6, seed: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    centres = np.random.default_rng(7).normal(size=(classes, d))
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (centres[y] + noise * rng.normal(size=(n, d))) * 5 + 3, y


@pytest.mark.parametrize("wanted", [1e-4, 1.0])
def test_the_strength_is_chosen_on_the_validation_set(wanted):
    """Validation labels are what one of the strengths predicts, so that this one must win."""
    f, y = blobs(40, 3, noise=2.0)
    f_val, _ = blobs(200, 3, seed=1, noise=2.0)
    alone = transfer.linear_probe(f, y, f_val, np.zeros(200, int), strengths=(wanted,))
    probe = transfer.linear_probe(f, y, f_val, alone.predict(f_val), strengths=(1e-4, 1.0))
    assert probe.strength == wanted
    assert probe.val_accuracy[wanted] == 1.0
    assert min(probe.val_accuracy.values()) < 1.0
    assert np.array_equal(probe.predict(f_val), alone.predict(f_val))


def test_of_equals_the_stronger_penalty_wins():
    f, y = blobs(60, 3, noise=0.01)
    probe = transfer.linear_probe(f, y, f, y, strengths=(1.0, 0.1, 10.0))
    assert set(probe.val_accuracy) == {1.0, 0.1, 10.0}
    assert set(probe.val_accuracy.values()) == {1.0}
    assert probe.strength == 0.1


def test_standardised_by_the_training_features_alone():
    f, y = blobs(60, 3)
    f_val, y_val = blobs(30, 3, seed=1)
    probe = transfer.linear_probe(f, y, f_val, y_val, strengths=(0.1,))
    far = transfer.linear_probe(f, y, 1000 * f_val + 7, y_val, strengths=(0.1,))
    np.testing.assert_array_equal(probe.pipeline[0].mean_, f.mean(axis=0))
    np.testing.assert_allclose(probe.pipeline[0].scale_, f.std(axis=0))
    np.testing.assert_array_equal(probe.pipeline[1].coef_, far.pipeline[1].coef_)
    by_hand = LogisticRegression(C=0.1, max_iter=300).fit((f - f.mean(axis=0)) / f.std(axis=0), y)
    np.testing.assert_allclose(probe.pipeline[1].coef_, by_hand.coef_, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_as_a_keras_layer(classes):
    f, y = blobs(80, classes)
    f[:, 3] = 1.5  # a feature that never changes has no spread to divide by
    f = f.astype(np.float32)
    probe = transfer.linear_probe(f, y, f, y)
    layer = probe.to_keras()
    assert isinstance(layer, keras.layers.Dense)
    logits = layer(f)
    assert logits.shape == (80, classes)
    np.testing.assert_allclose(ops.softmax(logits), probe.predict_proba(f), atol=1e-5)
    predicted = probe.predict(f)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(np.asarray(logits).argmax(axis=1), predicted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"f_train": a["f_train"][0]}, "The training features must be"),
        (lambda a: a | {"y_train": a["y_train"][:-1]}, "The training features must be"),
        (
            lambda a: a | {"f_val": a["f_val"][:, :-1]},
            r"The validation features .* same d; these are \(12, 5\)",
        ),
        (lambda a: a | {"y_val": a["y_val"][:, None]}, "The validation features must be"),
        (
            lambda a: a | {"f_val": a["f_val"][:0], "y_val": a["y_val"][:0]},
            "The validation features .* n > 0",
        ),
        (
            lambda a: a | {"f_train": np.where(a["f_train"] > 5, np.nan, 1)},
            "training features hold NaN .* weights",
        ),
        (lambda a: a | {"f_val": a["f_val"] / 0.0}, "The validation features hold NaN or infinity"),
        (lambda a: a | {"y_train": 0 * a["y_train"]}, r"each present, at least two; these are \[0\]"),
        (lambda a: a | {"y_train": a["y_train"] + 1}, r"0..n_classes-1, .* these are \[1 2 3\]"),
        (lambda a: a | {"y_train": 2 * a["y_train"]}, r"these are \[0 2 4\]"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_a_probe_cannot_be_trained_on(change, message):
    (f, y), (f_val, y_val) = blobs(30, 3), blobs(12, 3, seed=1)
    with pytest.raises(ValueError, match=message):
        transfer.linear_probe(**change({"f_train": f, "y_train": y, "f_val": f_val, "y_val": y_val}))


# --- Classifiers ---


def test_a_classifier_gives_logits_of_raw_images():
    backbone = make_backbone()
    model = transfer.build_classifier(backbone, 3)
    x = images(5)
    logits = model.predict(x, verbose=0)
    assert logits.shape == (5, 3)
    kernel, bias = model.get_layer("head").get_weights()
    features = backbone.model.predict(x, verbose=0)
    np.testing.assert_allclose(logits, features @ kernel + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits, model.predict(x.astype(np.float32), verbose=0))
    assert model.get_layer("tiny") is backbone.model  # shared, not copied


def test_a_trained_probe_as_head_predicts_as_the_probe():
    backbone = make_backbone()
    x, y = images(30), np.arange(30) % 3
    features = backbone.model.predict(x, verbose=0)
    probe = transfer.linear_probe(features, y, features, y)
    model = transfer.build_classifier(backbone, 3, head=probe.to_keras())
    np.testing.assert_array_equal(transfer.predict(model, x), probe.predict(features))


def test_a_head_of_another_width():
    with pytest.raises(ValueError, match="head gives 5 numbers, but there are 3 classes"):
        transfer.build_classifier(make_backbone(), 3, head=keras.layers.Dense(5))


def test_augmentation_and_dropout_only_while_training():
    backbone, head, x = make_backbone(), keras.layers.Dense(3), images(4)
    plain = transfer.build_classifier(backbone, 3, head=head)
    noise = keras.layers.GaussianNoise(1.0, seed=0)
    for options in ({"augmentation": noise}, {"dropout": 0.5}):
        model = transfer.build_classifier(backbone, 3, head=head, **options)
        expected = plain.predict(x, verbose=0)
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
        np.testing.assert_array_equal(model(x), plain(x))
        trained = np.asarray(model(x, training=True))
        assert not np.allclose(trained, np.asarray(plain(x, training=True)))


def test_a_frozen_backbone_does_not_move_at_all():
    backbone = make_backbone()
    model = transfer.build_classifier(backbone, 3)
    transfer.freeze(backbone)
    assert not backbone.model.trainable_weights
    before = weights(model)
    transfer.fine_tune(model, make_dataset(), epochs=2, learning_rate=0.1, batch_size=8)
    assert moved(before, model) == set(weights(model, "head"))
    assert len(weights(model, "head")) == 2


def test_freezing_some_blocks_and_every_batch_normalisation():
    backbone = make_backbone()
    model = transfer.build_classifier(backbone, 3)
    transfer.freeze(backbone, blocks=("block1",))
    before = weights(model)
    transfer.fine_tune(model, make_dataset(), epochs=2, learning_rate=0.1, batch_size=8)
    assert moved(before, model) == set(weights(model, "head")) | set(weights(model, "block2_conv"))


def test_statistics_of_frozen_batch_normalisation_do_not_move():
    backbone = make_backbone()
    model = transfer.build_classifier(backbone, 3)
    transfer.freeze(backbone, blocks=())
    before = weights(model)
    assert sum("moving" in path for path in before) == 4
    transfer.fine_tune(model, make_dataset(), epochs=2, learning_rate=0.1, batch_size=8)
    found = moved(before, model)
    assert set(weights(model, "conv")) <= found
    assert not any("_bn/" in path for path in found)


def test_fine_tuning_compiles_anew_so_that_the_present_flags_count():
    backbone = make_backbone()
    model = transfer.build_classifier(backbone, 3)
    ds = make_dataset()
    transfer.freeze(backbone)
    transfer.fine_tune(model, ds, epochs=1, learning_rate=0.1, batch_size=8)
    first = model.optimizer
    transfer.freeze(backbone, blocks=())  # after the compilation
    before = weights(backbone.model, "conv")
    transfer.fine_tune(model, ds, epochs=1, learning_rate=0.1, batch_size=8)
    assert moved(before, backbone.model) == set(before)
    assert model.optimizer is not first
    assert int(model.optimizer.iterations) == 3


def test_the_learning_rate_warms_up_and_ends_at_zero():
    model = transfer.small_cnn(SIZE, 3)
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_, **__: rates.append(
            float(ops.convert_to_numpy(model.optimizer.learning_rate))
        )
    )
    history = transfer.fine_tune(
        model, make_dataset(), epochs=4, learning_rate=0.01, batch_size=5, warmup=0.2, callbacks=[watch]
    )
    assert len(rates) == 20  # five steps an epoch: the last, smaller batch counts
    np.testing.assert_allclose(rates[:5], [0, 0.0025, 0.005, 0.0075, 0.01], atol=1e-7)  # linear
    assert (np.diff(rates[4:]) < 0).all()
    np.testing.assert_allclose(rates[12], 0.01 / 2, atol=1e-7)  # the cosine is half way down
    assert rates[-1] < 0.02 * 0.01
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0, abs=1e-7)
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert all(len(values) == 4 for values in history.history.values())


def test_fine_tuning_resizes_and_learns():
    """Bright images against dark ones, of another size than the network's."""
    y = np.arange(40) % 2
    x = np.broadcast_to((40 + 170 * y)[:, None, None, None], (40, 12, 12, 3)).astype(np.uint8)
    ds = data.Dataset(x[:30], y[:30], x[30:], y[30:], None, None, ("dark", "bright"), "made")
    keras.utils.set_random_seed(1)
    model = transfer.build_classifier(make_backbone(), 2)
    history = transfer.fine_tune(model, ds, epochs=8, learning_rate=0.03, batch_size=8)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert transfer.predict(model, x).tolist() == y.tolist()


def test_predict_resizes_and_gives_labels():
    model = transfer.build_classifier(make_backbone(), 3)
    x = images(7, 11)
    found = transfer.predict(model, x, batch_size=3)
    assert found.shape == (7,)
    assert found.dtype == np.int64
    expected = model.predict(data.resize(x, SIZE), verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(found, expected)


# --- The baseline ---


def test_the_small_network_has_as_many_parameters_as_it_says():
    model = transfer.small_cnn(32, 10)
    channels = [3, 32, 32, 64, 64, 128, 128]
    kernels = sum(9 * a * b for a, b in itertools.pairwise(channels))
    normalisation = sum(4 * c for c in channels[1:])
    assert model.count_params() == kernels + normalisation + 128 * 10 + 10
    assert round(model.count_params(), -4) == 290_000
    assert model.output_shape == (None, 10)
    assert model.predict(images(2, 32), verbose=0).shape == (2, 10)


def test_the_small_network_augments_only_while_training():
    keras.utils.set_random_seed(0)
    plain = transfer.small_cnn(SIZE, 3)
    model = transfer.small_cnn(SIZE, 3, augmentation=keras.layers.GaussianNoise(1.0, seed=0))
    model.set_weights(plain.get_weights())
    x = images(3)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert isinstance(model.layers[1], keras.layers.GaussianNoise)  # in front of everything that learns
