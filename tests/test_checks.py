"""Wrong arguments, planted in every public function that computes: each ends in a clear error.

The names of the cases are plain words, so that they can be listed. What is refused, and what must stay right:
half precision, other integer types, large but sound numbers.
"""

from collections.abc import Callable
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from tlhelpers import checks, evaluation, heads, losses, recipes
from tlhelpers.evaluation import calibration, confusion, errors, transferability

N, D, K = 30, 6, 3
Y = np.arange(N) % K
# Whole numbers up to 255: exact in every floating type, while their squares overflow half precision.
F = np.random.default_rng(0).integers(0, 160, (N, D)).astype(np.float32)
F[np.arange(N), Y] += 90
LOGITS = np.random.default_rng(1).normal(size=(N, K)) + 2 * np.eye(K)[Y]
PROBA = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
X = np.zeros((N, 8, 8, 3), np.uint8)
NAMES = ["a", "b", "c"]


def put(a: np.ndarray, value: Any) -> np.ndarray:
    """A copy with one value in its middle."""
    changed = a.copy()
    changed[len(a) // 2, 0] = value
    return changed


# --- What takes features ---

ON_FEATURES: dict[str, Callable] = {
    "logme": lambda f: transferability.logme(f, Y),
    "h_score": lambda f: transferability.h_score(f, Y),
    "h_score with shrinkage": lambda f: transferability.h_score(f, Y, shrinkage=True),
    "cross_validate": lambda f: evaluation.cross_validate(f, Y, folds=3, strengths=[1.0]),
    "linear_probe": lambda f: heads.linear_probe(f, Y, f, Y, strengths=[1.0]),
    "linear_probe in validation": lambda f: heads.linear_probe(F, Y, f, Y, strengths=[1.0]),
    "knn_head": lambda f: heads.knn_head(f, Y, f, Y),
    "knn_head in validation": lambda f: heads.knn_head(F, Y, f, Y),
    "mlp_head": lambda f: heads.mlp_head(f, Y, f, Y, epochs=1, hidden=4),
    "mlp_head in validation": lambda f: heads.mlp_head(F, Y, f, Y, epochs=1, hidden=4),
    "prediction of linear_probe": lambda f: heads.linear_probe(F, Y, F, Y, strengths=[1.0]).predict(f),
    "probabilities of knn_head": lambda f: heads.knn_head(F, Y, F, Y).predict_proba(f),
    "mmd2": lambda f: losses.mmd2(f, F),
    "coral": lambda f: losses.coral(F, f),
}
BAD_FEATURES = {
    "NaN in the features": (put(F, np.nan), "NaN"),
    "infinity in the features": (put(F, -np.inf), "infinity"),
    "a feature of 1e20": (put(F, 1e20), "divide by a constant"),
    "features of 1e20": (F * np.float32(1e20), "divide by a constant"),
    "features of 1e200": (F.astype(float) * 1e200, "divide by a constant"),
    "features overflown in half precision": ((F * 1e4).astype(np.float16), "infinity"),
    "one row without its axis": (F[0], r"\(n, d\)|\(rows, d\)"),
    "feature maps": (F[:, None, None, :], r"\(n, d\)|\(rows, d\)"),
    "no rows": (F[:0], "n > 0|Use a larger batch"),
    "rows without features": (F[:, :0], r"n > 0|\(rows, d\)"),
    "text for numbers": (F.astype(str), "expected real numbers|different type|astype"),
    "objects for numbers": (F.astype(object), "objects"),
    "None among numbers": ([[1.0, None], [2.0, 3.0]], "objects"),
    "rows of different lengths": ([[1.0, 2.0], [3.0]], "one length"),
    "complex numbers": (F.astype(complex), "complex128"),
    "dates for numbers": (np.full((N, D), np.datetime64("2020-01-01")), "datetime64"),
    "a masked array with gaps": (np.ma.masked_array(F, F > 200), "gaps"),
    "a table of named columns": (np.zeros((N, D), [("a", float)]), "expected real numbers"),
    "nothing at all": (None, "objects|both f_val and y_val"),
}


class OtherTensor:
    """Like a tensor of another library that needs a gradient: it cannot become an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


BAD_FEATURES["a tensor that needs a gradient"] = (OtherTensor(), "requires grad.*detach")


def crossed(functions: dict[str, Callable], bad: dict[str, tuple]) -> list:
    """Each function with each bad input, under a name in plain words."""
    return [
        pytest.param(lambda function=function, value=value: function(value), word, id=f"{name}: {kind}")
        for name, function in functions.items()
        for kind, (value, word) in bad.items()
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("call", "word"), crossed(ON_FEATURES, BAD_FEATURES))
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_bad_features_end_in_a_clear_error(call, word):
    with pytest.raises((ValueError, TypeError), match=word) as raised:
        call()
    assert len(str(raised.value)) > 30, "what was wrong, what was expected, what to do"


# --- What takes labels ---

ON_LABELS: dict[str, Callable] = {
    "accuracy": lambda y: evaluation.accuracy(y, Y),
    "accuracy of predicted labels": lambda y: evaluation.accuracy(Y, y),
    "compare": lambda y: evaluation.compare(Y, Y, y),
    "cross_validate": lambda y: evaluation.cross_validate(F, y, folds=3),
    "by_class": lambda y: errors.by_class(Y, y, NAMES),
    "by_slice": lambda y: errors.by_slice(y, Y, {"all": np.ones(N, bool)}),
    "confusion": lambda y: confusion.confusion(X, Y, y, NAMES),
    "confident_mistakes": lambda y: errors.confident_mistakes(y, PROBA),
    "label_errors": lambda y: errors.label_errors(y, PROBA),
    "reliability": lambda y: calibration.reliability(y, PROBA),
    "calibration_error": lambda y: calibration.calibration_error(y, PROBA, draws=10),
    "fit_temperature": lambda y: calibration.fit_temperature(y, LOGITS),
    "logme": lambda y: transferability.logme(F, y),
    "h_score": lambda y: transferability.h_score(F, y),
    "nce": lambda y: transferability.nce(Y, y),
    "nce of source labels": lambda y: transferability.nce(y, Y),
    "leep": lambda y: transferability.leep(PROBA, y),
    "linear_probe": lambda y: heads.linear_probe(F, y, F, Y),
    "knn_head": lambda y: heads.knn_head(F, y, F, Y),
    "mlp_head": lambda y: heads.mlp_head(F, Y, F, y, epochs=1),
}
BAD_LABELS = {
    "labels of another length": (Y[:-1], r"one for each of \d+ images"),
    "no labels": (Y[:0], r"one for each of \d+ images|n > 0"),
    "labels as floats 0.0, 1.0": (Y.astype(float), "integer type.*astype"),
    "labels with NaN": (np.where(Y == 1, np.nan, Y), "integer type"),
    "labels one-hot": (np.eye(K)[Y], "argmax"),
    "labels in a column": (Y[:, None], "ravel"),
    "labels below 0": (Y - 1, "whole numbers from 0"),
    "labels as names": (np.array(NAMES)[Y], "return_inverse"),
    "labels as objects": (Y.astype(object), "integer type"),
    "one number for all labels": (1, "must be"),
}


@pytest.mark.parametrize(("call", "word"), crossed(ON_LABELS, BAD_LABELS))
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_bad_labels_end_in_a_clear_error(call, word):
    with pytest.raises((ValueError, TypeError), match=word) as raised:
        call()
    assert len(str(raised.value)) > 30


MASKED = (
    "by_class",
    "confusion",
    "confident_mistakes",
    "label_errors",
    "reliability",
    "fit_temperature",
    "mlp_head",
)


@pytest.mark.parametrize("name", [pytest.param(n, id=f"{n}: a mask for labels") for n in MASKED])
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_mask_of_hits_is_no_label(name):
    with pytest.raises(ValueError, match="these are bool"):
        ON_LABELS[name](Y > 0)


@pytest.mark.parametrize("name", ["accuracy", "accuracy of predicted labels", "compare"])
def test_a_mask_is_a_label_of_two_classes_alone(name):
    with pytest.raises(ValueError, match=r"to 1; .* to 2"):
        ON_LABELS[name](Y > 0)
    assert evaluation.accuracy(Y % 2, Y % 2 > 0) == 1.0
    assert transferability.h_score(F, Y > 0) == transferability.h_score(F, (Y > 0).astype(int))


KNOWN_CLASSES = ("by_class", "confusion", "confident_mistakes", "label_errors", "reliability", "mlp_head")


@pytest.mark.parametrize("name", [pytest.param(n, id=f"{n}: a label without a class") for n in KNOWN_CLASSES])
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_label_above_the_classes_is_refused(name):
    with pytest.raises(ValueError, match=r"to 2; .* to 3"):
        ON_LABELS[name](np.where(np.arange(N) == 5, 3, Y))


NEED_CLASSES = (
    "cross_validate",
    "fit_temperature",
    "logme",
    "h_score",
    "nce",
    "leep",
    "linear_probe",
    "knn_head",
)


@pytest.mark.parametrize("name", [pytest.param(n, id=f"{n}: a single class") for n in NEED_CLASSES])
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_single_class_is_refused(name):
    with pytest.raises(ValueError, match=r"one class|at least two"):
        ON_LABELS[name](np.zeros(N, int))


# --- What takes probabilities or logits ---

ON_PROBABILITIES: dict[str, Callable] = {
    "reliability": lambda p: calibration.reliability(Y, p),
    "calibration_error": lambda p: calibration.calibration_error(Y, p, draws=10),
    "confident_mistakes": lambda p: errors.confident_mistakes(Y, p),
    "label_errors": lambda p: errors.label_errors(Y, p),
    "leep": lambda p: transferability.leep(p, Y),
    "log_probabilities": calibration.log_probabilities,
}
BAD_PROBABILITIES = {
    "percentages for probabilities": (100 * PROBA, "Divide percentages by 100"),
    "logits for probabilities": (LOGITS, "Apply softmax"),
    "logarithms for probabilities": (np.log(PROBA), "Apply softmax"),
    "a negative probability": (put(PROBA, -0.2), "0 or more and sums to 1"),
    "a row that does not sum to 1": (put(PROBA, 0.9), "sums to 1"),
    "NaN in the probabilities": (put(PROBA, np.nan), "NaN"),
    "probabilities of 1e20": (put(PROBA, 1e20), "at most 1e\\+15"),
    "one sigmoid output": (PROBA[:, :1], "two columns"),
    "probabilities without rows": (PROBA[:0], "n > 0"),
    "probabilities of one image": (PROBA[0], r"\(n, k\)"),
    "probabilities as text": (PROBA.astype(str), "expected real numbers"),
    "probabilities as objects": (PROBA.astype(object), "objects"),
}
ON_LOGITS: dict[str, Callable] = {
    "fit_temperature": lambda z: calibration.fit_temperature(Y, z),
    "with_temperature": lambda z: calibration.with_temperature(z, 2.0),
}
BAD_LOGITS = {
    "probabilities for logits": (PROBA, "look like probabilities"),
    "percentages for logits": (100 * PROBA, "look like probabilities"),
    "NaN in the logits": (put(LOGITS, np.nan), "NaN"),
    "logits of 1e20": (put(LOGITS, 1e20), "at most 1e\\+15"),
    "logarithm of 0 among the logits": (put(LOGITS, -np.inf), "infinity"),
    "one column of logits": (LOGITS[:, :1], "k > 1"),
    "logits of one image": (LOGITS[0], r"\(n, k\)"),
    "logits as text": (LOGITS.astype(str), "expected real numbers"),
}


@pytest.mark.parametrize(
    ("call", "word"), crossed(ON_PROBABILITIES, BAD_PROBABILITIES) + crossed(ON_LOGITS, BAD_LOGITS)
)
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_bad_scores_end_in_a_clear_error(call, word):
    with pytest.raises((ValueError, TypeError), match=word) as raised:
        call()
    assert len(str(raised.value)) > 30


UNBOUNDED = {
    "labels that the logits speak against": (Y, np.where(np.arange(N)[:, None] < 3, LOGITS, -LOGITS)),
    "labels of other images": (np.random.default_rng(3).integers(0, K, N), 100 * LOGITS),
}


@pytest.mark.parametrize(
    ("y", "z"), UNBOUNDED.values(), ids=[f"fit_temperature: {kind}" for kind in UNBOUNDED]
)
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_temperature_at_the_end_of_its_range_is_none(y, z):
    with pytest.raises(ValueError, match="no temperature"):
        calibration.fit_temperature(y, z)


# --- What takes numbers ---

ON_NUMBERS: dict[str, tuple[Callable, list]] = {
    "level of t_interval": (lambda v: evaluation.t_interval([0.1, 0.2], v), [0, 1, 95, -0.5, np.nan, "0.9"]),
    "level of wilson_interval": (lambda v: evaluation.wilson_interval(1, 2, v), [0, 1, 95, np.nan, None]),
    "level of bootstrap_interval": (
        lambda v: evaluation.bootstrap_interval(np.mean, np.arange(4), level=v, draws=9),
        [0, 1, 95, np.nan],
    ),
    "level of compare": (lambda v: evaluation.compare(Y, Y, Y, level=v), [0, 1, 95, np.nan, True]),
    "draws of compare": (lambda v: evaluation.compare(Y, Y, Y, draws=v), [0, -1, 1.5, "9"]),
    "hits of wilson_interval": (lambda v: evaluation.wilson_interval(v, 2), [-1, 3, 0.5, np.nan, True]),
    "folds of cross_validate": (
        lambda v: evaluation.cross_validate(F, Y, folds=v, strengths=[1.0]),
        [0, 1, 11, 2.0, None],
    ),
    "strengths of linear_probe": (
        lambda v: heads.linear_probe(F, Y, F, Y, strengths=v),
        [[], [0], [-1.0], [np.nan], ["1"], [np.inf]],
    ),
    "ks of knn_head": (lambda v: heads.knn_head(F, Y, F, Y, ks=v), [[], [0], [-1], [1.5], ["3"]]),
    "dropout of mlp_head": (lambda v: heads.mlp_head(F, Y, F, Y, dropout=v), [1, 50, -0.1, np.nan]),
    "epochs of mlp_head": (lambda v: heads.mlp_head(F, Y, F, Y, epochs=v), [0, 1.5, "3", True]),
    "n_bins of reliability": (lambda v: calibration.reliability(Y, PROBA, n_bins=v), [0, -1, 2.5, np.nan]),
    "temperature": (lambda v: calibration.with_temperature(LOGITS, v), [0, -1, np.nan, np.inf, "1", None]),
    "values of t_interval": (evaluation.t_interval, [[], [1.0], [1.0, np.nan], [1, 1e20], ["a", "b"], 3.0]),
    "costs of pareto_front": (
        lambda v: evaluation.pareto_front(v, [1, 2]),
        [[], [1], [1, np.nan], ["a", "b"]],
    ),
    "error of proxy_a_distance": (losses.proxy_a_distance, [23, -0.1, np.nan, "0.2", None]),
    "bandwidth of mmd2": (lambda v: losses.mmd2(F, F, v), [0, -1, np.nan, np.inf, [], [1, 0], "1"]),
    "alpha of l2_sp": (lambda v: losses.l2_sp([F], [F], v), [-1, np.nan, np.inf, "1"]),
    "learning_rate of Recipe": (
        lambda v: recipes.Recipe(learning_rate=v),
        [0, -1, np.nan, np.inf, "1e-3", None],
    ),
    "epochs of Recipe": (lambda v: recipes.Recipe(epochs=v), [0, 2.5, np.nan, "3", None, True]),
    "warmup of Recipe": (lambda v: recipes.Recipe(warmup=v), [10, -0.1, np.nan, "0.1"]),
    "weight_decay of Recipe": (lambda v: recipes.Recipe(weight_decay=v), [-1, np.nan, np.inf, "0"]),
    "rates of Recipe": (lambda v: recipes.Recipe(rates={"block1": v}), [-1, np.nan, np.inf, "0.1"]),
    "steps of schedule": (lambda v: recipes.schedule(recipes.Recipe(), v), [0, -5, 1.5, np.nan]),
    "factor of discriminative_rates": (
        lambda v: recipes.discriminative_rates(("a", "b"), v),
        [0, -1, np.nan, np.inf],
    ),
    "blocks of discriminative_rates": (lambda v: recipes.discriminative_rates(v, 0.5), ["block1"]),
}


@pytest.mark.parametrize(
    ("function", "value"),
    [
        pytest.param(function, value, id=f"{name}: {value!r}")
        for name, (function, values) in ON_NUMBERS.items()
        for value in values
    ],
)
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_bad_number_ends_in_a_clear_error(function, value):
    with pytest.raises(
        (ValueError, TypeError), match=r"xpected|must|needs|two finite|NaN|too few|ks is empty"
    ) as raised:
        function(value)
    assert len(str(raised.value)) > 30


BAD_WEIGHTS = {"NaN": np.nan, "infinity": np.inf, "1e20, whose square overflows": np.float32(1e20)}


@pytest.mark.parametrize("value", BAD_WEIGHTS.values(), ids=[f"l2_sp: a weight of {k}" for k in BAD_WEIGHTS])
@pytest.mark.fault("arguments that would give a quiet NaN or a wrong number")
def test_a_penalty_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"l2_sp is (nan|inf)"):
        losses.l2_sp([ops.convert_to_tensor(put(F, value))], [F])
    with pytest.raises(ValueError, match=r"weights\[0\]"):
        losses.l2_sp([F.astype(str)], [F])


@pytest.mark.parametrize("loss", [losses.mmd2, losses.coral])
def test_losses_refuse_tensors_that_hold_no_number(loss):
    """Tensors of the backend, as in a training loop that is not compiled."""
    for value in (np.nan, np.inf, 1e20):
        with pytest.raises(ValueError, match=r"is (nan|inf).*overflow"):
            loss(ops.convert_to_tensor(put(F, value)), ops.convert_to_tensor(F))


# --- What must stay right ---

TYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float64": np.float64,
    "uint8": np.uint8,
    "int64": np.int64,
}


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_scores_of_features_are_the_same_in_each_type(dtype):
    f, g = F.astype(dtype), (F[::-1] // 2)
    np.testing.assert_array_equal(f.astype(np.float32), F)
    for score in (transferability.logme, transferability.h_score):
        assert score(f, Y) == score(F, Y)
    assert float(losses.coral(f, g.astype(dtype))) == pytest.approx(float(losses.coral(F, g)), rel=1e-5)
    ours = float(losses.mmd2(f, g.astype(dtype), bandwidth=100.0))
    assert ours == pytest.approx(float(losses.mmd2(F, g, bandwidth=100.0)), rel=1e-4)
    penalty = float(losses.l2_sp([f], [g.astype(dtype)]))
    assert penalty == pytest.approx(float(losses.l2_sp([F], [g])), rel=1e-6)
    folds = [evaluation.cross_validate(a, Y, folds=3, strengths=[0.1]).proba for a in (f, F)]
    np.testing.assert_allclose(*folds, atol=2e-3)


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_heads_are_the_same_in_each_type(dtype):
    f = F.astype(dtype)
    for make in (
        lambda a: heads.linear_probe(a, Y, a, Y, strengths=[0.1]),
        lambda a: heads.knn_head(a, Y, a, Y, ks=[3]),
    ):
        ours, expected = make(f), make(F)
        np.testing.assert_allclose(ours.predict_proba(f), expected.predict_proba(F), atol=2e-3)
        np.testing.assert_array_equal(ours.predict(f), expected.predict(F))
        assert ours.val_accuracy == expected.val_accuracy > 0.5


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=["float16", "bfloat16", "float64"]
)
def test_a_network_on_features_is_the_same_in_each_type(dtype):
    f = F.astype(dtype)
    ours, expected = (heads.mlp_head(a, Y, a, Y, hidden=8, epochs=2) for a in (f, F))
    np.testing.assert_allclose(ours.predict_proba(f), expected.predict_proba(F), atol=1e-5)


def test_lengths_do_not_overflow():
    """The nearest neighbours of long and of very short features are the same: only directions count."""
    near = heads.knn_head(F, Y, F, Y, ks=[3]).predict_proba(F)
    for factor in (1e10, 1e-25):
        f = F * np.float32(factor)
        np.testing.assert_allclose(heads.knn_head(f, Y, f, Y, ks=[3]).predict_proba(f), near)
    assert transferability.logme(F * 1e10, Y) == pytest.approx(transferability.logme(F, Y))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=str)
def test_probabilities_in_half_precision_are_probabilities(dtype):
    p, exact = PROBA.astype(dtype), calibration.calibration_error(Y, PROBA, draws=10).value
    assert calibration.calibration_error(Y, p, draws=10).value == pytest.approx(exact, abs=0.05)
    assert transferability.leep(p, Y) == pytest.approx(transferability.leep(PROBA, Y), abs=0.02)
    assert calibration.with_temperature(LOGITS.astype(dtype), 2).dtype == np.float64
    t = calibration.fit_temperature(Y, LOGITS.astype(dtype))
    assert t == pytest.approx(calibration.fit_temperature(Y, LOGITS), rel=0.02)


def test_labels_of_every_integer_type_and_tensors_are_taken():
    for y in (Y.astype(np.uint8), Y.astype(np.int32), Y.tolist(), ops.convert_to_tensor(Y)):
        assert evaluation.accuracy(y, Y) == 1.0
        assert transferability.h_score(ops.convert_to_tensor(F), y) == transferability.h_score(F, Y)
    assert transferability.nce(Y * 10**9, Y) == pytest.approx(0), "names of classes, not places in a table"
    assert transferability.logme(F, Y * 5) == transferability.logme(F, Y)


def test_logits_that_sum_to_1_can_be_shifted():
    z = np.array([[0.0, 1.0], [1.0, 0.0]])
    expected = [[1 / (1 + np.e), np.e / (1 + np.e)]]
    np.testing.assert_allclose(calibration.with_temperature(z + 1, 1)[:1], expected)


def test_within_compiled_functions_losses_are_not_checked():
    """There no value is known: the loss must still be traced, and be what it is outside."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(losses.coral)
    elif keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(losses.coral)
    else:
        compiled = losses.coral
    g = F[::-1] // 2
    assert float(compiled(ops.convert_to_tensor(F), ops.convert_to_tensor(g))) == pytest.approx(
        float(losses.coral(F, g)), rel=1e-5
    )
    symbolic = losses.coral(keras.KerasTensor((4, 3)), keras.KerasTensor((4, 3)))
    assert symbolic.shape == ()


def test_the_largest_number_is_taken_and_the_next_is_not():
    assert checks.floats([[checks.LARGEST]], "The features").item() == checks.LARGEST
    with pytest.raises(ValueError, match="divide by a constant"):
        checks.floats([[np.nextafter(checks.LARGEST, np.inf)]], "The features")
