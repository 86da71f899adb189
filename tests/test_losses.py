"""Behaviour of tlhelpers.losses: values worked out by hand, identities, gradients, errors."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

from tlhelpers import losses

# With this bandwidth the kernel is 2 ** -(distance ** 2), so that values can be worked out by hand.
HALVING = (2.0 * np.log(2.0)) ** -0.5


def gradient(function: Callable, x: np.ndarray) -> np.ndarray:
    """Gradient of a scalar function at x, by the active backend."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        v = tf.Variable(x)
        with tf.GradientTape() as tape:
            y = function(v)
        return tape.gradient(y, v).numpy()
    if name == "jax":
        import jax

        return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)))
    if name == "torch":
        import torch

        t = torch.tensor(x, requires_grad=True)
        function(t).backward()
        return t.grad.numpy()
    pytest.skip(f"the {name} backend has no gradients")


def finite_differences(function: Callable, x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    g = np.zeros_like(x, dtype="float64")
    for k in np.ndindex(*x.shape):
        e = np.zeros_like(x)
        e[k] = step
        g[k] = (float(function(x + e)) - float(function(x - e))) / (2 * step)
    return g


def features(seed: int, shape: tuple[int, int] = (6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# ---------------------------------------------------------------- L2-SP


def test_l2_sp_by_hand():
    weights = [np.array([[1.0, 2.0]]), np.array([3.0])]
    start = [np.array([[1.0, 0.0]]), np.array([2.0])]
    assert float(losses.l2_sp(weights, start, alpha=0.4)) == pytest.approx(0.2 * (0 + 4 + 1))


def test_l2_sp_takes_one_array_and_counts_whole_numbers_as_floats():
    assert float(losses.l2_sp(np.array([1, 2]), np.array([1, 0]), alpha=0.5)) == pytest.approx(1.0)


def test_l2_sp_is_zero_at_the_start_and_for_alpha_zero():
    w = features(0)
    assert float(losses.l2_sp([w], [w.copy()], alpha=3.0)) == 0.0
    assert float(losses.l2_sp([w], [w + 1], alpha=0.0)) == 0.0


def test_l2_sp_gradient_is_alpha_times_the_way_back():
    w, w0 = features(0), features(1)
    g = gradient(lambda v: losses.l2_sp([v], [w0], alpha=0.3), w)
    np.testing.assert_allclose(g, 0.3 * (w - w0), rtol=1e-5)


def test_l2_sp_start_weights_get_no_gradient():
    w, w0 = features(0), features(1)
    # The start enters twice, once outside the penalty, so that the gradient is not None.
    g = gradient(lambda v: losses.l2_sp([w], [v], alpha=0.3) + ops.sum(v), w0)
    np.testing.assert_allclose(g, np.ones_like(w0))


def test_l2_sp_quadratic_closed_form():
    """Descent on a quadratic plus the penalty ends at (H + alpha I)^-1 (H best + alpha start)."""
    hessian, alpha = np.array([[4.0, 1.0], [1.0, 2.0]], "float32"), 0.5
    best, start = np.array([3.0, 1.0], "float32"), np.array([1.0, 2.0], "float32")

    def objective(w):
        off = ops.reshape(w - best, (2, 1))
        return 0.5 * ops.sum(off * ops.matmul(hessian, off)) + losses.l2_sp(w, start, alpha)

    w = start.copy()
    for _ in range(100):
        w = w - 0.2 * gradient(objective, w)
    expected = np.linalg.solve(hessian + alpha * np.eye(2), hessian @ best + alpha * start)
    np.testing.assert_allclose(w, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "start", "alpha", "message"),
    [
        ([], [], 1.0, "weights is empty"),
        ([np.ones(2)], [], 1.0, "1 entries, .* has 0"),
        ([np.ones(2)], [np.ones(3)], 1.0, r"\[0\] has shape \(2,\)"),
        ([np.ones(2)], [np.ones(2)], -1.0, "alpha is -1.0"),
        ([np.ones(2)], [np.ones(2)], float("nan"), "alpha is nan"),
    ],
)
def test_l2_sp_errors(weights, start, alpha, message):
    with pytest.raises(ValueError, match=message):
        losses.l2_sp(weights, start, alpha)


def test_l2_sp_refuses_a_variable_as_its_own_start():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="would stay 0"):
        losses.l2_sp(layer.trainable_weights, layer.trainable_weights)


# ---------------------------------------------------------------- MMD


def test_mmd2_by_hand():
    z, u = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # Inside: 1/2 off the diagonal, 1 on it. Between: 1/2, 1/16, 1, 1/2.
    between = (1 / 2 + 1 / 16 + 1 + 1 / 2) / 4
    assert float(losses.mmd2(z, u, HALVING, unbiased=False)) == pytest.approx(
        2 * 3 / 4 - 2 * between, rel=1e-5
    )
    assert float(losses.mmd2(z, u, HALVING)) == pytest.approx(2 * 1 / 2 - 2 * between, rel=1e-5)
    assert float(losses.mmd2(z, u, HALVING)) < 0  # which an unbiased estimate may be


def test_mmd2_of_different_sample_sizes_by_hand():
    z, u = np.array([[0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])
    inside_u = (1 / 2 + 1 / 2 + 1 / 16) / 3
    between = (1 + 1 / 2 + 1 / 16 + 1 / 2 + 1 + 1 / 2) / 6
    assert float(losses.mmd2(z, u, HALVING)) == pytest.approx(1 / 2 + inside_u - 2 * between, abs=1e-6)


@pytest.mark.parametrize("m", [2, 5, 40])
def test_mmd2_of_a_sample_with_itself(m):
    z = features(0, (m, 3))
    squared = ((z[:, None] - z[None]) ** 2).sum(-1)
    off = np.exp(-squared / 2)[~np.eye(m, dtype=bool)].mean()
    assert float(losses.mmd2(z, z, unbiased=False)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.mmd2(z, z)) == pytest.approx(2 / m * (off - 1), abs=1e-6)


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd2_is_symmetric_and_ignores_order_and_a_common_shift(unbiased):
    z, u = features(0), features(1, (9, 3)) + 1
    value = float(losses.mmd2(z, u, unbiased=unbiased))
    assert float(losses.mmd2(u, z, unbiased=unbiased)) == pytest.approx(value, abs=1e-6)
    assert float(losses.mmd2(z[::-1], u[::-1], unbiased=unbiased)) == pytest.approx(value, abs=1e-6)
    assert float(losses.mmd2(z + 1000, u + 1000, unbiased=unbiased)) == pytest.approx(value, abs=1e-3)


def test_mmd2_far_from_the_origin_keeps_its_digits_in_float64():
    z, u = features(0).astype("float64"), features(1).astype("float64")
    tolerance = 1e-6 if keras.backend.backend() == "jax" else 1e-9  # JAX computes in float32 as it comes
    near = float(losses.mmd2(z, u))
    assert near == pytest.approx(float(losses.mmd2(z - 3, u - 3)), abs=tolerance)


def test_mmd2_grows_with_the_shift_to_its_ceiling():
    z = features(0, (20, 2))
    values = [float(losses.mmd2(z, z + s, unbiased=False)) for s in (0, 0.5, 1, 2, 4, 100)]
    assert values == sorted(values)
    ceiling = 2 * np.exp(-((z[:, None] - z[None]) ** 2).sum(-1) / 2).mean()
    assert values[-1] == pytest.approx(ceiling, rel=1e-5)


def test_mmd2_of_several_bandwidths_is_the_mean_of_their_kernels():
    z, u = features(0), features(1) + 1
    single = [float(losses.mmd2(z, u, b)) for b in (0.5, 1.0, 2.0)]
    assert float(losses.mmd2(z, u, (0.5, 1.0, 2.0))) == pytest.approx(np.mean(single), abs=1e-6)
    assert float(losses.mmd2(z, u, np.array([0.5, 1.0, 2.0]))) == pytest.approx(np.mean(single), abs=1e-6)


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd2_gradient(unbiased):
    z, u = features(0), features(1) + 1

    def loss(v):
        return losses.mmd2(v, u, (1.0, 2.0), unbiased=unbiased)

    g = gradient(loss, z)
    assert np.abs(g).max() > 1e-3
    np.testing.assert_allclose(g, finite_differences(loss, z), atol=2e-4)


def test_half_precision_features_are_computed_in_float32():
    z, u = 300 * features(0).astype("float16"), 300 * features(1).astype("float16")
    assert np.isfinite(float(losses.coral(z, u)))
    assert keras.backend.standardize_dtype(losses.mmd2(z, u, 300.0).dtype) == "float32"


# ---------------------------------------------------------------- CORAL


def test_coral_by_hand():
    z = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    u = z * np.array([2.0, 1.0])
    # Covariances diag(2/3, 2/3) and diag(8/3, 2/3): one entry differs by 2, d = 2.
    assert float(losses.coral(z, u)) == pytest.approx(2**2 / (4 * 2**2))


def test_coral_counts_off_diagonal_entries_twice():
    z = np.array([[1.0, 1.0], [-1.0, -1.0]])
    u = np.array([[1.0, -1.0], [-1.0, 1.0]])
    # Covariances [[2, 2], [2, 2]] and [[2, -2], [-2, 2]].
    assert float(losses.coral(z, u)) == pytest.approx((4**2 + 4**2) / 16)


def test_coral_agrees_with_numpy_on_different_sample_sizes():
    z, u = features(0), features(1, (11, 3)) * 2
    expected = np.square(np.cov(z.T) - np.cov(u.T)).sum() / (4 * 3**2)
    assert float(losses.coral(z, u)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.coral(u, z)) == pytest.approx(expected, rel=1e-5)


def test_coral_is_blind_to_a_shift_and_scales_with_the_fourth_power():
    z, u = features(0), features(1) * 2
    value = float(losses.coral(z, u))
    assert float(losses.coral(z, z + 5)) == pytest.approx(0.0, abs=1e-5)
    assert float(losses.coral(z, u - 5)) == pytest.approx(value, rel=1e-4)
    assert float(losses.coral(0.5 * z, 0.5 * u)) == pytest.approx(value / 16, rel=1e-5)


def test_coral_gradient():
    z, u = features(0), features(1) * 2
    g = gradient(lambda v: losses.coral(v, u), z)
    assert np.abs(g).max() > 1e-3
    np.testing.assert_allclose(g, finite_differences(lambda v: losses.coral(v, u), z), atol=1e-3)


# ---------------------------------------------------------------- both, and inside a model


@pytest.mark.parametrize("loss", [losses.mmd2, losses.coral])
@pytest.mark.parametrize(
    ("z", "u", "message"),
    [
        (np.ones(3), np.ones((3, 1)), r"^z has .*\(3,\)"),
        (np.ones((3, 2)), np.ones((3, 2, 2)), r"u has the shape \(3, 2, 2\)"),
        (np.ones((1, 2)), np.ones((3, 2)), "z has 1 .*at least 2"),
        (np.ones((3, 2)), np.ones((1, 2)), "u has 1 .*at least 2"),
        (np.ones((3, 2)), np.ones((3, 4)), r"u has the shape \(3, 4\).* z has \(3, 2\)"),
    ],
)
def test_feature_errors(loss, z, u, message):
    with pytest.raises(ValueError, match=message):
        loss(z, u)


def test_biased_mmd2_works_on_single_rows_and_refuses_none():
    assert float(losses.mmd2(np.zeros((1, 1)), np.ones((1, 1)), HALVING, unbiased=False)) == pytest.approx(
        1.0
    )
    with pytest.raises(ValueError, match="expected at least 1"):
        losses.mmd2(np.zeros((0, 1)), np.ones((1, 1)), unbiased=False)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, (1.0, 0.0), (), float("nan"), float("inf")])
