"""Behaviour of heads on frozen features."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.linear_model import LogisticRegression

from tiny import images, make_backbone
from tlhelpers import finetune, heads

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


@pytest.mark.parametrize("n", [30, 1200])
def test_without_validation_features_every_label_chooses_and_trains(n):
    """Folds choose; then all features train, those that chose among them."""
    f, y = blobs(n, 3, noise=2.0)
    probe = heads.linear_probe(f, y, strengths=(1e-4, 1.0))
    again = heads.linear_probe(f, y, f, y, strengths=(probe.strength,))
    np.testing.assert_array_equal(probe.pipeline[1].coef_, again.pipeline[1].coef_)
    assert probe.val_accuracy < np.mean(again.predict(f) == y)  # of images that the fold did not train on
    assert np.isnan(heads.linear_probe(f[:3], y[:3], strengths=(0.1,)).val_accuracy)  # nothing to choose


def test_what_cross_validation_cannot_choose_on():
    f, y = blobs(7, 3)
    with pytest.raises(ValueError, match="Class 2 has one image"):
        heads.linear_probe(f[:5], y[:5])
    with pytest.raises(ValueError, match="both f_val and y_val"):
        heads.linear_probe(f, y, f)


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
        (lambda a: a | {"f_train": a["f_train"][0]}, r"The training features must be \(n, d\)"),
        (lambda a: a | {"y_train": a["y_train"][:-1]}, "training labels must be .* 30 images"),
        (
            lambda a: a | {"f_val": a["f_val"][:, :-1]},
            r"The validation features must be \(n, 6\); these are \(12, 5\)",
        ),
        (lambda a: a | {"y_val": a["y_val"][:, None]}, "validation labels must be .* ravel"),
        (
            lambda a: a | {"f_val": a["f_val"][:0], "y_val": a["y_val"][:0]},
            "The validation features .* n > 0",
        ),
        (
            lambda a: a | {"f_train": np.where(a["f_train"] > 5, np.nan, 1)},
            "training features hold NaN .* weights",
        ),
        (lambda a: a | {"f_val": a["f_val"] / 0.0}, "validation .* infinity"),
        (lambda a: a | {"y_train": 0 * a["y_train"]}, r"at least two; .*\[0\]"),
        (lambda a: a | {"y_train": a["y_train"] + 1}, r"these are \[1 2 3\]"),
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
