"""Behaviour of tlhelpers.evaluation.transferability: by hand, the papers' invariances, stability, errors."""

import numpy as np
import pytest
from scipy import optimize, stats

from tlhelpers.evaluation import transferability


def task(n: int, d: int, k: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(n) % k
    f = np.random.default_rng(seed).normal(size=(n, d))
    f[:, :k] += signal * np.eye(k)[y] if d >= k else 0
    return f, y


def test_h_score_by_hand():
    # One feature: values -1, 1 in one class and 3, 5 in the other. Means 0 and 4, between them variance 4,
    # in all 5: 4 / 5.
    f = np.array([[-1.0], [1.0], [3.0], [5.0]])
    assert transferability.h_score(f, np.array([0, 0, 1, 1])) == pytest.approx(0.8)


def test_h_score_is_the_trace_of_its_definition():
    f, y = task(300, 6)
    means = np.stack([f[y == c].mean(axis=0) for c in range(3)])[y]
    definition = np.trace(np.linalg.inv(np.cov(f.T, bias=True)) @ np.cov(means.T, bias=True))
    assert transferability.h_score(f, y) == pytest.approx(definition)


def test_h_score_is_invariant_and_bounded():
    f, y = task(300, 6)
    score = transferability.h_score(f, y)
    a = np.random.default_rng(1).normal(size=(6, 6))
    assert transferability.h_score(f @ a + 5, y) == pytest.approx(score)
    assert transferability.h_score(f, (y + 1) % 3) == pytest.approx(score)
    assert 0 < score < 2
    assert transferability.h_score(task(300, 6, signal=50)[0], y) == pytest.approx(2, abs=0.01)
    doubled = np.hstack([f, f, np.zeros((300, 2))])  # a covariance without an inverse
    assert transferability.h_score(doubled, y) == pytest.approx(score)


def test_h_score_of_few_images_says_nothing_unless_it_is_shrunken():
    few, y = task(30, 100, signal=0)
    good = task(30, 100, signal=5)[0]
    assert transferability.h_score(few, y) == pytest.approx(2)  # its largest value, for pure noise
    assert transferability.h_score(good, y) == pytest.approx(2)
    noise, signal = (transferability.h_score(f, y, shrinkage=True) for f in (few, good))
    assert 0 <= 4 * noise < signal <= 2
    many, y = task(20_000, 6)
    plain = transferability.h_score(many, y)
    assert transferability.h_score(many, y, shrinkage=True) == pytest.approx(plain, rel=0.02)


def test_nce_by_hand():
    # Two source labels. Under the first, targets 0 and 1 are equally frequent; the second gives 1 always.
    z, y = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert transferability.nce(z, y) == pytest.approx(-0.5 * np.log(2))
    assert transferability.nce(y, y) == 0
    assert transferability.nce(np.zeros(4, int), np.array([0, 0, 1, 1])) == pytest.approx(-np.log(2))
    assert transferability.nce(7 - z, y) == pytest.approx(-0.5 * np.log(2))  # other names


def test_leep_by_hand():
    # P(y, s): y=0 with (0.8, 0.2), y=1 with (0.4, 0.6), halved. P(y | s): (2/3, 1/4) and (1/3, 3/4).
    source = np.array([[0.8, 0.2], [0.4, 0.6]])
    expected = [0.8 * 2 / 3 + 0.2 / 4, 0.4 / 3 + 0.6 * 3 / 4]
    assert transferability.leep(source, np.array([0, 1])) == pytest.approx(np.mean(np.log(expected)))


def test_leep_and_nce_are_related_as_their_papers_say():
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    assert transferability.leep(np.eye(5)[z], y) == pytest.approx(transferability.nce(z, y))
    source = rng.dirichlet(np.ones(5), 200)
    guess = source.argmax(axis=1)
    bound = transferability.nce(guess, y) + np.mean(np.log(source.max(axis=1)))
    assert transferability.leep(source, y) >= bound  # property 2 of Nguyen et al.
    order = rng.permutation(5)
    assert transferability.leep(source[:, order], y) == pytest.approx(transferability.leep(source, y))
    unused = np.hstack([source, np.zeros((200, 2))])
    assert transferability.leep(unused, y) == pytest.approx(transferability.leep(source, y))


def brute_force(f: np.ndarray, y: np.ndarray) -> float:
    """LogME from its definition: the density of the indicators, maximised over both variances."""
    total = []
    for c in np.unique(y):
        target = (y == c).astype(float)

        def loss(logs: np.ndarray, target: np.ndarray = target) -> float:
            cov = np.exp(logs[0]) * f @ f.T + np.exp(logs[1]) * np.eye(len(f))
            return -stats.multivariate_normal.logpdf(target, cov=cov, allow_singular=True)

        starts = [(a, b) for a in (-6, -2, 2) for b in (-4, -1)]
        best = min(optimize.minimize(loss, s, method="Nelder-Mead").fun for s in starts)
        total.append(-best / len(f))
    return float(np.mean(total))


@pytest.mark.parametrize(("n", "d", "signal"), [(40, 4, 2.0), (40, 4, 0.0), (15, 30, 1.0)])
def test_logme_is_the_evidence_of_its_definition(n, d, signal):
    f, y = task(n, d, signal=signal)
    assert transferability.logme(f, y) == pytest.approx(brute_force(f, y), abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 200)])
