"""How arrays reach the training."""

import keras
import numpy as np
import pytest

from tiny import images
from tlhelpers.streams import fit_arguments


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
