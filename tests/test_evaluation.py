"""Behaviour of tlhelpers.evaluation: values worked out by hand, coverage, errors."""

import numpy as np
import pytest

from tlhelpers import evaluation


def test_accuracy():
    assert evaluation.accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert evaluation.accuracy([1], [1]) == 1.0
    assert isinstance(evaluation.accuracy([1], [0]), float)


@pytest.mark.parametrize(
    ("y", "predicted"), [([], []), ([1, 2], [1]), ([[1, 2]], [[1, 2]]), ([1, 2], [[0.1, 0.9], [0.8, 0.2]])]
)
def test_accuracy_of_what_are_no_labels(y, predicted):
    with pytest.raises(ValueError, match=r"labels of one shape .* argmax\(axis=1\) first"):
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
    "values", [[], [0.5], [0.5, float("nan")], [0.5, float("inf")], [[0.1, 0.2], [0.3, 0.4]]]
)
def test_t_interval_needs_two_finite_values(values):
    with pytest.raises(ValueError, match="at least two finite numbers, one a seed"):
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
    with pytest.raises(ValueError, match="hits must lie between 0 and n"):
        evaluation.wilson_interval(hits, n)
