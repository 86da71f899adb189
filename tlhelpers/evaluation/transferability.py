"""Scores that guess, without training, how well a source will serve a target. None is an accuracy."""

import numpy as np
from scipy import linalg
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import normalize, scale

from tlhelpers import checks

# Ratios of noise to signal that LogME looks at, in units of the mean squared singular value of the features.
_LOG_RATIOS = np.linspace(np.log(1e-10), np.log(1e10), 161)


def h_score(f: np.ndarray, y: np.ndarray, *, shrinkage: bool = False) -> float:
    """Computes the H-score (Bao et al., 2019): how much of the features' spread lies between the classes.

    ``trace(C^-1 B)`` with the covariance C of the features and the covariance B of their class means. It
    lies between 0 and k-1 for k classes, and no invertible linear map of the features changes it. Computed
    by a singular value decomposition of the centred features, without inverting C: it is the squared length
    of the projection of the class indicators on the space that the features span. For n <= d that space is
    everything, and the score is k-1 whatever the features are; then use the shrunken covariance.

    Args:
        f: Features ``(n, d)``.
        y: Labels ``(n,)``, at least two classes.
        shrinkage: Whether C is estimated with Ledoit and Wolf's shrinkage and B scaled down as much, after
            Ibrahim, Ponomareva and Mazumder (2022): for few images. The score still lies between 0 and k-1,
            but depends on the scale of the features relative to each other.

    Raises:
        ValueError: If the input is degenerate: one class, no feature that varies, NaN, shapes.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import transferability
        >>> f = np.array([[0.0], [0.0], [1.0], [1.0]])  # tells the two classes apart
        >>> round(transferability.h_score(f, np.array([0, 0, 1, 1])), 6)
        1.0
    """
    f, y = _check(f, y)
    centred = f - f.mean(axis=0)
    means = _class_means(centred, y)  # of each image's class, (n, d)
    if shrinkage:
        covariance, amount = ledoit_wolf(centred, assume_centered=True)
        between = (1 - amount) * means.T @ means / len(y)
        return float(np.trace(linalg.solve(covariance, between, assume_a="pos")))
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u = u[:, s > s[0] * max(centred.shape) * np.finfo(float).eps]
    return float(np.sum(_class_means(u, y) ** 2))


def by_chance(f: np.ndarray, y: np.ndarray, *, orders: int = 200) -> float:
    """Computes how often labels in random order fit the features as well as the order that they have.

    Of two measures the smaller share: how often the nearest neighbour has the same label, and how well a
    ridge regression predicts each image from the others, which sees what is spread over many features. Near
    0, the features say something about the labels; for labels of other images each share is as likely.

    Args:
        f: Features ``(n, d)``; brought to mean 0 and deviation 1, and each image's to length 1.
        y: Labels ``(n,)``, at least two classes.
        orders: Number of random orders.

    Raises:
        ValueError: If the input is degenerate: one class, no feature that varies, NaN, shapes.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import transferability
        >>> y = np.arange(20) % 2
        >>> transferability.by_chance(np.stack([y, 1 - y], axis=1), y)
        0.0
    """
    f, y = _check(f, y)
    n, f = len(y), normalize(scale(f))
    near = f @ f.T
    fit = near @ np.linalg.inv(near + 0.1 * np.eye(n))
    others = (fit - np.diag(np.diag(fit))) / (1 - np.diag(fit))[:, None]  # without the image itself
    np.fill_diagonal(near, -np.inf)
    rng, closest = np.random.default_rng(0), near.argmax(axis=1)
    indicators = (y[:, None] == np.unique(y)).astype(float)
    indicators -= indicators.mean(axis=0)
    scores = []
    for order in [np.arange(n), *(rng.permutation(n) for _ in range(orders))]:
        rows = indicators[order]
        guess = others @ rows
        scores.append([(rows[closest] * rows).sum(), (guess * rows).sum() / np.linalg.norm(guess)])
    return float((np.array(scores[1:]) >= scores[0]).mean(axis=0).min())


def nce(z: np.ndarray, y: np.ndarray) -> float:
    """Computes the negative conditional entropy (Tran et al., 2019): what source labels tell of the target's.

    ``-H(Y | Z)`` in nats, from counts. It is 0 where the source label determines the target label, and
    ``-log k`` at the least. Renaming labels changes nothing.

    Args:
        z: Labels that a source model predicts for the target's images, ``(n,)``, whole numbers from 0.
        y: Labels of the target ``(n,)``, at least two classes.

    Raises:
        ValueError: If the input is degenerate.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import transferability
        >>> source_labels, y = np.array([5, 5, 2, 2]), np.array([0, 1, 0, 1])  # tell nothing: -log 2
        >>> round(transferability.nce(source_labels, y), 3)
        -0.693
    """
    z = np.unique(checks.labels(z, "The source labels"), return_inverse=True)[1]
    y = _numbered(y, len(z))
    joint = np.zeros((int(z.max()) + 1, int(y.max()) + 1))
    np.add.at(joint, (z, y), 1 / len(y))
    conditional = joint / np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return float(np.sum(joint[joint > 0] * np.log(conditional[joint > 0])))


