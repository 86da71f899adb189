"""Whether a classifier's probabilities mean what they say: reliability, ECE with its bias, temperature."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from tlhelpers import checks
from tlhelpers.evaluation import wilson_interval


@dataclass(frozen=True)
class Reliability:
    """What was said and what came true, bin by bin; bins without an image are left out.

    Returned by `reliability`.

    Attributes:
        edges: Lower and upper end of each bin, ``(b, 2)``, 0..1.
        count: Images in each bin, int64 ``(b,)``.
        confidence: Mean confidence in each bin, ``(b,)``.
        accuracy: Share of hits in each bin, ``(b,)``.
        low: Lower end of the 95 % Wilson interval of the accuracy, ``(b,)``.
        high: Upper end, ``(b,)``.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error, and what of it chance alone makes. Returned by `calibration_error`.

    Attributes:
        value: The ECE, 0..1.
        chance: Mean ECE of a classifier with the same confidences whose every confidence is true.
        ceiling: The ECE that such a classifier exceeds in one sample of forty (its 97.5 % quantile).
    """

    value: float
    chance: float
    ceiling: float


def reliability(y: np.ndarray, proba: np.ndarray, *, n_bins: int = 15) -> Reliability:
    """Sorts images by the confidence of their prediction, the largest probability, into bins of equal width.

    Args:
        y: Labels ``(n,)``, 0..k-1.
        proba: Probabilities ``(n, k)``; each row sums to 1.
        n_bins: Number of bins of 0..1.

    Raises:
        ValueError: If these are no labels with probabilities.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
        >>> calibration.reliability(np.array([0, 1, 1]), proba, n_bins=5).count.tolist()
        [1, 2]
    """
    hit, confidence = _hits(y, proba)
    place = _bins(confidence, n_bins)
    used = np.unique(place)
    count = np.array([np.sum(place == b) for b in used])
    hits = np.array([hit[place == b].sum() for b in used])
    ends = np.array([wilson_interval(int(h), int(n)) for h, n in zip(hits, count, strict=True)])
    mean = np.array([confidence[place == b].mean() for b in used])
    edges = np.stack([used, used + 1], axis=1) / n_bins
    return Reliability(edges, count, mean, hits / count, ends[:, 0], ends[:, 1])


def calibration_error(
    y: np.ndarray, proba: np.ndarray, *, n_bins: int = 15, draws: int = 1000, seed: int = 0
) -> CalibrationError:
    """Computes the expected calibration error (Guo et al., 2017), and its bias by simulation.

    The ECE is the mean over images of the distance between accuracy and mean confidence in the image's bin.
    A distance cannot be negative, so chance does not cancel: even a perfectly calibrated classifier has an
    ECE above 0, the more so the fewer images a bin has. How much follows from the confidences alone: each is
    taken for the truth, and hits are drawn with it.

    Args:
        y: Labels ``(n,)``, 0..k-1.
        proba: Probabilities ``(n, k)``.
        n_bins: Bins of equal width.
        draws: Simulated samples.
        seed: Of the draws.

    Raises:
        ValueError: If these are no labels with probabilities.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> proba = np.array([[0.75, 0.25]] * 4)
        >>> round(calibration.calibration_error(np.array([0, 0, 0, 1]), proba).value, 6)
        0.0
    """
    hit, confidence = _hits(y, proba)
    place = _bins(confidence, n_bins)

    def ece(hit: np.ndarray) -> float:
        gaps = np.bincount(place, hit - confidence, n_bins)
        return float(np.abs(gaps).sum() / len(confidence))

    rng = np.random.default_rng(checks.whole(seed, "seed", 0))
    simulated = [ece(rng.random(len(confidence)) < confidence) for _ in range(checks.whole(draws, "draws"))]
    return CalibrationError(ece(hit), float(np.mean(simulated)), float(np.quantile(simulated, 0.975)))


def fit_temperature(y: np.ndarray, logits: np.ndarray) -> float:
    """Finds the temperature T for which ``softmax(logits / T)`` has the smallest mean log loss.

    One number cannot change which class is the largest, so accuracy stays as it is (Guo et al., 2017). It is
    to be fitted on validation images: on training images a network looks more certain than it is.

    Args:
        y: Labels ``(n,)``, 0..k-1, of validation images.
        logits: ``(n, k)``. Logarithms of probabilities serve as well.

    Returns:
        T between 0.01 and 100; above 1 the network was too certain.

    Raises:
        ValueError: If shapes or labels do not fit, these are probabilities, or nothing bounds T: there is one
            class, every prediction is a hit or every one a miss, or the loss falls to an end of the range.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> logits = np.array([[5.0, 0.0]] * 4)  # 99 % certain, and right in 3 of 4
        >>> calibration.fit_temperature(np.array([0, 0, 0, 1]), logits) > 1
        True
    """
    y, logits = checks.scores(y, logits, "logits")
    if np.ptp(y) == 0:
        raise ValueError(
            "All labels are equal: with one class, no temperature is the best. Fit on more classes."
        )
    hits = logits.argmax(axis=1) == y
    if hits.all() or not hits.any():
        raise ValueError(
            f"Of these {len(y)} predictions {'every' if hits.all() else 'no'} one is a hit, so that no "
            "temperature is the best. Fit on more validation images."
        )

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(np.mean(special.logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]))

    ends = np.log(0.01), np.log(100)
    found = optimize.minimize_scalar(loss, bounds=ends, method="bounded")
    if np.abs(found.x - ends).min() < 1e-3:
        raise ValueError(
            f"The log loss still falls at T = {np.exp(found.x):.3g}: no temperature from 0.01 to 100 is the "
            "best. Look at whether labels and logits belong to each other; scale logits of unusual size."
        )
    return float(np.exp(found.x))


def with_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns ``softmax(logits / temperature)``, probabilities ``(n, k)``.

    Args:
        logits: ``(n, k)``, or logarithms of probabilities.
        temperature: Above 0.

    Raises:
        ValueError: If the temperature is not above 0, or these are no logits.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> calibration.with_temperature(np.log([[9.0, 1.0]]), temperature=2.0).round(3).tolist()
        [[0.75, 0.25]]
    """
    temperature = checks.number(temperature, "temperature", above=True)
    return special.softmax(checks.logits(logits) / temperature, axis=1)


