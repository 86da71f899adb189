"""Behaviour of tlhelpers.evaluation: values worked out by hand, coverage, errors."""

import numpy as np
import pytest
from scipy import stats

from tlhelpers import evaluation

DRAWS = 2000


def test_accuracy():
    assert evaluation.accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert evaluation.accuracy([1], [1]) == 1.0
    assert isinstance(evaluation.accuracy([1], [0]), float)


@pytest.mark.parametrize(
    ("y", "predicted"), [([], []), ([1, 2], [1]), ([[1, 2]], [[1, 2]]), ([1, 2], [[0.1, 0.9], [0.8, 0.2]])]
)
def test_accuracy_of_what_are_no_labels(y, predicted):
    with pytest.raises(ValueError, match="argmax"):
        evaluation.accuracy(np.array(y), np.array(predicted))


def test_t_interval_by_hand():
    # Mean 2, standard deviation 1, and the table's 4.303 for two degrees of freedom: 2 +- 4.303 / sqrt(3).
    mean, low, high = evaluation.t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)
    # Two values 0 and 2: mean 1, standard error 1, and 6.314 for one degree of freedom at 90 %.
    np.testing.assert_allclose(
        evaluation.t_interval([0, 2], level=0.9), [1, 1 - 6.313752, 1 + 6.313752], atol=1e-6
    )


def test_t_interval_of_equal_values_is_a_point():
    assert evaluation.t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("k", [3, 5])
def test_t_interval_covers_as_often_as_it_says(k):
    """Of 1,000 intervals 95 % hold the true mean; four standard errors of that share are 2.8 points."""
    draws = np.random.default_rng(k).normal(0.8, 0.02, (1000, k))
    held = [low <= 0.8 <= high for _, low, high in map(evaluation.t_interval, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.028)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "n > 0"),
        ([0.5], "two finite"),
        ([0.5, float("nan")], "NaN"),
        ([0.5, float("inf")], "infinity"),
        ([[0.1, 0.2], [0.3, 0.4]], r"must be \(n,\)"),
    ],
)
def test_t_interval_needs_two_finite_values(values, message):
    with pytest.raises(ValueError, match=message):
        evaluation.t_interval(values)


def wilson(hits: int, n: int, z: float) -> tuple[float, float]:
    """The formula of Wilson (1927)."""
    p = hits / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (5, 10), (1600, 2000), (1, 1)])
def test_wilson_interval_by_its_formula(hits, n):
    np.testing.assert_allclose(evaluation.wilson_interval(hits, n), wilson(hits, n, 1.959964), atol=1e-6)
    np.testing.assert_allclose(
        evaluation.wilson_interval(hits, n, 0.99), wilson(hits, n, 2.575829), atol=1e-6
    )


def test_wilson_interval_known_values():
    # 0 of 10: from 0 to z**2 / (n + z**2).
    np.testing.assert_allclose(evaluation.wilson_interval(0, 10), (0, 0.27753), atol=1e-5)
    np.testing.assert_allclose(evaluation.wilson_interval(50, 100), (0.40383, 0.59617), atol=1e-5)


def test_wilson_interval_covers_about_as_often_as_it_says():
    n, p = 200, 0.8
    hits, times = np.unique(np.random.default_rng(0).binomial(n, p, 4000), return_counts=True)
    held = [low <= p <= high for low, high in (evaluation.wilson_interval(int(h), n) for h in hits)]
    assert np.average(held, weights=times) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("hits", "n"), [(-1, 10), (11, 10), (0, 0), (0, -1)])
def test_wilson_interval_of_impossible_counts(hits, n):
    with pytest.raises(ValueError, match=r"hits must|n must"):
        evaluation.wilson_interval(hits, n)


