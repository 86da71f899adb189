"""Figures of evaluation, with words made from the same data for those who do not see them.

In a notebook, a figure takes its description from the cell's metadata, which is written before the run. Each
function here therefore returns its description beside the axes: print it below the figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tlhelpers.evaluation import t_interval
from tlhelpers.evaluation.calibration import Reliability
from tlhelpers.extras import extra
from tlhelpers.plots import METHODS

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito (2008)
_MARKERS = "os^DvP"


def reliability(curves: Mapping[str, Reliability], ax: Axes | None = None) -> tuple[Axes, str]:
    """Draws accuracy against confidence, bin by bin, with 95 % Wilson intervals.

    Args:
        curves: Name -> what `calibration.reliability` returned.
        ax: Axes to draw on; ``None`` makes a figure.

    Returns:
        The axes, and the figure in words.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 4.6))
    ax.plot([0, 100], [0, 100], "--", color="#777777", linewidth=1, label="as it should be")
    words = []
    for (name, r), color, marker in zip(curves.items(), _LINES, _MARKERS, strict=False):
        spread = 100 * np.stack([r.accuracy - r.low, r.high - r.accuracy])
        x, y = 100 * r.confidence, 100 * r.accuracy
        ax.errorbar(x, y, yerr=np.maximum(spread, 0), fmt=f"{marker}-", color=color, capsize=3, label=name)
        gap = float(np.average(r.confidence - r.accuracy, weights=r.count))
        side = "too certain" if gap > 0 else "too uncertain"
        words.append(f"{name}: on average {abs(100 * gap):.1f} points {side}, {len(r.count)} bins")
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%), bars 95 % intervals", xlim=(0, 102), ylim=(0, 102))
    ax.legend(loc="upper left")
    return ax, f"Reliability diagram, accuracy against confidence. {'. '.join(words)}."


def learning_curves(
    sizes: Sequence[int], curves: Mapping[str, np.ndarray], ax: Axes | None = None
) -> tuple[Axes, str]:
    """Draws accuracy against the number of training images, with 95 % t intervals over seeds.

    Args:
        sizes: Training images, ``(m,)``; the axis is logarithmic.
        curves: Name -> accuracies 0..1, ``(m, seeds)``. Names of `plots.METHODS` have their own colour.
        ax: Axes to draw on; ``None`` makes a figure.

    Returns:
        The axes, and the figure in words.

    Raises:
        ValueError: If a curve has not one row a size.
    """
    if ax is None:
        _, ax = plt.subplots()
    words = []
    for (name, values), color, marker in zip(curves.items(), _LINES, _MARKERS, strict=False):
        v = 100 * np.asarray(values, float)
        if v.ndim != 2 or len(v) != len(sizes):
            raise ValueError(f"The curve {name!r} must be ({len(sizes)}, seeds); it is {v.shape}.")
        color, marker = METHODS.get(name, (color, marker))
        ends = np.array([t_interval(row) if len(row) > 1 else (row[0],) * 3 for row in v])
        ax.plot(sizes, ends[:, 0], f"{marker}-", color=color, label=name)
        ax.fill_between(sizes, ends[:, 1], ends[:, 2], color=color, alpha=0.2)
        words.append(f"{name}: {ends[0, 0]:.1f} % at {sizes[0]:,}, {ends[-1, 0]:.1f} % at {sizes[-1]:,}")
    ax.set(xscale="log", xlabel="training images", ylabel="accuracy (%), bands 95 % intervals")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes], minor=False)
    ax.minorticks_off()
    ax.legend()
    return ax, f"Learning curves, accuracy against training images. {'. '.join(words)}."


def pareto_front(cost: Sequence[float], value: Sequence[float]) -> np.ndarray:
    """Returns the positions that nothing beats, cheap first: no other costs less and is worth as much.

    Args:
        cost: The less the better, ``(n,)``.
        value: The more the better, ``(n,)``.

    Raises:
        ValueError: If the lengths differ, or a number is not finite.
    """
    c, v = np.asarray(cost, float), np.asarray(value, float)
    if c.shape != v.shape or c.ndim != 1 or len(c) == 0 or not np.isfinite([c, v]).all():
        raise ValueError(f"Expected n > 0 finite costs and values; these are {c.shape} and {v.shape}.")
    front: list[int] = []
    for i in np.lexsort((-v, c)):
        if not front or v[i] > v[front[-1]]:
            front.append(int(i))
    return np.array(front)
