"""How arrays reach `keras.Model.fit`: in an order that a seed fixes, and without waiting."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def fit_arguments(
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray] | None,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
) -> dict[str, Any]:
    """Returns what `fit` takes to train on arrays, in another order in each epoch.

    The order follows from the seed and the number of the epoch alone: a training that goes on behind an epoch
    sees what it would have seen. On TensorFlow the batches are a stream of tf.data. Keras makes such streams
    of arrays by itself, but with the tuner of tf.data at work. The tuner's thread sleeps for longer and
    longer, and the end of an epoch waits for it: epochs of 6 seconds took 10.

    Args:
        train: Images or features, and labels ``(n,)``.
        val: The same for validation, or ``None``.
        batch_size: Rows in one step.
        seed: Of the order, 0 or larger.
        first_epoch: Finished epochs.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import batches
        >>> images, labels = np.zeros((10, 8, 8, 3), np.uint8), np.arange(10)
        >>> arguments = batches.fit_arguments((images, labels), None, batch_size=4, seed=0)
        >>> arguments["initial_epoch"], arguments["shuffle"]
        (0, False)
    """
    x, y = train
    common: dict[str, Any] = {"initial_epoch": first_epoch, "shuffle": False}  # the order is ours
    if keras.backend.backend() != "tensorflow":
        common |= {"validation_data": val, "validation_batch_size": batch_size if val else None}
        return common | {"x": _Batches(x, y, batch_size, seed, first_epoch)}
    import tensorflow as tf

    untuned = tf.data.Options()
    untuned.autotune.enabled = False

    def batches(x: np.ndarray, y: np.ndarray, rows: tf.data.Dataset) -> tf.data.Dataset:
        with tf.device("CPU:0"):  # all images may be too many for a GPU
            images, labels = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        picked = rows.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))
        return picked.prefetch(2).with_options(untuned)

    def rows() -> Iterator[np.ndarray]:
        for epoch in itertools.count(first_epoch):
            yield from _picks(len(y), batch_size, seed, epoch)

    endless = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec([None], tf.int64))
    watched = batches(*val, tf.data.Dataset.range(len(val[1])).batch(batch_size)) if val else None
    return common | {
        "x": batches(x, y, endless),
        "steps_per_epoch": -(-len(y) // batch_size),
        "validation_data": watched,
    }


class _Batches(keras.utils.PyDataset):
    """The same batches for other backends."""

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
        super().__init__()
        self.x, self.y, self.epoch = x, y, epoch
        self.picks = functools.cache(functools.partial(_picks, len(y), batch_size, seed))

    def __len__(self) -> int:
        return len(self.picks(self.epoch))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.picks(self.epoch)[index]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        self.epoch += 1


def _picks(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Returns the rows of each batch of an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return np.split(order, range(batch_size, n, batch_size))
