"""Heads on frozen features: a linear probe, a small network, nearest neighbours.

Each is a `Head`: it predicts from features, and becomes a Keras layer that goes on a backbone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tlhelpers import checks
from tlhelpers.batches import fit_arguments
from tlhelpers.evaluation import PROBE_STRENGTHS


class Head(Protocol):
    """What all heads have in common.

    Example:
        >>> from tlhelpers import data, heads
        >>> ds = data.load("digits", n_train=200, n_val=50, n_test=50)
        >>> f_train, f_val, f_test = (x.reshape(len(x), -1) / 255 for x in (ds.x_train, ds.x_val, ds.x_test))
        >>> head: heads.Head = heads.knn_head(f_train, ds.y_train, f_val, ds.y_val)
        >>> head.predict(f_test).shape
        (50,)
    """

    @property
    def val_accuracy(self) -> float:
        """Accuracy on the validation features, 0..1; the best of what was tried there, hence optimistic."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns class probabilities ``(n, n_classes)`` of features ``(n, d)``."""

    def to_keras(self) -> keras.layers.Layer:
        """Returns one built layer, features ``(n, d)`` -> logits ``(n, n_classes)``, for a classifier."""


@dataclass(frozen=True)
class LinearProbe:
    """A multinomial logistic regression on standardised features. Returned by `linear_probe`.

    Attributes:
        pipeline: scikit-learn pipeline: `StandardScaler`, `LogisticRegression`.
        strength: The chosen C, inverse to the L2 penalty.
        tried: C -> accuracy on the validation features, 0..1.
    """

    pipeline: Pipeline
    strength: float
    tried: dict[float, float]

    @property
    def val_accuracy(self) -> float:
        """Accuracy on the validation features with the chosen C, 0..1; the best of several, so optimistic."""
        return self.tried[self.strength]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.pipeline.predict(checks.floats(features, "The features")).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns class probabilities ``(n, n_classes)`` of features ``(n, d)``."""
        return self.pipeline.predict_proba(checks.floats(features, "The features"))

    def to_keras(self) -> keras.layers.Dense:
        """Returns the probe as one built Dense layer, features ``(n, d)`` -> logits ``(n, n_classes)``.

        Standardising is ``(f - m) / s``, and the regression is ``w f + b``; together they are one affine map
        with the kernel ``w / s`` and the bias ``b - w m / s``. The softmax of these logits equals
        `predict_proba`.
        """
        scaler, regression = self.pipeline[0], self.pipeline[1]
        kernel = (regression.coef_ / scaler.scale_).T
        bias = regression.intercept_ - regression.coef_ @ (scaler.mean_ / scaler.scale_)
        if kernel.shape[1] == 1:  # two classes: scikit-learn keeps one row, the log odds of the second class
            kernel, bias = np.hstack([0 * kernel, kernel]), np.concatenate([[0.0], bias])
        layer = keras.layers.Dense(kernel.shape[1], name="head")
        layer.build((None, kernel.shape[0]))
        layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
        return layer


def linear_probe(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
    *,
    strengths: Sequence[float] = PROBE_STRENGTHS,
) -> LinearProbe:
    """Trains a linear classifier on frozen features; the L2 penalty is chosen on the validation features.

    Without validation features it is chosen by stratified cross-validation on the training features, in at
    most five folds (of more than 1,000 features, in one of these); then the probe is fitted on all of them.

    Args:
        f_train: Features ``(n, d)``; their mean and spread standardise all features.
        y_train: Labels 0..n_classes-1, ``(n,)``; each class occurs, twice where nothing validates.
        f_val: Validation features ``(m, d)``, or None.
        y_val: Validation labels ``(m,)``, or None.
        strengths: Values of C to try.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, or a class has too few images.

    Example:
        >>> from tlhelpers import data, heads
        >>> ds = data.load("digits", n_train=200, n_val=50, n_test=50)
        >>> f_train, f_val, f_test = (x.reshape(len(x), -1) / 255 for x in (ds.x_train, ds.x_val, ds.x_test))
        >>> probe = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val)
        >>> bool((probe.predict(f_test) == ds.y_test).mean() > 0.8)
        True
        >>> heads.linear_probe(f_train, ds.y_train).strength in heads.PROBE_STRENGTHS  # cross-validated
        True
    """
    if (f_val is None) != (y_val is None):
        raise ValueError("Give both f_val and y_val, or neither: then cross-validation chooses the penalty.")
    strengths = checks.numbers(strengths, "strengths", above=True)
    if f_val is None or y_val is None:
        f, y = checks.features(f_train, y_train, "training")
        checks.classes(y, "The training labels")
        pairs = [(f[a], y[a], f[b], y[b]) for a, b in (_folds(y) if len(strengths) > 1 else [])]
    else:
        pairs = [_checked(f_train, y_train, f_val, y_val)]
    fitted: dict[float, Pipeline] = {}
    scores: dict[float, float] = {}
    with threadpool_limits(1):  # the solver's steps are small: more threads made it four times slower
        for strength in strengths:
            pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            right = [pipeline.fit(*some).predict(f_b) == y_b for *some, f_b, y_b in pairs]
            scores[strength] = float(np.mean(np.concatenate(right))) if right else float("nan")
            fitted[strength] = pipeline
        best = max(strengths, key=lambda c: (scores[c], -c))  # of equals, the stronger penalty
        if f_val is None:
            fitted[best].fit(f, y)
    return LinearProbe(fitted[best], best, scores)


def _folds(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    counts = np.bincount(y)
    if counts.min() < 2:
        one = f"Class {counts.argmin()} has one image, too few to choose the penalty by cross-validation"
        raise ValueError(f"{one}: give validation features, or one strength.")
    splits = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=0).split(y, y)
    return list(splits)[: 1 if len(y) > 1000 else None]


@dataclass(frozen=True)
class MLPHead:
    """A network with one hidden layer on standardised features. Returned by `mlp_head`.

    Attributes:
        model: Features ``(n, d)`` -> logits ``(n, n_classes)``.
        val_accuracy: Accuracy on the validation features in the epoch that was kept, 0..1; optimistic.
    """

    model: keras.Model
    val_accuracy: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.predict_proba(features).argmax(axis=1).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns class probabilities ``(n, n_classes)`` of features ``(n, d)``."""
        logits = self.model(checks.floats(features, "The features"), training=False)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    def to_keras(self) -> keras.Model:
        """Returns the head as one layer, features ``(n, d)`` -> logits ``(n, n_classes)``."""
        return self.model