def noise(n: int, d: int, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that say nothing about the labels."""
    return np.random.default_rng(seed).normal(size=(n, d)), np.arange(n) % k


def test_cross_validation_tests_each_image_once_with_other_images():
    f, y = noise(60, 5, 3)
    f = f + 4 * np.eye(3, 5)[y]
    found = evaluation.cross_validate(f, y, folds=5, strengths=(0.1, 1.0))
    assert found.proba.shape == (60, 3)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1)
    assert found.accuracy.shape == found.best_inner.shape == (5,)
    assert set(found.chosen) <= {0.1, 1.0}
    assert found.accuracy.mean() == pytest.approx(evaluation.accuracy(y, found.predicted))  # equal folds
    assert found.accuracy.mean() > 0.9


def test_no_image_is_predicted_by_a_model_that_saw_its_label():
    """Labels that are unique to an image cannot be learned: one-hot features of noise stay at chance."""
    _, y = noise(40, 1)
    found = evaluation.cross_validate(np.eye(40), np.random.default_rng(0).permutation(y), strengths=(1e3,))
    assert found.accuracy.mean() < 0.8
    assert np.isnan(found.best_inner).all()
    assert found.chosen == (1e3,) * 5


@pytest.mark.slow
def test_the_best_of_several_is_optimistic_and_the_nested_estimate_is_not():
    strengths = (1e-4, 1e-2, 1.0, 1e2)
    inner, outer = [], []
    for seed in range(25):
        f, y = noise(40, 20, seed=seed)
        found = evaluation.cross_validate(f, y, folds=4, strengths=strengths, seed=seed)
        inner.append(found.best_inner.mean())
        outer.append(found.accuracy.mean())
    assert np.mean(inner) > 0.53
    assert abs(np.mean(outer) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("f", "y", "message"),
    [
        (np.zeros(4), [0, 1, 0, 1], "features must be \\(n, d\\)"),
        (np.zeros((4, 2)), [0, 1], r"of 4 images; .*\(2,\)"),
        (np.full((10, 2), np.nan), [0, 1] * 5, "NaN"),
        (np.zeros((10, 2)), [1] * 10, "at least two"),
        (np.zeros((10, 2)), [0, 2] * 5, "each present"),
        (np.zeros((10, 2)), [0] * 8 + [1] * 2, "2 images, .* 5 folds"),
    ],
)
def test_what_cannot_be_cross_validated(f, y, message):
    with pytest.raises(ValueError, match=message):
        evaluation.cross_validate(np.asarray(f), np.array(y))


def test_bootstrap_by_hand():
    # All rows equal: nothing varies. Rows 0 and 1: the mean of two draws is 0, 0.5 or 1.
    assert evaluation.bootstrap_interval(np.mean, np.full(10, 3.0)) == (3, 3)
    assert evaluation.bootstrap_interval(np.mean, np.array([0.0, 1.0])) == (0, 1)


def test_bootstrap_keeps_rows_together():
    y = np.arange(100)
    low, high = evaluation.bootstrap_interval(lambda a, b: float(np.mean(a == b)), y, y.copy())
    assert (low, high) == (1, 1)


@pytest.mark.slow
def test_bootstrap_covers_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for draw in range(800):
        values = rng.normal(3, 2, 100)
        low, high = evaluation.bootstrap_interval(np.mean, values, draws=300, seed=draw)
        inside += low <= 3 <= high
    assert 0.93 <= inside / 800 <= 0.97


def test_wilson_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = rng.binomial(500, 0.9, DRAWS)
    ends = np.array([evaluation.wilson_interval(int(h), 500) for h in hits])
    assert 0.93 <= np.mean((ends[:, 0] <= 0.9) & (ends[:, 1] >= 0.9)) <= 0.97


@pytest.mark.slow
def test_paired_interval_covers_as_often_as_it_says_and_is_narrower_than_an_unpaired_one():
    rng, inside, widths = np.random.default_rng(3), 0, []
    y, truth = np.zeros(400, int), _difference()
    for draw in range(DRAWS):
        hard = rng.random(400)  # images that both find hard
        first, second = ((hard + 0.1 * rng.normal(size=400) > share).astype(int) for share in (0.85, 0.80))
        found = evaluation.compare(y, first, second, draws=1000, seed=draw)
        inside += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 0.93 <= inside / DRAWS <= 0.97
    unpaired = 2 * 1.96 * np.sqrt((0.85 * 0.15 + 0.8 * 0.2) / 400)
    assert np.mean(widths) < 0.75 * unpaired


def _difference() -> float:
    """The true difference of the accuracies above: u + 0.1 z <= s, for u uniform on 0..1 and z normal."""
    u = (np.arange(100_000) + 0.5) / 100_000
    shares = [stats.norm.cdf((s - u) / 0.1).mean() for s in (0.85, 0.80)]
    return shares[0] - shares[1]


def test_comparison_by_hand():
    y = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    second[:6] = 1  # six that only the first has right
    first[6:7] = 1  # one that only the second has right
    found = evaluation.compare(y, first, second)
    assert (found.only_first, found.only_second) == (6, 1)
    assert found.difference == pytest.approx(0.25)
    # Seven fair coins at least as uneven as 6 to 1: 2 (7 + 1) / 2^7.
    assert found.p_value == pytest.approx(16 / 128)
    swapped = evaluation.compare(y, second, first)
    assert swapped.difference == -found.difference
    assert swapped.p_value == found.p_value


def test_equal_models():
    found = evaluation.compare(np.zeros(5, int), np.ones(5, int), np.ones(5, int))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_clear_errors():
    with pytest.raises(ValueError, match="one length"):
        evaluation.bootstrap_interval(np.mean, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="n > 1"):
        evaluation.bootstrap_interval(np.mean, np.zeros(1))
    with pytest.raises(ValueError, match="one length"):
        evaluation.bootstrap_interval(np.mean)
    with pytest.raises(ValueError, match="no number"):
        evaluation.bootstrap_interval(lambda a: float("nan"), np.zeros(5), draws=10)
    with pytest.raises(ValueError, match=r"argmax\(axis=1\)"):
        evaluation.compare(np.zeros(3, int), np.zeros((3, 2)), np.zeros(3, int))


def test_pareto_front():
    #             a   b    c    d (as good as b, dearer)   e (as cheap as a, worse)
    cost, value = [1, 2.0, 3.0, 4.0, 1], [0.5, 0.8, 0.7, 0.8, 0.4]
    assert evaluation.pareto_front(cost, value).tolist() == [0, 1]
    assert evaluation.pareto_front([1, 1], [2, 2]).tolist() == [0]
    for bad in (([], []), ([1], [1, 2]), ([np.nan], [1])):
        with pytest.raises(ValueError, match=r"The costs|finite costs"):
            evaluation.pareto_front(*bad)