def log_probabilities(proba: np.ndarray) -> np.ndarray:
    """Returns logarithms of probabilities, to be used as logits; zeros become the smallest positive number.

    Args:
        proba: ``(n, k)``, 0..1; each row sums to 1.

    Raises:
        ValueError: If these are no probabilities.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> calibration.log_probabilities(np.array([[0.5, 0.5]])).round(3).tolist()
        [[-0.693, -0.693]]
    """
    return np.log(np.maximum(checks.probabilities(proba), np.finfo(float).tiny))


def _hits(y: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each prediction is right, and its confidence; both ``(n,)``."""
    y, proba = checks.scores(y, proba, "probabilities")
    return proba.argmax(axis=1) == y, np.minimum(proba.max(axis=1), 1.0)


def _bins(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    return np.minimum((confidence * n_bins).astype(np.int64), checks.whole(n_bins, "n_bins") - 1)


def unsure_below(y: np.ndarray, proba: np.ndarray, right: float = 0.95) -> float:
    """Returns a probability below which answers had better be called unsure.

    It is the lowest one above which so many of the answers are right, and not below that of any right answer.

    Args:
        y: Labels of validation images ``(n,)``, 0..k-1.
        proba: Their probabilities ``(n, k)``.
        right: Share of right answers among those that are not called unsure, 0..1.

    Raises:
        ValueError: If these are no labels with probabilities.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation import calibration
        >>> proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
        >>> calibration.unsure_below(np.array([0, 0, 1]), proba)
        0.8
    """
    y, proba = checks.scores(y, proba, "probabilities")
    hit, sure = proba.argmax(axis=1) == y, proba.max(axis=1)
    if not hit.any():
        return 1.0
    order = np.argsort(-sure, kind="stable")
    enough = np.flatnonzero(np.cumsum(hit[order]) / np.arange(1, len(y) + 1) >= right)
    lowest = sure[order][enough[-1]] if len(enough) else 1.0
    return float(max(lowest, sure[hit].min()))
