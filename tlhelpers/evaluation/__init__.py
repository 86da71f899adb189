"""How good, and how sure: accuracy, intervals, cross-validation, and two models on the same images."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tlhelpers import checks

PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the penalty, as `tlhelpers.heads` tries them


@dataclass(frozen=True)
class CrossValidation:
    """Accuracy of a linear probe by cross-validation. Returned by `cross_validate`.

    Attributes:
        accuracy: One a fold, ``(folds,)``, on images that neither trained nor chose.
        chosen: The penalty that each fold's own, inner cross-validation chose.
        best_inner: The accuracy of the chosen penalty in that inner cross-validation, ``(folds,)``: the
            largest of several, and therefore optimistic.
        proba: Probabilities ``(n, k)`` of each image from the fold that did not train on it.
    """

    accuracy: np.ndarray
    chosen: tuple[float, ...]
    best_inner: np.ndarray
    proba: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Labels int64 ``(n,)``, each from the fold that did not train on the image."""
        return self.proba.argmax(axis=1).astype(np.int64)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images. Returned by `compare`.

    Attributes:
        difference: Accuracy of the first minus that of the second.
        low: Lower end of the interval of the difference.
        high: Upper end.
        only_first: Images that only the first model has right.
        only_second: Images that only the second model has right.
        p_value: Of McNemar's exact test: how often fair coins would split these images at least as unevenly.
    """

    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the share of labels ``(n,)`` that the predicted labels ``(n,)`` hit, 0..1.

    Raises:
        ValueError: If the shapes differ or there is nothing to count.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import evaluation
        >>> evaluation.accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
        0.75
    """
    y, predicted = checks.pair(y, predicted)
    return float(np.mean(y == predicted))


