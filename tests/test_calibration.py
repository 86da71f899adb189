"""Behaviour of tlhelpers.evaluation.calibration: values by hand, bias by simulation, errors."""

import numpy as np
import pytest
from scipy import special

from tlhelpers.evaluation import calibration


def sample(n: int, k: int = 4, seed: int = 0, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from known probabilities, and logits that are off by a temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    shares = special.softmax(logits, axis=1)
    y = (rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return y, logits * temperature


def test_reliability_by_hand():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.3, 0.7]])
    r = calibration.reliability(np.array([0, 1, 1, 1]), proba, n_bins=2)
    assert r.count.tolist() == [4]
    assert r.edges.tolist() == [[0.5, 1.0]]
    assert r.accuracy[0] == 0.75
    assert r.confidence[0] == pytest.approx((0.9 + 0.8 + 0.55 + 0.7) / 4)
    assert r.low[0] < 0.75 < r.high[0]
    r = calibration.reliability(np.array([0, 1, 1, 1]), proba, n_bins=5)
    # [0.4, 0.6) holds 0.55, [0.6, 0.8) holds 0.7, [0.8, 1] holds 0.9 and 0.8.
    assert r.count.tolist() == [1, 1, 2]
    assert r.accuracy.tolist() == [1, 1, 0.5]


def test_calibration_error_by_hand():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.3, 0.7]])
    found = calibration.calibration_error(np.array([0, 1, 1, 1]), proba, n_bins=5)
    # |1 - 0.55|, |1 - 0.7| and 2 |0.5 - 0.85|, a fourth of each.
    assert found.value == pytest.approx((0.45 + 0.3 + 0.7) / 4)
    certain = np.array([[1.0, 0.0]] * 4)
    assert calibration.calibration_error(np.zeros(4, int), certain).value == 0


@pytest.mark.slow
def test_ece_of_true_probabilities_is_what_chance_makes():
    """Over 2,000 samples the simulated bias is the mean ECE, and the ceiling is passed once in forty."""
    values, above, chance = [], [], []
    for seed in range(2000):
        y, logits = sample(200, seed=seed)
        found = calibration.calibration_error(y, special.softmax(logits, axis=1), draws=100, seed=seed)
        values.append(found.value)
        chance.append(found.chance)
        above.append(found.value > found.ceiling)
    assert np.mean(chance) > 0.03  # far from 0, though each probability is true
    assert np.mean(values) == pytest.approx(np.mean(chance), abs=0.001)
    assert 0.015 < np.mean(above) < 0.045


def test_bias_falls_with_the_number_of_images():
    few, many = (
        calibration.calibration_error(y, special.softmax(logits, axis=1), draws=200).chance
        for y, logits in (sample(100), sample(10_000))
    )
    assert few > 5 * many


def test_ece_finds_a_known_fault():
    """A network that says 90 % and is right in 70 % of a large sample has an ECE of 20 points."""
    y = (np.random.default_rng(0).random(100_000) < 0.3).astype(int)
    proba = np.tile([0.9, 0.1], (len(y), 1))
    found = calibration.calibration_error(y, proba, draws=50)
    assert found.value == pytest.approx(0.2, abs=0.005)
    assert found.value > found.ceiling


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_temperature_finds_the_one_that_was_planted(temperature):
    y, logits = sample(20_000, temperature=temperature)
    assert calibration.fit_temperature(y, logits) == pytest.approx(temperature, rel=0.03)


def test_temperature_leaves_the_classes_and_mends_the_ece():
    y, logits = sample(5000, temperature=3.0)
    before, after = special.softmax(logits, axis=1), calibration.with_temperature(logits, 3.0)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    worse, better = (calibration.calibration_error(y, p, draws=20).value for p in (before, after))
    assert worse > 0.1
    assert better < 0.03
    np.testing.assert_allclose(calibration.with_temperature(logits, 1.0), before)


def test_probabilities_serve_as_logits():
    y, logits = sample(500, temperature=2.0)
    from_proba = calibration.log_probabilities(special.softmax(logits, axis=1))
    assert calibration.fit_temperature(y, from_proba) == pytest.approx(
        calibration.fit_temperature(y, logits), rel=1e-3
    )
    assert np.isfinite(calibration.log_probabilities(np.array([[1.0, 0.0]]))).all()


@pytest.mark.parametrize(
    ("y", "proba", "message"),
    [
        ([0], [0.5, 0.5], r"must be \(n, k\)"),
        ([], np.zeros((0, 2)), "n > 0"),
        ([0, 1], [[0.5, 0.5]], r"of 1 images; .*\(2,\)"),
        ([0], [[1.0]], "k > 1"),
        ([2], [[0.5, 0.5]], "whole numbers from 0 to 1"),
        ([0.0], [[0.5, 0.5]], "whole numbers"),
        ([0], [[np.nan, 0.5]], "NaN"),
        ([0], [[3.0, -2.0]], "Apply softmax"),
        ([0], [[0.5, 0.2]], "Apply softmax"),
    ],
)
def test_what_are_no_probabilities(y, proba, message):
    for function in (calibration.reliability, calibration.calibration_error):
        with pytest.raises(ValueError, match=message):
            function(np.array(y), np.array(proba))


def test_clear_errors():
    y, logits = sample(20)
    with pytest.raises(ValueError, match="every one is a hit"):
        calibration.fit_temperature(logits.argmax(axis=1), logits)
    with pytest.raises(ValueError, match="no one is a hit"):
        calibration.fit_temperature(logits.argmin(axis=1), logits)
    with pytest.raises(ValueError, match="above 0"):
        calibration.with_temperature(logits, 0)
    with pytest.raises(ValueError, match="n_bins"):
        calibration.calibration_error(y, special.softmax(logits, axis=1), n_bins=0)