def leep(source: np.ndarray, y: np.ndarray) -> float:
    """Computes LEEP (Nguyen et al., 2020): log likelihood of target labels given the source's outputs.

    A target label is predicted by drawing a source label from the model's output and then a target label
    from those that went with it. The mean log probability of the true labels is at most 0. For outputs of
    one 1 and zeros it equals `nce`.

    Args:
        source: Probabilities of the source's classes on the target's images, ``(n, s)``.
        y: Labels of the target ``(n,)``, at least two classes.

    Raises:
        ValueError: If the input is degenerate, or a row is no distribution.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import transferability
        >>> proba = np.array([[0.5, 0.5]] * 4)  # tells nothing: -log 2
        >>> round(transferability.leep(proba, np.array([0, 1, 0, 1])), 3)
        -0.693
    """
    source = checks.probabilities(source)
    y = _numbered(y, len(source))
    joint = np.zeros((int(y.max()) + 1, source.shape[1]))
    np.add.at(joint, y, source / len(y))
    marginal = joint.sum(axis=0)
    used = marginal > 0
    conditional = joint[:, used] / marginal[used]
    expected = np.einsum("ns,ns->n", source[:, used], conditional[y])
    return float(np.mean(np.log(np.maximum(expected, np.finfo(float).tiny))))


def logme(f: np.ndarray, y: np.ndarray) -> float:
    """Computes LogME (You et al., 2021): log evidence of linear regression from features to class indicators.

    For each class c, the indicator ``y == c`` is modelled as ``f w`` plus noise, ``w`` normal with variance
    ``1 / alpha`` and the noise with ``1 / beta``; the evidence is maximised over both, divided by n and
    averaged over the classes. Rotating or scaling the features changes nothing. The paper iterates to a fixed
    point. Here the scale of the noise is eliminated in closed form, and the one remaining ratio is searched
    on a grid that is refined, on the singular values alone: this is stable for n < d and for features of low
    rank. Where features fit the indicators exactly with fewer dimensions than images, the evidence has no
    bound, and the score is the one at the end of the grid.

    Args:
        f: Features ``(n, d)``, used as they are, as in the paper.
        y: Labels ``(n,)``, at least two classes.

    Raises:
        ValueError: If the input is degenerate.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import transferability
        >>> y, noise = np.array([0, 1] * 20), np.random.default_rng(0).normal(size=(40, 2))
        >>> good = noise + 4 * y[:, None]
        >>> transferability.logme(good, y) > transferability.logme(noise, y)
        True
    """
    f, y = _check(f, y)
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    keep = s > s[0] * max(f.shape) * np.finfo(float).eps
    u, s2 = u[:, keep], s[keep] ** 2
    s2 = s2 / s2.mean()
    targets = np.eye(y.max() + 1)[y]
    explained = (u.T @ targets) ** 2  # (r, k)
    rest = np.maximum((targets**2).sum(axis=0) - explained.sum(axis=0), 0)
    return float(np.mean([_evidence(e, r, s2, len(y)) for e, r in zip(explained.T, rest, strict=True)]))


def _evidence(explained: np.ndarray, rest: float, s2: np.ndarray, n: int) -> float:
    """The largest log evidence of one indicator, per image, over the ratio of noise to signal."""
    if rest < 1e-12 * explained.sum():
        rest = 0.0

    def at(log_ratios: np.ndarray) -> np.ndarray:
        signal = 1 + s2 / np.exp(log_ratios)[:, None]  # (g, r)
        energy = rest + (explained / signal).sum(axis=1)
        return -0.5 * (np.log(2 * np.pi) + 1 + np.log(energy / n) + np.log(signal).sum(axis=1) / n)

    grid = _LOG_RATIOS
    for _ in range(6):
        values = at(grid)
        best = int(values.argmax())
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 21)
    return float(values.max())


def _class_means(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Replaces each row ``(n, d)`` by the mean of its class."""
    sums = np.zeros((int(y.max()) + 1, rows.shape[1]))
    np.add.at(sums, y, rows)
    return (sums / np.bincount(y)[:, None])[y]


def _check(f: np.ndarray, y: np.ndarray) -> checks.Pair:
    f = checks.floats(f, "The features").astype(np.float64)
    y = _numbered(y, len(f))
    if not (f.max(axis=0) > f.min(axis=0)).any():
        raise ValueError(
            "No feature varies from image to image: the score says nothing. Look at the backbone."
        )
    return f, y


def _numbered(y: np.ndarray, n: int) -> np.ndarray:
    """Labels of classes that all occur, 0..k-1: which numbers the classes have changes no score."""
    y = np.unique(checks.labels(y, n=n), return_inverse=True)[1]
    if y.max() == 0:
        raise ValueError("All labels are equal: with one class there is nothing to transfer to.")
    return y
