"""Behaviour of tlhelpers.evaluation.resampling: by hand, coverage over 2,000 draws, no leak, errors."""

import numpy as np
import pytest
from scipy import stats

from tlhelpers import evaluation
from tlhelpers.evaluation import resampling

DRAWS = 2000


def noise(n: int, d: int, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that say nothing about the labels."""
    return np.random.default_rng(seed).normal(size=(n, d)), np.arange(n) % k


def test_cross_validation_tests_each_image_once_with_other_images():
    f, y = noise(60, 5, 3)
    f = f + 4 * np.eye(3, 5)[y]
    found = resampling.cross_validate(f, y, folds=5, strengths=(0.1, 1.0))
    assert found.proba.shape == (60, 3)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1)
    assert found.accuracy.shape == found.best_inner.shape == (5,)
    assert set(found.chosen) <= {0.1, 1.0}
    assert found.accuracy.mean() == pytest.approx(evaluation.accuracy(y, found.predicted))  # equal folds
    assert found.accuracy.mean() > 0.9


def test_no_image_is_predicted_by_a_model_that_saw_its_label():
    """Labels that are unique to an image cannot be learned: one-hot features of noise stay at chance."""
    _, y = noise(40, 1)
    found = resampling.cross_validate(np.eye(40), np.random.default_rng(0).permutation(y), strengths=(1e3,))
    assert found.accuracy.mean() < 0.8
    assert np.isnan(found.best_inner).all()
    assert found.chosen == (1e3,) * 5


@pytest.mark.slow
def test_the_best_of_several_is_optimistic_and_the_nested_estimate_is_not():
    strengths = tuple(np.geomspace(1e-4, 1e2, 7))
    inner, outer = [], []
    for seed in range(40):
        f, y = noise(40, 20, seed=seed)
        found = resampling.cross_validate(f, y, folds=4, strengths=strengths, seed=seed)
        inner.append(found.best_inner.mean())
        outer.append(found.accuracy.mean())
    assert np.mean(inner) > 0.53
    assert abs(np.mean(outer) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("f", "y", "message"),
    [
        (np.zeros(4), [0, 1, 0, 1], "features \\(n, d\\)"),
        (np.zeros((4, 2)), [0, 1], "these are \\(4, 2\\) and \\(2,\\)"),
        (np.full((10, 2), np.nan), [0, 1] * 5, "NaN"),
        (np.zeros((10, 2)), [1] * 10, "at least two"),
        (np.zeros((10, 2)), [0, 2] * 5, "each present"),
        (np.zeros((10, 2)), [0] * 8 + [1] * 2, "Class 1 has 2 images, too few for 5 folds"),
    ],
)
def test_what_cannot_be_cross_validated(f, y, message):
    with pytest.raises(ValueError, match=message):
        resampling.cross_validate(np.asarray(f), np.array(y))


def test_bootstrap_by_hand():
    # All rows equal: nothing varies. Rows 0 and 1: the mean of two draws is 0, 0.5 or 1.
    assert resampling.bootstrap_interval(np.mean, np.full(10, 3.0)) == (3, 3)
    assert resampling.bootstrap_interval(np.mean, np.array([0.0, 1.0])) == (0, 1)


def test_bootstrap_keeps_rows_together():
    y = np.arange(100)
    low, high = resampling.bootstrap_interval(lambda a, b: float(np.mean(a == b)), y, y.copy())
    assert (low, high) == (1, 1)


@pytest.mark.slow
def test_bootstrap_covers_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for draw in range(DRAWS):
        values = rng.normal(3, 2, 100)
        low, high = resampling.bootstrap_interval(np.mean, values, draws=400, seed=draw)
        inside += low <= 3 <= high
    assert 0.93 <= inside / DRAWS <= 0.97


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
        found = resampling.compare(y, first, second, draws=1000, seed=draw)
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
    found = resampling.compare(y, first, second)
    assert (found.only_first, found.only_second) == (6, 1)
    assert found.difference == pytest.approx(0.25)
    # Seven fair coins at least as uneven as 6 to 1: 2 (7 + 1) / 2^7.
    assert found.p_value == pytest.approx(16 / 128)
    swapped = resampling.compare(y, second, first)
    assert swapped.difference == -found.difference
    assert swapped.p_value == found.p_value


def test_equal_models():
    found = resampling.compare(np.zeros(5, int), np.ones(5, int), np.ones(5, int))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_clear_errors():
    with pytest.raises(ValueError, match="one length"):
        resampling.bootstrap_interval(np.mean, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="n > 1"):
        resampling.bootstrap_interval(np.mean, np.zeros(1))
    with pytest.raises(ValueError, match="one length"):
        resampling.bootstrap_interval(np.mean)
    with pytest.raises(ValueError, match="no number"):
        resampling.bootstrap_interval(lambda a: float("nan"), np.zeros(5), draws=10)
    with pytest.raises(ValueError, match=r"argmax\(axis=1\)"):
        resampling.compare(np.zeros(3), np.zeros((3, 2)), np.zeros(3))