def mlp_head(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray,
    y_val: np.ndarray,
    *,
    hidden: int = 256,
    dropout: float = 0.5,
    epochs: int = 40,
    batch_size: int = 128,
    seed: int = 0,
) -> MLPHead:
    """Trains a small network on frozen features, with AdamW; keeps its best epoch on the validation features.

    Args:
        f_train, y_train, f_val, y_val: As `linear_probe`; validation features are needed.
        hidden: Units of the hidden layer, with ReLU.
        dropout: Share of the standardised features, and of the hidden units, dropped in training.
        epochs: Most epochs; five without an improvement end the training.
        batch_size: Features in one step.
        seed: Of the initial weights, the dropout and the order.

    Raises:
        ValueError: As `linear_probe`.

    Example:
        >>> from tlhelpers import data, heads
        >>> ds = data.load("digits", n_train=100, n_val=50, n_test=50)
        >>> f_train, f_val, f_test = (x.reshape(len(x), -1) / 255 for x in (ds.x_train, ds.x_val, ds.x_test))
        >>> head = heads.mlp_head(f_train, ds.y_train, f_val, ds.y_val, hidden=16, epochs=2)
        >>> head.predict_proba(f_test).shape
        (50, 10)
    """
    f_train, y_train, f_val, y_val = _checked(f_train, y_train, f_val, y_val)
    for name, value in (("hidden", hidden), ("epochs", epochs), ("batch_size", batch_size)):
        checks.whole(value, name)
    checks.number(dropout, "dropout", 0, 1, below=True)
    keras.utils.set_random_seed(checks.whole(seed, "seed", 0))
    f_train, f_val = f_train.astype(np.float32), f_val.astype(np.float32)
    spread = StandardScaler().fit(f_train)  # in double precision
    scale = keras.layers.Normalization(mean=spread.mean_, variance=spread.scale_**2)
    model = keras.Sequential(
        [
            keras.Input(f_train.shape[1:]),
            scale,
            keras.layers.Dropout(dropout / 2),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(int(y_train.max()) + 1),
        ],
        name="mlp_head",
    )
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=5, mode="max", restore_best_weights=True)
    stream = fit_arguments((f_train, y_train), (f_val, y_val), batch_size, seed)
    history = model.fit(**stream, epochs=epochs, verbose=0, callbacks=[stop])
    return MLPHead(model, float(max(history.history["val_accuracy"])))


