"""A linear head on features that come in batches, again and again: for more of them than memory holds."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tlhelpers import checks, heads

__all__ = ["linear_probe"]

_SLOPE = 1e-5  # of the mean loss, where the training ends


def linear_probe(
    batches: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]],
    n_classes: int,
    *,
    strength: float = 1e-3,
    max_passes: int = 300,
) -> heads.LinearProbe:
    """Trains a multinomial logistic regression on standardised features, one batch in memory at a time.

    The first pass over all batches takes mean and spread. Each further pass adds up the loss and its slope
    over all of them, for one step of L-BFGS. So the order of the features does not matter, sorted by class or
    not, and there is no learning rate to choose. The result is that of `tlhelpers.heads.linear_probe` in
    memory: where both have converged, with a strength of 0.01 or less, probabilities agree to 0.002. A weaker
    penalty takes more passes.

    Args:
        batches: Starts a pass: yields features ``(m, d)`` and labels 0..n_classes-1, ``(m,)``.
        n_classes: Number of classes.
        strength: C, inverse to the L2 penalty, as in `tlhelpers.heads.linear_probe`.
        max_passes: At most. Where they do not suffice, a warning says so.

    Returns:
        The head. Nothing validated it: its ``val_accuracy`` is not a number.

    Raises:
        ValueError: If an argument is not as described, or there are no features.

    Example:
        >>> from tlhelpers import data, streamed
        >>> ds = data.load("digits", n_train=200, n_val=50, n_test=50)
        >>> f_train, f_test = (x.reshape(len(x), -1) / 255 for x in (ds.x_train, ds.x_test))
        >>> def batches():
        ...     for start in range(0, 200, 64):
        ...         yield f_train[start : start + 64], ds.y_train[start : start + 64]
        >>> head = streamed.linear_probe(batches, n_classes=10)
        >>> bool((head.predict(f_test) == ds.y_test).mean() > 0.8)
        True
    """
    k = checks.whole(n_classes, "n_classes", 2)
    strength = checks.number(strength, "strength", above=True)
    max_passes = checks.whole(max_passes, "max_passes")
    scaler = StandardScaler()
    for f, y in batches():
        f, y = checks.features(f, y, "training", k=k)
        scaler.partial_fit(f.astype(np.float64))
    if not hasattr(scaler, "n_samples_seen_"):
        raise ValueError("There are no features in these batches.")
    n, d = scaler.n_samples_seen_, scaler.n_features_in_
    columns = 1 if k == 2 else k  # of two classes, scikit-learn keeps the log odds of the second

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(d + 1, columns)
        value, slope = (w[:-1] ** 2).sum() / (2 * strength * n), w / (strength * n)
        slope[-1] = 0  # the bias has no penalty
        for f, y in batches():
            x, true = scaler.transform(f.astype(np.float64)), np.eye(k)[y]
            log_p = log_softmax(np.pad(x @ w[:-1] + w[-1], ((0, 0), (k - columns, 0))), axis=1)
            error = (np.exp(log_p) - true)[:, k - columns :]
            value -= (log_p * true).sum() / n
            slope += np.vstack([x.T @ error, error.sum(axis=0)]) / n
        return value, slope.ravel()

    options = {"maxfun": max_passes, "maxiter": max_passes, "gtol": _SLOPE, "ftol": 0, "maxls": 50}
    with threadpool_limits(1):  # products of a batch are small: see `heads.linear_probe`
        found = minimize(loss, np.zeros((d + 1) * columns), jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        said = f"The head has not converged after {found.nfev} passes"
        warnings.warn(f"{said}. Take more (max_passes), or a smaller strength.", stacklevel=2)
    w = found.x.reshape(d + 1, columns)
    regression = LogisticRegression(C=strength)
    regression.coef_, regression.intercept_ = w[:-1].T, w[-1]
    regression.classes_, regression.n_iter_ = np.arange(k), np.array([found.nit])
    regression.n_features_in_ = d
    return heads.LinearProbe(make_pipeline(scaler, regression), strength, {strength: float("nan")})
