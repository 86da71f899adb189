"""What a lower precision changes: the angle between features, and what a linear probe makes of them."""

from dataclasses import dataclass

import numpy as np

from tlhelpers import evaluation

_IMAGES, _LABELLED = 64, 512  # of a sample, without labels and with them
_STRENGTH = 1e-2  # of the probe, as `evaluation.cross_validate` takes it


@dataclass(frozen=True)
class Difference:
    """Features of an engine against those in float32, on the same images. Returned by `difference`.

    Attributes:
        engine: Whose features were compared.
        n: Number of images.
        cosine: Cosine of the angle between an image's two feature vectors, the mean over the images.
        lowest: The lowest of these cosines.
        accuracy: Cross-validated accuracy of a linear probe on the engine's features, 0..1; ``None`` without
            labels, or where a class has fewer than two images.
        full_accuracy: The same on features in float32.
    """

    engine: str
    n: int
    cosine: float
    lowest: float
    accuracy: float | None
    full_accuracy: float | None

    def __str__(self) -> str:
        text = (
            f"{self.engine} against float32 on {self.n} images: "
            f"mean cosine {self.cosine:.4f}, lowest {self.lowest:.4f}"
        )
        if self.accuracy is None or self.full_accuracy is None:
            return text
        return (
            f"{text}; cross-validated accuracy of a linear probe {self.accuracy:.2%}, "
            f"in float32 {self.full_accuracy:.2%}"
        )


def sample(n: int, labels: np.ndarray | None) -> np.ndarray:
    """Returns positions, evenly spread; where there are labels, over the classes.

    Raises:
        ValueError: If there are not as many labels as images.
    """
    if labels is None:
        return np.unique(np.linspace(0, n - 1, min(n, _IMAGES)).astype(int))
    if np.shape(labels) != (n,):
        raise ValueError(
            f"labels has the shape {np.shape(labels)}; there are {n} images. Pass one label each."
        )
    order = np.argsort(labels, kind="stable")
    return np.sort(order[np.unique(np.linspace(0, n - 1, min(n, _LABELLED)).astype(int))])


def compared(full: np.ndarray, lower: np.ndarray, labels: np.ndarray | None, engine: str) -> Difference:
    """Compares features ``(n, ...)`` in float32 with an engine's."""
    a, b = (np.asarray(f, np.float64).reshape(len(f), -1) for f in (full, lower))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)
    cosine = np.where(same, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))
    accuracies: list[float | None] = [None, None]
    if labels is not None:
        y = np.unique(labels, return_inverse=True)[1]
        folds = min(5, int(np.bincount(y).min()))
        if folds > 1 and y.max() > 0:
            accuracies = [
                float(evaluation.cross_validate(f, y, folds=folds, strengths=[_STRENGTH]).accuracy.mean())
                for f in (b, a)
            ]
    return Difference(engine, len(a), float(cosine.mean()), float(cosine.min()), *accuracies)