@dataclass(frozen=True)
class KNNHead:
    """The nearest training images, by the angle between their features. Returned by `knn_head`.

    Attributes:
        neighbours: The fitted scikit-learn classifier; it takes features of length 1.
        k: The chosen number of neighbours.
        tried: Number of neighbours -> accuracy on the validation features, 0..1.
        f_train: The training features, of length 1, ``(n, d)``.
        y_train: Their labels, ``(n,)``.
    """

    neighbours: KNeighborsClassifier
    k: int
    tried: dict[int, float]
    f_train: np.ndarray
    y_train: np.ndarray

    @property
    def val_accuracy(self) -> float:
        """Accuracy on the validation features with the chosen k, 0..1; the best of several, so optimistic."""
        return self.tried[self.k]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns labels, int64 ``(n,)``, of features ``(n, d)``."""
        return self.neighbours.predict(_unit(features)).astype(np.int64)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Returns the share of each class among the neighbours, ``(n, n_classes)``."""
        return self.neighbours.predict_proba(_unit(features))

    def to_keras(self) -> keras.Model:
        """Returns the head as one layer, features ``(n, d)`` -> logits ``(n, n_classes)``.

        A Dense layer holds the training features, so that its outputs are the cosines of the angles to them;
        an Embedding holds their labels. The softmax of these logits equals `predict_proba`, but for 1e-7. The
        layer is frozen.
        """
        n, n_classes = len(self.f_train), len(self.neighbours.classes_)
        inputs = keras.Input(self.f_train.shape[1:])
        cosines = keras.layers.Dense(n, use_bias=False, name="training_features")
        votes = keras.layers.Embedding(n, n_classes, name="training_labels")
        nearest = keras.ops.top_k(cosines(keras.layers.UnitNormalization()(inputs)), self.k)[1]
        shares = keras.ops.mean(votes(nearest), axis=1)
        head = keras.Model(inputs, keras.ops.log(shares + 1e-7), name="knn_head")
        cosines.set_weights([self.f_train.T])
        votes.set_weights([np.eye(n_classes)[self.y_train]])
        head.trainable = False
        return head


def knn_head(
    f_train: np.ndarray,
    y_train: np.ndarray,
    f_val: np.ndarray,
    y_val: np.ndarray,
    *,
    ks: int | Sequence[int] = (1, 5, 10, 20),
) -> KNNHead:
    """Classifies by the nearest training features; their number is chosen on the validation features.

    Args:
        f_train, y_train, f_val, y_val: As `mlp_head`.
        ks: Number of neighbours, or several to try; at most as many as there are training features.

    Raises:
        ValueError: As `linear_probe`.

    Example:
        >>> from tlhelpers import data, heads
        >>> ds = data.load("digits", n_train=200, n_val=50, n_test=50)
        >>> f_train, f_val, f_test = (x.reshape(len(x), -1) / 255 for x in (ds.x_train, ds.x_val, ds.x_test))
        >>> heads.knn_head(f_train, ds.y_train, f_val, ds.y_val).k in (1, 5, 10, 20)
        True
    """
    f_train, y_train, f_val, y_val = _checked(f_train, y_train, f_val, y_val)
    numbers = [checks.whole(k, "ks") for k in (ks if isinstance(ks, Iterable) else [ks])]
    if not numbers:
        raise ValueError("ks is empty. Give the numbers of neighbours to try.")
    f_unit, f_val = _unit(f_train), _unit(f_val)
    scores: dict[int, float] = {}
    for k in sorted({min(k, len(f_unit)) for k in numbers}):
        fitted = KNeighborsClassifier(k).fit(f_unit, y_train)
        scores[k] = float(np.mean(fitted.predict(f_val) == y_val))
    best = max(scores, key=lambda k: scores[k])
    return KNNHead(KNeighborsClassifier(best).fit(f_unit, y_train), best, scores, f_unit, y_train)


def _unit(features: np.ndarray) -> np.ndarray:
    """Scales features to length 1, so that the nearest are those with the most similar direction."""
    f = checks.floats(features, "The features")
    length = np.linalg.norm(f.astype(np.float64), axis=1, keepdims=True)
    return (f / np.where(length > 0, length, 1)).astype(f.dtype)


def _checked(
    f_train: np.ndarray, y_train: np.ndarray, f_val: np.ndarray, y_val: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    f_train, y_train = checks.features(f_train, y_train, "training")
    n_classes = checks.classes(y_train, "The training labels")
    return f_train, y_train, *checks.features(f_val, y_val, "validation", f_train.shape[1], n_classes)
