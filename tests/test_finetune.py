"""Behaviour of fine-tuning, on networks so small that each test takes a moment."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tiny import SIZE, images, make_backbone, make_dataset, moved, weights
from tlhelpers import data, finetune, heads, recipes, trunk

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
    with pytest.raises(ValueError, match=r"5 numbers.*3 classes"):
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
    assert model.layers[1].name == trunk.AUGMENTATION  # in front of everything that learns
