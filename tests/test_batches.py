"""How arrays reach the training. `KERAS_BACKEND=jax` runs this file as well."""

import itertools

import keras
import numpy as np
import pytest

from tlhelpers import batches

X = np.arange(23, dtype=np.uint8).reshape(23, 1)
Y = 10 * np.arange(23)


def seen(n_epochs: int, seed: int = 7, first_epoch: int = 0) -> list[list[int]]:
    """Return what a model sees in each epoch of `fit`, and make sure that labels belong to images."""
    epochs: list[list[int]] = []

    class Note(keras.layers.Layer):
        def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
            if training and not isinstance(x, keras.KerasTensor):
                epochs[-1] += np.asarray(x)[:, 0].astype(int).tolist()
            return x * 1.0

    class Matching(keras.losses.Loss):
        def call(self, y: keras.KerasTensor, found: keras.KerasTensor) -> keras.KerasTensor:
            return keras.ops.abs(keras.ops.cast(y, "float32") - 10 * keras.ops.cast(found[:, 0], "float32"))

    model = keras.Sequential([keras.Input((1,)), Note()])
    model.compile("sgd", Matching(), run_eagerly=True, jit_compile=False)
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append([]))
    stream = batches.fit_arguments((X, Y), (X[:7], Y[:7]), 5, seed, first_epoch)
    history = model.fit(**stream, epochs=first_epoch + n_epochs, verbose=0, callbacks=[begin])
    assert max(history.history["loss"] + history.history["val_loss"]) == 0
    return epochs


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="its steps are compiled: values cannot be noted")
def test_each_image_once_an_epoch_in_an_order_that_the_seed_fixes():
    epochs = seen(3)
    assert [sorted(epoch) for epoch in epochs] == [list(range(23))] * 3
    assert len({tuple(epoch) for epoch in (*epochs, range(23))}) == 4  # another order each time
    assert seen(3) == epochs != seen(3, seed=8)
    assert seen(2, first_epoch=1) == epochs[1:]  # a training that goes on


def test_other_backends_get_the_same_batches(monkeypatch):
    stream = batches.fit_arguments((X, Y), None, 5, 7)["x"]
    expected = [np.array(labels) for _, labels in itertools.islice(stream, 10)]
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    found = batches.fit_arguments((X, Y), None, 5, 7)
    stream = found["x"]
    labels = [stream[i][1] for i in range(len(stream))]
    stream.on_epoch_end()
    labels += [stream[i][1] for i in range(len(stream))]
    assert [len(part) for part in labels] == [5, 5, 5, 5, 3] * 2
    for a, b in zip(labels, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="streams of tf.data are TensorFlow's")
def test_no_stream_is_tuned():
    """With the tuner, the end of an epoch waits for its thread."""
    stream = batches.fit_arguments((X, Y), (X[:7], Y[:7]), 5, 0)
    for part in ("x", "validation_data"):
        assert stream[part].options().autotune.enabled is False
    assert batches.fit_arguments((X, Y), None, 5, 0)["validation_data"] is None