def test_mmd2_refuses_a_bandwidth_that_is_no_length(bandwidth):
    with pytest.raises(ValueError, match="bandwidth is"):
        losses.mmd2(np.zeros((2, 1)), np.ones((2, 1)), bandwidth)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="an unknown batch size is TensorFlow's case"
)
def test_losses_trace_with_an_unknown_batch_size():
    import tensorflow as tf

    spec = tf.TensorSpec((None, 3), "float32")
    traced = tf.function(lambda z, u: (losses.mmd2(z, u), losses.coral(z, u)), input_signature=[spec, spec])
    z, u = features(0), features(1, (4, 3))
    np.testing.assert_allclose(
        [float(x) for x in traced(z, u)], [float(losses.mmd2(z, u)), float(losses.coral(z, u))], rtol=1e-5
    )


# ---------------------------------------------------------------- proxy A-distance


@pytest.mark.parametrize(("error", "distance"), [(0.5, 0.0), (0.0, 2.0), (0.25, 1.0), (0.75, -1.0)])
def test_proxy_a_distance(error, distance):
    assert losses.proxy_a_distance(error) == distance


@pytest.mark.parametrize("error", [-0.1, 1.1, 23.0, float("nan")])
def test_proxy_a_distance_refuses_what_is_no_fraction(error):
    with pytest.raises(ValueError, match=r"error is .* at most 1"):
        losses.proxy_a_distance(error)