def t_interval(values: list[float] | np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Returns mean and Student t interval of independent measurements.

    Args:
        values: One number a seed, ``(k,)`` with k >= 2.
        level: Confidence level, 0..1.

    Returns:
        Mean, lower end and upper end, in the unit of the values.

    Raises:
        ValueError: If there are fewer than two values or one is not finite.

    Example:
        >>> from tlhelpers import evaluation
        >>> [round(float(v), 3) for v in evaluation.t_interval([0.80, 0.82, 0.84])]
        [0.82, 0.77, 0.87]
    """
    v = checks.floats(values, "The values", "(n,)").astype(float)
    if len(v) < 2:
        raise ValueError(f"An interval needs at least two finite numbers, one a seed; these are {values!r}.")
    level = _level(level)
    half = stats.t.ppf(0.5 + level / 2, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))
    return float(v.mean()), float(v.mean() - half), float(v.mean() + half)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Returns an interval for a share of hits, such as the accuracy on one test set (Wilson, 1927).

    Args:
        hits: Number of hits, 0..n.
        n: Number of trials, at least 1.
        level: Confidence level, 0..1.

    Returns:
        Lower and upper end, 0..1.

    Raises:
        ValueError: If the counts are impossible.

    Example:
        >>> from tlhelpers import evaluation
        >>> [round(float(v), 3) for v in evaluation.wilson_interval(90, 100)]
        [0.826, 0.945]
    """
    hits, n = checks.whole(hits, "hits", 0), checks.whole(n, "n")
    if hits > n:
        raise ValueError(f"hits must lie between 0 and n; these are {hits} and {n}.")
    interval = stats.binomtest(hits, n).proportion_ci(_level(level), method="wilson")
    return float(interval.low), float(interval.high)


def cross_validate(
    f: np.ndarray,
    y: np.ndarray,
    *,
    folds: int = 5,
    strengths: Sequence[float] = PROBE_STRENGTHS,
    inner_folds: int = 3,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> CrossValidation:
    """Estimates a linear probe's accuracy by stratified cross-validation, nested where the penalty is chosen.

    In each fold, mean and spread of the features, the penalty and the weights come from the other folds. With
    one strength nothing is chosen, and there is no inner cross-validation.

    Args:
        f: Features ``(n, d)``.
        y: Labels 0..k-1, ``(n,)``; each class has at least ``folds`` images.
        folds: Parts; each is tested once.
        strengths: Values of C to choose from, inverse to the L2 penalty.
        inner_folds: Parts of the training images of a fold, for the choice.
        seed: Draws the parts.
        groups: Numbers ``(n,)``, equal for images that belong together: those are never in two parts.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, or a class has too few images.

    Example:
        >>> from tlhelpers import data, evaluation
        >>> ds = data.load("digits", n_train=100, n_val=10, n_test=10)
        >>> f = ds.x_train.reshape(100, -1) / 255
        >>> evaluation.cross_validate(f, ds.y_train, folds=3, strengths=[1.0]).accuracy.shape
        (3,)
    """
    f, y = checks.features(f, y, "cross-validated")
    n_classes = checks.classes(y)
    strengths = checks.numbers(strengths, "strengths", above=True)
    folds, inner_folds = checks.whole(folds, "folds", 2), checks.whole(inner_folds, "inner_folds", 2)
    seed, fewest = checks.whole(seed, "seed", 0), np.bincount(y).min()
    if fewest < folds:
        raise ValueError(
            f"Class {np.bincount(y).argmin()} has {fewest} images, too few for {folds} folds: each class "
            "needs an image in each fold."
        )
    if groups is not None and len(groups) != len(y):
        raise ValueError(f"groups has a number for each image; these are {len(groups)} for {len(y)} images.")
    scores, chosen, inner = [], [], []
    proba = np.zeros((len(y), n_classes))
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    for train, test in splitter(folds, shuffle=True, random_state=seed).split(f, y, groups):
        model, strength, best = _fit(f[train], y[train], strengths, inner_folds, seed)
        proba[test] = model.predict_proba(f[test])
        scores.append(float(np.mean(proba[test].argmax(axis=1) == y[test])))
        chosen.append(strength)
        inner.append(best)
    return CrossValidation(np.array(scores), tuple(chosen), np.array(inner), proba)


def _fit(
    f: np.ndarray, y: np.ndarray, strengths: Sequence[float], folds: int, seed: int
) -> tuple[Pipeline, float, float]:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    name = "logisticregression__C"
    with threadpool_limits(1):  # as in `heads.linear_probe`
        if len(strengths) == 1:
            return probe.set_params(**{name: strengths[0]}).fit(f, y), strengths[0], float("nan")
        search = GridSearchCV(probe, {name: sorted(strengths)}, cv=parts).fit(f, y)
    return search.best_estimator_, float(search.best_params_[name]), float(search.best_score_)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: np.ndarray,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of any number computed from rows (Efron, 1979).

    Rows are drawn with replacement, the same ones from each array, so that an image keeps its label and its
    predictions. What the training of a model contributes to the spread is not in it.

    Args:
        metric: Takes arrays like these, returns a number. Draws for which it returns NaN do not count.
        arrays: ``(n, ...)`` each, such as labels and predicted labels.
        level: Confidence level, 0..1.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        Lower and upper end, in the unit of the metric.

    Raises:
        ValueError: If the arrays differ in length, have fewer than two rows, or most draws give no number.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import evaluation
        >>> y, predicted = np.array([0, 1] * 20), np.array([0, 1, 1, 1] * 10)
        >>> low, high = evaluation.bootstrap_interval(evaluation.accuracy, y, predicted)
        >>> low < 0.75 < high
        True
    """
    held = [np.atleast_1d(array) for array in arrays]
    level, draws, seed = _level(level), checks.whole(draws, "draws"), checks.whole(seed, "seed", 0)
    lengths = {len(array) for array in held}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            f"bootstrap_interval takes arrays of one length n > 1; these have {lengths or 'none'}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", stats.DegenerateDataWarning
        )  # such as all alike: the interval is a point
        found = stats.bootstrap(
            (np.arange(lengths.pop()),),
            lambda rows: metric(*(array[rows] for array in held)),
            n_resamples=draws,
            vectorized=False,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
    values = found.bootstrap_distribution
    values = values[np.isfinite(values)]
    if len(values) < draws / 2:
        raise ValueError("In most bootstrap samples the metric is no number: there are too few rows for it.")
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def compare(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two models on the same images: paired bootstrap interval and McNemar's exact test (1947).

    Both models find the same images hard, so that their accuracies rise and fall together from sample to
    sample. The difference is much surer than two separate intervals suggest. Only images that one model has
    right and the other wrong count.

    Args:
        y: Labels ``(n,)``.
        first: Labels that the first model predicts, ``(n,)``.
        second: Labels that the second model predicts, ``(n,)``.
        level: Confidence level of the interval, 0..1.
        draws: Bootstrap samples.
        seed: Of the draws.

    Raises:
        ValueError: If the shapes differ or there is nothing to compare.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import evaluation
        >>> first, second = np.array([0] * 9 + [1]), np.array([0] * 6 + [1] * 4)
        >>> found = evaluation.compare(np.zeros(10, int), first, second)
        >>> found.only_first, found.only_second, round(found.p_value, 3)
        (3, 0, 0.25)
    """
    (y, first), (_, second) = checks.pair(y, first), checks.pair(y, second)
    level, draws, seed = _level(level), checks.whole(draws, "draws"), checks.whole(seed, "seed", 0)
    a = int(np.sum((first == y) & (second != y)))
    b = int(np.sum((first != y) & (second == y)))
    # To draw n images with replacement is to draw how many of them are of each of the three kinds.
    n = len(y)
    drawn = np.random.default_rng(seed).multinomial(n, [a / n, b / n, (n - a - b) / n], draws)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.5 - level / 2, 0.5 + level / 2])
    p_value = float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0
    return Comparison((a - b) / n, float(low), float(high), a, b, p_value)


def pareto_front(cost: Sequence[float], value: Sequence[float]) -> np.ndarray:
    """Returns the positions that nothing beats, cheap first: no other costs less and is worth as much.

    Args:
        cost: The less the better, ``(n,)``.
        value: The more the better, ``(n,)``.

    Raises:
        ValueError: If the lengths differ, or a number is not finite.

    Example:
        >>> from tlhelpers import evaluation
        >>> evaluation.pareto_front(cost=[1, 2, 3], value=[0.7, 0.6, 0.9]).tolist()
        [0, 2]
    """
    c, v = checks.floats(cost, "The costs", "(n,)"), checks.floats(value, "The values", "(n,)")
    if c.shape != v.shape:
        raise ValueError(f"Expected as many finite costs as values; these are {c.shape} and {v.shape}.")
    front: list[int] = []
    for i in np.lexsort((-v, c)):
        if not front or v[i] > v[front[-1]]:
            front.append(int(i))
    return np.array(front)


def _level(level: float) -> float:
    return checks.number(level, "level", 0, 1, above=True, below=True)
