"""How arrays reach `keras.Model.fit` without waiting."""

from typing import Any

import keras
import numpy as np


def fit_arguments(
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