def test_logme_is_invariant_under_rotation_and_scale(n, d):
    f, y = task(n, d)
    score = transferability.logme(f, y)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    assert transferability.logme(f @ rotation, y) == pytest.approx(score, abs=1e-8)
    for scale in (1e-6, 1e6):
        assert transferability.logme(scale * f, y) == pytest.approx(score, abs=1e-8)
    assert transferability.logme(f, (y + 1) % 3) == pytest.approx(score, abs=1e-8)
    assert transferability.logme(np.hstack([f, np.zeros((n, 5))]), y) == pytest.approx(score, abs=1e-8)


def test_logme_orders_by_signal_and_is_stable_for_few_images():
    for n, d in ((300, 10), (30, 500), (10, 1280)):
        scores = [transferability.logme(*task(n, d, signal=s)) for s in (0.0, 3.0, 20.0)]
        assert np.isfinite(scores).all()
        assert scores == sorted(scores)
    assert np.isfinite(transferability.logme(np.eye(3)[np.arange(9) % 3], np.arange(9) % 3))  # an exact fit


def test_scores_take_half_precision():
    f, y = task(50, 4)
    narrow = f.astype(np.float16)
    assert transferability.logme(narrow, y) == pytest.approx(transferability.logme(f, y), abs=1e-2)
    assert transferability.h_score(narrow, y) == pytest.approx(transferability.h_score(f, y), abs=1e-2)


@pytest.mark.parametrize(
    ("f", "y", "message"),
    [
        (np.zeros((4, 2)), [0, 0, 1, 1], "No feature varies"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], "NaN"),
        (np.ones((4, 2)), [1, 1, 1, 1], "with one class"),
        (np.ones(4), [0, 0, 1, 1], r"must be \(n, d\)"),
        (np.ones((4, 0)), [0, 0, 1, 1], r"must be \(n, d\)"),
        (np.zeros((0, 2)), [], "n > 0"),
        (np.ones((4, 2)), [0, 1], "one for each of 4 images"),
        (np.ones((2, 2)), [0.0, 1.0], "whole numbers"),
        (np.ones((2, 2)), [-1, 1], "whole numbers"),
    ],
)
def test_degenerate_features(f, y, message):
    for score in (transferability.h_score, transferability.logme, transferability.by_chance):
        with pytest.raises(ValueError, match=message):
            score(f, np.array(y))


def test_by_chance_tells_labels_of_other_images():
    """Right labels are never fitted by chance, not even where they hardly show; permuted ones often."""
    right, permuted = [], []
    for seed in range(20):
        f, y = task(100, 20, signal=1.0, seed=seed)
        right.append(transferability.by_chance(f, y))
        permuted.append(transferability.by_chance(f, np.random.default_rng(seed).permutation(y)))
    assert max(right) < 0.05
    assert np.median(permuted) > 0.2
    f, y = task(100, 20, signal=1.0)
    assert transferability.by_chance(f * 7 + 3, y) == transferability.by_chance(f, y)


def test_degenerate_source_outputs():
    y = np.array([0, 1])
    with pytest.raises(ValueError, match="sums to 1"):
        transferability.leep(np.array([[1.0, 1.0], [0.0, 1.0]]), y)
    with pytest.raises(ValueError, match="NaN"):
        transferability.leep(np.array([[np.nan, 1.0], [0.0, 1.0]]), y)
    with pytest.raises(ValueError, match="one class"):
        transferability.leep(np.full((2, 2), 0.5), np.array([1, 1]))
    with pytest.raises(ValueError, match="one class"):
        transferability.nce(y, np.array([0, 0]))
    with pytest.raises(ValueError, match="whole numbers from 0"):
        transferability.nce(np.array([0.5, 1.0]), y)