# ---------------------------------------------------------------- the exercises of notebooks/02_losses.ipynb


def test_exercise_discrepancies_by_hand():
    z, u = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
    assert float(losses.mmd2(z, u, HALVING, unbiased=False)) == pytest.approx(17 / 32, rel=1e-5)
    assert float(losses.mmd2(z, u, HALVING)) == pytest.approx(1 / 16, rel=1e-5)
    assert float(losses.coral(z, u)) == pytest.approx(1.0)
    assert float(losses.coral(z, u + 10)) == pytest.approx(1.0)
    assert float(losses.mmd2(z, u + 10, HALVING)) == pytest.approx(1 / 16 + 1, rel=1e-5)


def test_exercise_l2_sp_half_way():
    hessian, best, start, alpha = np.diag([4.0, 1.0]), np.array([3.0, 1.0]), np.array([1.0, 2.0]), 1.0
    solution = np.linalg.solve(hessian + alpha * np.eye(2), hessian @ best + alpha * start)
    np.testing.assert_allclose(solution, [2.6, 1.5])
    # It is stationary: the gradient of the bowl and that of the penalty cancel.
    g = gradient(lambda w: losses.l2_sp(w, start.astype("float32"), alpha), solution.astype("float32"))
    np.testing.assert_allclose(g, -hessian @ (solution - best), rtol=1e-5)


def test_exercise_domain_classifier():
    source, target = np.arange(4), np.arange(2, 6)
    errors = [(np.mean(source >= t) + np.mean(target < t)) / 2 for t in range(7)]
    assert [t for t in range(7) if errors[t] == min(errors)] == [2, 3, 4]
    assert losses.proxy_a_distance(min(errors)) == 1.0
