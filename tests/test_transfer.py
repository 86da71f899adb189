"""Behaviour of heads and fine-tuning, on networks so small that each test takes a moment."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image
from sklearn.linear_model import LogisticRegression

from tiny import SIZE, images, make_backbone, make_dataset, moved, weights
from tlhelpers import backbones, data, features, finetune, heads, recipes
from tlhelpers.backbones import Backbone
from tlhelpers.streams import fit_arguments

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
    alone = heads.linear_probe(f, y, f_val, np.zeros(200, int), strengths=(wanted,))
    probe = heads.linear_probe(f, y, f_val, alone.predict(f_val), strengths=(1e-4, 1.0))
    assert probe.strength == wanted
    assert probe.val_accuracy == probe.tried[wanted] == 1.0
    assert min(probe.tried.values()) < 1.0
    assert np.array_equal(probe.predict(f_val), alone.predict(f_val))


def test_of_equals_the_stronger_penalty_wins():
    f, y = blobs(60, 3, noise=0.01)
    probe = heads.linear_probe(f, y, f, y, strengths=(1.0, 0.1, 10.0))
    assert probe.tried == {1.0: 1.0, 0.1: 1.0, 10.0: 1.0}
    assert probe.strength == 0.1


def test_standardised_by_the_training_features_alone():
    f, y = blobs(60, 3)
    f_val, y_val = blobs(30, 3, seed=1)
    probe = heads.linear_probe(f, y, f_val, y_val, strengths=(0.1,))
    far = heads.linear_probe(f, y, 1000 * f_val + 7, y_val, strengths=(0.1,))
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
    probe = heads.linear_probe(f, y, f, y)
    layer = probe.to_keras()
    assert isinstance(layer, keras.layers.Dense)
    logits = layer(f)
    assert logits.shape == (80, classes)
    np.testing.assert_allclose(ops.softmax(logits), probe.predict_proba(f), atol=1e-5)
    predicted = probe.predict(f)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(np.asarray(logits).argmax(axis=1), predicted)


@pytest.mark.parametrize("head", [heads.linear_probe, heads.mlp_head, heads.knn_head])
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
def test_what_a_head_cannot_be_trained_on(head, change, message):
    (f, y), (f_val, y_val) = blobs(30, 3), blobs(12, 3, seed=1)
    with pytest.raises(ValueError, match=message):
        head(**change({"f_train": f, "y_train": y, "f_val": f_val, "y_val": y_val}))


# --- A hidden layer ---


def rings(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that no plane parts: points near the origin, and points around them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1 + 2 * y + 0.1 * rng.normal(size=n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32), y


def test_a_hidden_layer_parts_what_no_plane_parts():
    (f, y), (f_val, y_val) = rings(400), rings(100, seed=1)
    head = heads.mlp_head(f, y, f_val, y_val, hidden=64, dropout=0.0, batch_size=16)
    linear = heads.linear_probe(f, y, f_val, y_val)
    assert head.val_accuracy > 0.95 > 0.75 > linear.val_accuracy
    labels, shares = head.predict(f_val), head.predict_proba(f_val)
    assert labels.shape == (100,)
    assert labels.dtype == np.int64
    assert shares.shape == (100, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares.argmax(axis=1), labels)
    assert np.mean(labels == y_val) == pytest.approx(head.val_accuracy)


def test_the_best_epoch_is_kept():
    """Labels that cannot be learned: the accuracy goes up and down, and the last epoch is not the best."""
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
    f_val, y_val = rng.normal(size=(401, 4)).astype(np.float32), np.arange(401) % 3
    seen = []
    fit = keras.Model.fit

    def watched(model, *arguments, **options):
        history = fit(model, *arguments, **options)
        seen.extend(history.history["val_accuracy"])
        return history

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", watched)
        head = heads.mlp_head(f, y, f_val, y_val, hidden=16, epochs=60)
    assert len(seen) <= 60
    assert seen[-1] < max(seen)
    assert (
        np.mean(head.predict(f_val) == y_val) == pytest.approx(max(seen)) == pytest.approx(head.val_accuracy)
    )


def test_five_epochs_without_an_improvement_end_the_training():
    f, y = blobs(60, 3, noise=0.01)
    epochs = []
    with pytest.MonkeyPatch.context() as patch:
        fit = keras.Model.fit
        patch.setattr(keras.Model, "fit", lambda *a, **k: epochs.append(len((h := fit(*a, **k)).epoch)) or h)
        head = heads.mlp_head(f, y, f, y, hidden=64, dropout=0.0, epochs=100, batch_size=8)
    assert head.val_accuracy == 1.0
    assert epochs[0] < 40


def test_a_hidden_layer_is_standardised_by_the_training_features_alone():
    f, y = blobs(60, 3)
    f[:, 3] = 1.5  # a feature that never changes has no spread to divide by
    f_val, y_val = blobs(30, 3, seed=1)
    head = heads.mlp_head(f, y, 1000 * f_val + 7, y_val, hidden=4, epochs=1)
    scale = head.model.layers[0]
    standard = np.asarray(scale(f.astype(np.float32)))
    spread = np.delete(standard, 3, axis=1)
    np.testing.assert_allclose(spread.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(spread.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(standard[:, 3], 0, atol=1e-4)
    assert np.isfinite(head.predict_proba(f_val)).all()


def test_a_seed_fixes_a_hidden_layer():
    (f, y), (f_val, y_val) = blobs(60, 3), blobs(30, 3, seed=1)
    first, same, other = (
        heads.mlp_head(f, y, f_val, y_val, hidden=8, epochs=2, seed=seed).predict_proba(f_val)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other, atol=1e-3)


def test_a_hidden_layer_as_the_head_of_a_classifier():
    backbone = make_backbone()
    x, y = images(30), np.arange(30) % 3
    features = backbone.model.predict(x, verbose=0)
    head = heads.mlp_head(features, y, features, y, hidden=8, epochs=2)
    model = finetune.build_classifier(backbone, 3, head=head.to_keras())
    np.testing.assert_array_equal(finetune.predict(model, x), head.predict(features))


# --- Neighbours ---


def test_neighbours_are_found_by_the_angle():
    f = np.array([[1.0, 0.0], [10.0, 1.0], [0.0, 1.0], [1.0, 10.0]])
    y = np.array([0, 0, 1, 1])
    head = heads.knn_head(f, y, f, y, ks=(1,))
    # nearer to the second class by distance, to the first one by angle
    assert head.predict(np.array([[0.5, 0.3], [0.03, 0.05]])).tolist() == [0, 1]
    np.testing.assert_array_equal(head.predict(1000 * f), y)
    assert head.predict(np.zeros((1, 2))).shape == (1,)  # a feature without a direction is no error


def test_neighbours_vote():
    (f, y), (f_val, y_val) = blobs(60, 3, noise=2.0), blobs(45, 3, seed=1, noise=2.0)
    head = heads.knn_head(f, y, f_val, y_val)
    assert set(head.tried) == {1, 5, 10, 20}
    assert head.val_accuracy == max(head.tried.values())
    labels, shares = head.predict(f_val), head.predict_proba(f_val)
    assert labels.dtype == np.int64
    assert np.mean(labels == y_val) == head.val_accuracy
    assert shares.shape == (45, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares * head.k, np.rint(shares * head.k), atol=1e-9)


@pytest.mark.parametrize("wanted", [1, 9])
def test_the_number_of_neighbours_is_chosen_on_the_validation_set(wanted):
    f, y = blobs(60, 3, noise=3.0)
    f_val, _ = blobs(200, 3, seed=1, noise=3.0)
    alone = heads.knn_head(f, y, f_val, np.zeros(200, int), ks=(wanted,))
    head = heads.knn_head(f, y, f_val, alone.predict(f_val), ks=(1, 9))
    assert head.k == wanted
    assert head.val_accuracy == 1.0 > min(head.tried.values())


def test_of_equals_the_fewest_neighbours_win():
    f, y = blobs(60, 3, noise=0.01)
    assert heads.knn_head(f, y, f, y, ks=(10, 1, 5)).k == 1


def test_no_more_neighbours_than_features():
    f, y = blobs(6, 3, noise=0.01)
    head = heads.knn_head(f, y, f, y, ks=(1, 5, 10, 20))
    assert set(head.tried) == {1, 5, 6}


@pytest.mark.parametrize("fit", [heads.linear_probe, heads.mlp_head, heads.knn_head])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_head_becomes_a_layer_that_gives_its_probabilities(fit, n_classes, tmp_path):
    (f, y), (f_val, y_val) = blobs(60, n_classes, noise=2.0), blobs(40, n_classes, seed=1, noise=2.0)
    f, f_val = f.astype(np.float32), f_val.astype(np.float32)
    head = fit(f, y, f_val, y_val)
    assert isinstance(head.val_accuracy, float)
    assert np.mean(head.predict(f_val) == y_val) == pytest.approx(head.val_accuracy)
    model = keras.Sequential([keras.Input(f.shape[1:]), head.to_keras()])
    model.save(tmp_path / "head.keras")  # of Keras' own layers: it loads without this package
    for network in (model, keras.models.load_model(tmp_path / "head.keras")):
        shares = keras.ops.convert_to_numpy(keras.ops.softmax(network(f_val)))
        np.testing.assert_allclose(shares, head.predict_proba(f_val), atol=1e-5)


# --- Classifiers ---


def test_a_classifier_gives_logits_of_raw_images():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
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
    probe = heads.linear_probe(features, y, features, y)
    model = finetune.build_classifier(backbone, 3, head=probe.to_keras())
    np.testing.assert_array_equal(finetune.predict(model, x), probe.predict(features))


def test_a_head_of_another_width():
    with pytest.raises(ValueError, match="head gives 5 numbers, but there are 3 classes"):
        finetune.build_classifier(make_backbone(), 3, head=keras.layers.Dense(5))


def test_augmentation_and_dropout_only_while_training():
    backbone, head, x = make_backbone(), keras.layers.Dense(3), images(4)
    plain = finetune.build_classifier(backbone, 3, head=head)
    noise = keras.layers.GaussianNoise(1.0, seed=0)
    for options in ({"augmentation": noise}, {"dropout": 0.5}):
        model = finetune.build_classifier(backbone, 3, head=head, **options)
        expected = plain.predict(x, verbose=0)
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
        np.testing.assert_array_equal(model(x), plain(x))
        trained = np.asarray(model(x, training=True))
        assert not np.allclose(trained, np.asarray(plain(x, training=True)))


def test_a_frozen_backbone_does_not_move_at_all():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
    finetune.freeze(backbone)
    assert not backbone.model.trainable_weights
    before = weights(model)
    finetune.fine_tune(model, make_dataset(), recipes.Recipe(epochs=2, learning_rate=0.1, batch_size=8))
    assert moved(before, model) == set(weights(model, "head"))
    assert len(weights(model, "head")) == 2


def test_freezing_some_blocks_and_every_batch_normalisation():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
    finetune.freeze(backbone, blocks=("block1",))
    before = weights(model)
    finetune.fine_tune(model, make_dataset(), recipes.Recipe(epochs=2, learning_rate=0.1, batch_size=8))
    assert moved(before, model) == set(weights(model, "head")) | set(weights(model, "block2_conv"))


def test_statistics_of_frozen_batch_normalisation_do_not_move():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
    finetune.freeze_batchnorm(backbone)
    before = weights(model)
    assert sum("moving" in path for path in before) == 4
    finetune.fine_tune(model, make_dataset(), recipes.Recipe(epochs=2, learning_rate=0.1, batch_size=8))
    found = moved(before, model)
    assert set(weights(model, "conv")) <= found
    assert not any("_bn/" in path for path in found)


def test_fine_tuning_compiles_anew_so_that_the_present_flags_count():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
    ds = make_dataset()
    finetune.freeze(backbone)
    finetune.fine_tune(model, ds, recipes.Recipe(epochs=1, learning_rate=0.1, batch_size=8))
    first = model.optimizer
    finetune.freeze_batchnorm(backbone)  # after the compilation
    before = weights(backbone.model, "conv")
    finetune.fine_tune(model, ds, recipes.Recipe(epochs=1, learning_rate=0.1, batch_size=8))
    assert moved(before, backbone.model) == set(before)
    assert model.optimizer is not first
    assert int(model.optimizer.iterations) == 3


def test_the_learning_rate_warms_up_and_ends_at_zero():
    model = finetune.small_cnn(SIZE, 3)
    history = finetune.fine_tune(
        model, make_dataset(), recipes.Recipe(epochs=4, learning_rate=0.01, batch_size=5, warmup=0.2)
    )
    steps = int(model.optimizer.iterations)
    assert steps == 20  # five steps an epoch: the last, smaller batch counts
    # Each step asks this schedule for its rate. (On JAX a callback cannot read the optimizer in an epoch.)
    rates = [float(ops.convert_to_numpy(model.optimizer._learning_rate(step))) for step in range(steps)]
    np.testing.assert_allclose(rates[:5], [0.002, 0.004, 0.006, 0.008, 0.01], atol=1e-7)  # linear
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
    model = finetune.build_classifier(make_backbone(), 2)
    history = finetune.fine_tune(model, ds, recipes.Recipe(epochs=8, learning_rate=0.03, batch_size=8))
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert finetune.predict(model, x).tolist() == y.tolist()


def test_predict_resizes_and_gives_labels():
    model = finetune.build_classifier(make_backbone(), 3)
    x = images(7, 11)
    found = finetune.predict(model, x, batch_size=3)
    assert found.shape == (7,)
    assert found.dtype == np.int64
    expected = model.predict(data.resize(x, SIZE), verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(found, expected)


# --- The baseline ---


def test_the_small_network_has_as_many_parameters_as_it_says():
    model = finetune.small_cnn(32, 10)
    channels = [3, 24, 24, 48, 48, 96, 96]
    kernels = sum(9 * a * b for a, b in itertools.pairwise(channels))
    normalisation = sum(4 * c for c in channels[1:])
    assert model.count_params() == kernels + normalisation + 96 * 10 + 10
    assert round(model.count_params(), -3) == 164_000
    assert model.output_shape == (None, 10)
    assert model.predict(images(2, 32), verbose=0).shape == (2, 10)


def test_the_small_network_augments_only_while_training():
    keras.utils.set_random_seed(0)
    plain = finetune.small_cnn(SIZE, 3)
    model = finetune.small_cnn(SIZE, 3, augmentation=keras.layers.GaussianNoise(1.0, seed=0))
    model.set_weights(plain.get_weights())
    x = images(3)
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert model.layers[1].name == finetune.AUGMENTATION  # in front of everything that learns


# --- The frozen trunk, computed once ---


@pytest.fixture
def by_keras(monkeypatch, tmp_path):
    """An empty cache, and features by Keras: nothing has to be exported."""
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "_on_accelerator", lambda: True)


def classifier(**options) -> tuple[keras.Model, Backbone]:
    """A classifier whose first block is frozen; the same weights each time."""
    backbone = make_backbone()
    keras.utils.set_random_seed(5)
    model = finetune.build_classifier(backbone, 3, **options)
    finetune.freeze(backbone, blocks=("block1",))
    return model, backbone


@pytest.mark.usefixtures("by_keras")
def test_training_above_a_cached_trunk_is_training_the_whole():
    ds = make_dataset()
    (whole, _), (model, backbone) = classifier(), classifier()
    before = weights(model)
    recipe = recipes.Recipe(
        epochs=12, learning_rate=0.01, batch_size=24
    )  # one step an epoch: order is nothing
    expected = finetune.fine_tune(whole, ds, recipe).history
    top, cached = finetune.cached_trunk(model, backbone, ds)
    assert top.input_shape == (None, None, 4, 4, 4)
    assert moved(before, model) == set()
    found = finetune.fine_tune(top, cached, recipe).history
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3)
    changed = {"head/kernel", "head/bias", "block2_conv/kernel", "block2_conv/bias"}
    assert moved(before, model) == changed == moved(before, whole)  # the trunk, and all statistics, stay
    for path in changed:
        a, b = weights(model)[path], weights(whole)[path]
        assert np.abs(a - b).max() < 0.05 * np.abs(b - before[path]).max()
    x = images(9)
    np.testing.assert_allclose(model.predict(x, verbose=0), whole.predict(x, verbose=0), atol=0.01)


@pytest.mark.usefixtures("by_keras")
def test_what_a_cached_trunk_returns():
    ds = make_dataset(size=12)
    model, backbone = classifier(dropout=0.5, augmentation=keras.layers.RandomFlip("horizontal"))
    top, cached = finetune.cached_trunk(model, backbone, ds)
    trunk = keras.Model(backbone.model.input, backbone.model.get_layer("block1_relu").output)
    for name, n in (("x_train", 24), ("x_val", 6)):
        found = getattr(cached, name)
        assert found.shape == (n, 1, 4, 4, 4)
        assert found.dtype == np.float16
        expected = trunk.predict(data.resize(getattr(ds, name), SIZE), verbose=0)
        np.testing.assert_array_equal(found[:, 0], expected.astype(np.float16))
    np.testing.assert_array_equal(cached.y_train, ds.y_train)
    assert cached.x_test is ds.x_test
    assert model.get_layer("dropout") in top.layers
    assert model.get_layer("head") in top.layers
    assert not any(isinstance(layer, keras.layers.RandomFlip) for layer in top.layers)
    np.testing.assert_allclose(
        top.predict(cached.x_val, verbose=0), model.predict(data.resize(ds.x_val, SIZE), verbose=0), atol=1e-2
    )
    finetune.fine_tune(top, cached, recipes.Recipe(epochs=1, learning_rate=0.01))
    np.testing.assert_array_equal(finetune.predict(model, ds.x_val), finetune.predict(top, cached.x_val))


@pytest.mark.usefixtures("by_keras")
def test_images_and_activations_are_not_mixed_up():
    ds = make_dataset()
    model, backbone = classifier()
    top, cached = finetune.cached_trunk(model, backbone, ds)
    with pytest.raises(ValueError, match=r"takes the activations of `cached_trunk`; this is uint8"):
        finetune.predict(top, ds.x_val)
    with pytest.raises(ValueError, match=r"takes images, uint8 \(n, h, w, 3\); this is float16"):
        finetune.predict(model, cached.x_val)


@pytest.mark.usefixtures("by_keras")
def test_a_cached_trunk_may_be_cut_again():
    """As in gradual unfreezing: less of the backbone is frozen the second time."""
    ds = make_dataset()
    model, backbone = classifier()
    fingerprint = backbone.fingerprint()
    finetune.freeze(backbone, blocks=("block1", "block2"))
    with pytest.raises(ValueError, match="Every layer of the backbone is frozen"):
        finetune.cached_trunk(model, backbone, ds)
    finetune.freeze(backbone, blocks=("block1",))
    for _ in range(2):
        top, cached = finetune.cached_trunk(model, backbone, ds)
        np.testing.assert_allclose(
            top.predict(cached.x_val, verbose=0), model.predict(ds.x_val, verbose=0), atol=1e-2
        )
    assert backbone.fingerprint() == fingerprint


@pytest.mark.usefixtures("by_keras")
def test_flips_are_computed_and_drawn():
    ds = make_dataset()
    model, backbone = classifier()
    top, cached = finetune.cached_trunk(model, backbone, ds, flips=True)
    plain = finetune.cached_trunk(model, backbone, ds)[1]
    assert cached.x_train.shape == (24, 2, 4, 4, 4)
    assert cached.x_val.shape == (6, 1, 4, 4, 4)
    np.testing.assert_array_equal(cached.x_train[:, :1], plain.x_train)
    mirrored = dataclasses.replace(ds, x_train=ds.x_train[:, :, ::-1])
    np.testing.assert_array_equal(
        cached.x_train[:, 1:], finetune.cached_trunk(model, backbone, mirrored)[1].x_train
    )
    assert not np.array_equal(cached.x_train[:, 0], cached.x_train[:, 1])
    history = finetune.fine_tune(top, cached, recipes.Recipe(epochs=2, learning_rate=0.01, batch_size=8))
    assert np.isfinite(history.history["val_loss"]).all()


@pytest.mark.usefixtures("by_keras")
def test_flips_of_images_that_stay_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("one", "two"):
        (tmp_path / kind).mkdir()
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(
                tmp_path / kind / f"{i}.png"
            )
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 2)
    finetune.freeze(backbone, blocks=("block1",))
    lazy, eager = (
        finetune.cached_trunk(model, backbone, data.load(tmp_path, lazy=lazy), flips=True, cache=False)[1]
        for lazy in (True, False)
    )
    np.testing.assert_array_equal(lazy.x_train, eager.x_train)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends take the arrays")
def test_training_streams_each_image_once_an_epoch_in_another_order():
    x = np.arange(23, dtype=np.uint8).reshape(23, 1)
    keras.utils.set_random_seed(0)
    stream = fit_arguments((x, 10 * np.arange(23)), (x[:7], np.arange(7)), batch_size=5)
    assert not stream["shuffle"]  # `fit` has nothing left to shuffle
    epochs = []
    for _ in range(2):
        batches = [(np.array(a), np.array(b)) for a, b in stream["x"]]
        assert [len(a) for a, _ in batches] == [5, 5, 5, 5, 3]
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        np.testing.assert_array_equal(labels, 10 * images[:, 0].astype(int))
        assert sorted(images[:, 0]) == list(range(23))
        epochs.append(images[:, 0].tolist())
    assert epochs[0] != epochs[1] != list(range(23))
    watched = np.concatenate([np.array(a) for a, _ in stream["validation_data"]])
    np.testing.assert_array_equal(watched, x[:7])
    for part in ("x", "validation_data"):  # with the tuner, the end of an epoch waits for its thread
        assert stream[part].options().autotune.enabled is False
    assert fit_arguments((x, x), None, batch_size=5)["validation_data"] is None


def test_training_takes_arrays_on_other_backends(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    x, y = images(4), np.arange(4)
    assert fit_arguments((x, y), None, 2) == {"x": x, "y": y, "validation_data": None, "batch_size": 2}


@pytest.mark.parametrize("shape", [(2, 3, 1), (5,)])
def test_one_of_the_views_is_drawn_while_training_and_the_first_else(shape):
    views = np.random.default_rng(0).normal(size=(200, 3, *shape)).astype(np.float32)
    layer = finetune.RandomView()
    for found in (layer(views), layer(views, training=False)):
        np.testing.assert_array_equal(found, views[:, 0])
    keras.utils.set_random_seed(0)
    draws = []
    for _ in range(2):
        found = np.asarray(layer(views, training=True))
        assert found.shape == (200, *shape)
        same = (found[:, None] == views).reshape(200, 3, -1).all(axis=2)
        assert (same.sum(axis=1) == 1).all()  # each is exactly one of its views
        assert (same.sum(axis=0) > 40).all()  # of 200, each view about a third
        draws.append(same.argmax(axis=1))
    assert not np.array_equal(*draws)  # other ones in the next step
    np.testing.assert_array_equal(layer(views[:, :1], training=True), views[:, 0])


@pytest.mark.usefixtures("by_keras")
def test_a_trunk_that_ends_in_features():
    """Only the scores of ImageNet are trained on: what is below them is a vector."""
    backbone = make_backbone()
    outputs = keras.layers.Dense(3, name="logits")(backbone.model.output)
    backbone = Backbone("tiny", SIZE, keras.Model(backbone.model.input, outputs, name="tiny"), "random")
    model = finetune.build_classifier(backbone, 3)
    finetune.freeze(backbone, blocks=("block",))
    ds = make_dataset()
    top, cached = finetune.cached_trunk(model, backbone, ds, flips=True)
    assert cached.x_train.shape == (24, 2, 4)
    np.testing.assert_allclose(
        top.predict(cached.x_val, verbose=0), model.predict(ds.x_val, verbose=0), atol=1e-2
    )
    finetune.fine_tune(top, cached, recipes.Recipe(epochs=1, learning_rate=0.01))


@pytest.mark.usefixtures("by_keras")
def test_nothing_or_everything_frozen():
    model, backbone = classifier()
    finetune.freeze(backbone)
    with pytest.raises(ValueError, match=r"Every layer .* is frozen: train a head on extract\(backbone, x\)"):
        finetune.cached_trunk(model, backbone, make_dataset())
    finetune.freeze_batchnorm(backbone)
    with pytest.raises(
        ValueError, match=r"No layer is frozen below the first unfrozen one: call finetune\.freeze"
    ):
        finetune.cached_trunk(model, backbone, make_dataset())


def check_cut(backbone: Backbone, model: keras.Model, blocks: tuple[str, ...], cut: str) -> None:
    """The trunk and the part above give what the whole gives."""
    finetune.freeze(backbone, blocks=blocks)
    assert finetune._cut(backbone) == cut
    ds = make_dataset(backbone.image_size)
    ds = dataclasses.replace(ds, x_train=ds.x_train[:2], y_train=ds.y_train[:2], x_val=ds.x_val[:3])
    top, cached = finetune.cached_trunk(model, backbone, ds, cache=False)
    found, expected = np.asarray(top(cached.x_val)), np.asarray(model(ds.x_val))
    assert np.ptp(expected, axis=0).max() > 0
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    assert np.isfinite(found).all()


LITE_CUTS = {
    ("stem", "block1", "block2", "block3"): "block3b_add",
    ("stem", "block1", "block2", "block3", "block4a"): "block4a_project_bn",
    # the shortcut into block4c starts below what is frozen of it
    ("stem", "block1", "block2", "block3", "block4a", "block4b", "block4c_expand"): "block4b_add",
    ("stem", "block"): "block7a_project_bn",
}


@pytest.fixture
def step_by_step(by_keras, monkeypatch):
    """Features without a graph: building one takes longer than computing a few images."""
    monkeypatch.setattr(
        features, "_runner", lambda engine, backbone, network, *_: lambda x: np.asarray(network(x))
    )


@pytest.mark.usefixtures("step_by_step")
def test_cuts_through_a_network_with_shortcuts():
    backbone = backbones.load("efficientnet_lite0", image_size=32)
    model = finetune.build_classifier(backbone, 3)
    for blocks, cut in LITE_CUTS.items():
        check_cut(backbone, model, blocks, cut)
    finetune.freeze_batchnorm(backbone)
    with pytest.raises(ValueError, match="No layer is frozen"):  # what prepares the pixels is no trunk
        finetune._cut(backbone)


@pytest.mark.usefixtures("step_by_step")
def test_cuts_through_resnet50():
    keras.utils.set_random_seed(0)
    backbone = backbones.load("resnet50", image_size=32, weights=None)
    model = finetune.build_classifier(backbone, 3)
    check_cut(backbone, model, ("conv1", "conv2", "conv3"), "conv3_block4_out")
    check_cut(backbone, model, ("conv1", "conv2", "conv3_block1", "conv3_block2_1"), "conv3_block1_out")


@pytest.mark.usefixtures("step_by_step")
def test_a_cut_sees_steps_that_are_no_layers():
    """A sum written with a plus is an operation, and what passes it may pass the cut."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs / 255.0)
    for block in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{block}_conv")(x) + x
        x = keras.layers.Activation("tanh", name=f"{block}_tanh")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    backbone = Backbone("sums", SIZE, keras.Model(inputs, x, name="sums"), "random")
    model = finetune.build_classifier(backbone, 3)
    check_cut(backbone, model, ("stem", "block1"), "block1_tanh")
    check_cut(backbone, model, ("stem", "block1", "block2"), "block2_tanh")
