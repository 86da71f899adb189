"""Loss terms of transfer learning that Keras does not have, written in ``keras.ops``.

The functions run on every Keras backend, take NumPy arrays, tensors or Keras variables, and are
differentiable in them (`proxy_a_distance` is a plain number). Work is done in float32, or in float64 when an
argument has that type. The chapter "The losses, computed" evaluates each of them by hand.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tlhelpers import checks

Tensor = Any  # a NumPy array, a tensor of the active backend, or a keras.Variable


def l2_sp(weights: Any, start_weights: Any, alpha: float = 1.0) -> Tensor:
    """Computes the L2-SP penalty: half of alpha times the squared distance to the starting point.

    ``alpha / 2 * sum over k of ||weights[k] - start_weights[k]||^2``. Weight decay pulls to zero, L2-SP pulls
    to the pretrained weights ("SP": starting point). No gradient flows into ``start_weights``.

    Args:
        weights: List of trainable tensors or variables of any shape, or one of them.
        start_weights: Their pretrained values, in the same order and shapes. Copies, not the same variables.
        alpha: Strength, 0 or more. 0 is plain fine-tuning; a very large one leaves the linear probe.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: If ``weights`` is empty, numbers or shapes differ, ``alpha`` is negative, or a variable is
            given as its own starting point (the penalty would be zero for ever).

    References:
        Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
        Networks", ICML 2018.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.losses import l2_sp
        >>> float(l2_sp(np.array([1.0, 2.0]), np.array([1.0, 0.0]), alpha=0.5))
        1.0
    """
    alpha = checks.number(alpha, "alpha")
    now, start = _as_list(weights), _as_list(start_weights)
    if not now:
        raise ValueError("weights is empty, so nothing is held. Pass the trainable weights of the backbone.")
    if len(now) != len(start):
        raise ValueError(
            f"weights has {len(now)} entries, start_weights has {len(start)}. "
            "Pass one starting value for each weight, in the same order."
        )
    total: Tensor = 0.0
    for k, (w, w0) in enumerate(zip(now, start, strict=True)):
        if w is w0 and isinstance(w, keras.Variable):
            raise ValueError(
                f"start_weights[{k}] is the variable weights[{k}] itself: the penalty would stay 0. "
                "Copy the values before training: [keras.ops.convert_to_numpy(w).copy() for w in weights]."
            )
        w, w0 = _as_floats(w, w0, f"weights[{k}]", f"start_weights[{k}]")
        if tuple(w.shape) != tuple(w0.shape):
            raise ValueError(
                f"weights[{k}] has shape {tuple(w.shape)}, start_weights[{k}] has {tuple(w0.shape)}. "
                "Both must have the same shape; check the order of the lists."
            )
        total = total + ops.sum(ops.square(w - ops.stop_gradient(w0)))
    return _finite(0.5 * alpha * total, "l2_sp")


class L2SP(keras.regularizers.Regularizer):
    """`l2_sp` of one variable as a Keras regularizer.

    Args:
        start_weight: Starting value, an array of the variable's shape. A copy is kept.
        alpha: Strength, 0 or more.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from tlhelpers.losses import L2SP
        >>> held = L2SP(np.array([1.0, 0.0]), alpha=0.5)
        >>> float(held(keras.ops.array([1.0, 2.0])))
        1.0
    """

    def __init__(self, start_weight: Any, alpha: float) -> None:
        self.alpha = checks.number(alpha, "alpha")
        # NumPy, not a tensor: a tensor made inside a traced function would not outlive it.
        self.start_weight = checks.array(ops.convert_to_numpy(start_weight), "start_weight").copy()

    def __call__(self, x: Tensor) -> Tensor:
        return l2_sp([x], [self.start_weight], self.alpha)


def mmd2(z: Tensor, u: Tensor, bandwidth: float | Sequence[float] = 1.0, *, unbiased: bool = True) -> Tensor:
    """Estimates the squared maximum mean discrepancy between two samples of features.

    Mean kernel value inside ``z``, plus the same inside ``u``, minus twice the mean between them. The kernel
    is Gaussian, ``k(a, b) = exp(-||a - b||^2 / (2 bandwidth^2))``; with several bandwidths it is the mean of
    their kernels, so that ``k(a, a) = 1`` always.

    The biased estimate is the exact value between the two samples taken as distributions: never negative, and
    0 for a sample with itself. The unbiased one leaves out the pairs of a point with itself: its expectation
    is the value between the populations, and it may be negative.

    Args:
        z: Features of shape ``(m, d)``.
        u: Features of shape ``(n, d)``.
        bandwidth: Length in feature units, or several of them. Start near the median distance between points.
        unbiased: Which estimate; see above.

    Returns:
        Scalar tensor, at most 2.

    Raises:
        ValueError: If a shape is not ``(rows, d)`` with the same ``d``, if there are too few rows (2 each for
            the unbiased estimate, 1 for the other), or if a bandwidth is not positive.

    References:
        Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A Kernel Two-Sample Test", JMLR 13, 2012.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.losses import mmd2
        >>> z = np.array([[0.0], [1.0]])
        >>> round(float(mmd2(z, z + 100.0, unbiased=False)), 4)
        1.6065
    """
    bandwidths = checks.numbers(bandwidth, "bandwidth", above=True)
    z, u = _check_features(z, u, min_rows=2 if unbiased else 1)
    between = ops.mean(_gaussian_kernel(z, u, bandwidths))
    within = _mean_within(z, bandwidths, unbiased) + _mean_within(u, bandwidths, unbiased)
    return _finite(within - 2.0 * between, "mmd2")


def coral(z: Tensor, u: Tensor) -> Tensor:
    """Computes the Deep CORAL loss: squared distance between the covariances of two samples of features.

    ``||C_z - C_u||_F^2 / (4 d^2)`` with covariances of denominator ``n - 1``. It compares covariances only:
    a shift of the mean goes unseen.

    Args:
        z: Features of shape ``(m, d)``, ``m`` at least 2.
        u: Features of shape ``(n, d)``, ``n`` at least 2.

    Returns:
        Scalar tensor, 0 or more, in (feature units)^4.

    Raises:
        ValueError: If a shape is not ``(rows, d)`` with the same ``d``, or there are fewer than 2 rows.

    References:
        Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV 2016 workshops.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.losses import coral
        >>> float(coral(np.array([[-1.0], [0.0], [1.0]]), np.array([[-2.0], [0.0], [2.0]])))
        2.25
    """
    z, u = _check_features(z, u, min_rows=2)
    d = int(z.shape[1])
    return _finite(ops.sum(ops.square(_covariance(z) - _covariance(u))) / (4.0 * d**2), "coral")


def proxy_a_distance(error: float) -> float:
    """Computes the proxy A-distance from the error of a classifier that tells source from target.

    ``2 (1 - 2 error)``: 0 when the domains cannot be told apart, 2 when they always can. A value below 0
    means a held-out error above one half, which happens by chance: read it as 0.

    Args:
        error: Held-out error rate, a fraction from 0 to 1, on as many examples of one domain as of the other.

    Returns:
        Number from -2 to 2.

    Raises:
        ValueError: If ``error`` is not in 0 to 1.

    References:
        Ben-David, Blitzer, Crammer, Kulesza, Pereira and Vaughan, "A theory of learning from different
        domains", Machine Learning 79, 2010.

    Example:
        >>> from tlhelpers.losses import proxy_a_distance
        >>> proxy_a_distance(0.25)
        1.0
    """
    return 2.0 * (1.0 - 2.0 * checks.number(error, "error", 0, 1))


def _as_list(weights: Any) -> list[Tensor]:
    """A list of arrays; a single array becomes a list of one."""
    return [weights] if hasattr(weights, "shape") else list(weights)


def _as_floats(a: Tensor, b: Tensor, name_a: str, name_b: str) -> tuple[Tensor, Tensor]:
    """Both as tensors of one floating type, at least float32 (squares of half floats overflow early)."""
    a, b = _tensor(a, name_a), _tensor(b, name_b)
    dtype = keras.backend.result_type(a.dtype, b.dtype, "float32")
    return ops.cast(a, dtype), ops.cast(b, dtype)


def _tensor(x: Tensor, name: str) -> Tensor:
    own = ops.is_tensor(x) or isinstance(x, keras.Variable | keras.KerasTensor)
    return ops.convert_to_tensor(x if own else checks.array(x, name))


def _finite(value: Tensor, name: str) -> Tensor:
    """The value, which must be finite where it is known: while a function is traced, it is not."""
    try:
        known = ops.convert_to_numpy(value)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return value
    if not np.isfinite(known):
        raise ValueError(
            f"{name} is {known}: the arguments hold NaN or infinity, or numbers whose powers overflow "
            f"{known.dtype}. Look at the images and the backbone's weights, or divide by a constant."
        )
    return value


def _check_features(z: Tensor, u: Tensor, min_rows: int) -> tuple[Tensor, Tensor]:
    """Both as float tensors (rows, d). A row count that is not known while a function is traced passes."""
    z, u = _as_floats(z, u, "z", "u")
    for name, value in (("z", z), ("u", u)):
        if len(value.shape) != 2 or 0 in value.shape[1:] or value.shape[1] != z.shape[1]:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)}, expected (rows, d), one d for both; z has "
                f"{tuple(z.shape)}. Take the same layer; pool or flatten feature maps first."
            )
        rows = value.shape[0]
        if rows is not None and rows < min_rows:
            raise ValueError(f"{name} has {rows} row(s), expected at least {min_rows}. Use a larger batch.")
    return z, u


def _row_count(x: Tensor) -> Tensor:
    return ops.cast(ops.shape(x)[0], x.dtype)


def _gaussian_kernel(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Kernel matrix (rows of a, rows of b). The expanded square needs no (m, n, d) array."""
    # A common shift changes no distance, but without it the square loses digits far from the origin.
    centre = ops.stop_gradient(ops.mean(ops.concatenate([a, b], axis=0), axis=0, keepdims=True))
    a, b = a - centre, b - centre
    norms = ops.sum(ops.square(a), axis=1)[:, None] + ops.sum(ops.square(b), axis=1)[None, :]
    squared = ops.maximum(norms - 2.0 * ops.matmul(a, ops.transpose(b)), 0.0)
    return sum(ops.exp(-squared / (2.0 * s**2)) for s in bandwidths) / len(bandwidths)


def _mean_within(x: Tensor, bandwidths: Sequence[float], unbiased: bool) -> Tensor:
    """Mean kernel value over pairs of rows, without the pairs of a row with itself where ``unbiased``."""
    kernel, n = _gaussian_kernel(x, x, bandwidths), _row_count(x)
    if not unbiased:
        return ops.mean(kernel)
    return (ops.sum(kernel) - ops.sum(ops.diagonal(kernel))) / (n * (n - 1.0))


def _covariance(x: Tensor) -> Tensor:
    centred = x - ops.mean(x, axis=0, keepdims=True)
    return ops.matmul(ops.transpose(centred), centred) / (_row_count(x) - 1.0)
