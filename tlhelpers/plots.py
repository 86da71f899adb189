"""Figures that the book shows more than once, in one visual language.

In a notebook, a figure takes its description from the cell's metadata, which is written before the run. Where
that is too early, a function here returns a description made from the same data: print it below the figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tlhelpers.evaluation.calibration import Reliability
from tlhelpers.evaluation.confusion import Confusion, confusion
from tlhelpers.extras import extra
from tlhelpers.intervals import t_interval

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

__all__ = [
    "METHODS",
    "Confusion",
    "compare",
    "confusion",
    "images",
    "learning_curves",
    "reliability",
    "style",
]

# One colour and one marker a method, in every chapter. The colours are those of Okabe and Ito (2008), which
# readers with a colour-vision deficiency can tell apart; the markers serve greyscale print.
METHODS: dict[str, tuple[str, str]] = {
    "from scratch": ("#D55E00", "s"),
    "linear probe": ("#0072B2", "o"),
    "fine-tuning": ("#009E73", "^"),
    "k-NN": ("#CC79A7", "D"),
    "MLP head": ("#E69F00", "v"),
    "several depths": ("#56B4E9", "P"),
    "faulty": ("#7F7F7F", "X"),
}
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito (2008)
_MARKERS = "os^DvP"


def style() -> None:
    """Sets the course's figure style. In a notebook, figures become SVG that is equal from run to run.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from tlhelpers import plots
        >>> plots.style()
        >>> plt.rcParams["axes.grid"]
        True
    """
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "axes.axisbelow": True,
            "font.size": 11,
            "lines.linewidth": 2,
            "svg.hashsalt": "tlhelpers",
        }
    )
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg", metadata={"Date": None})


def compare(results: Mapping[str, Sequence[float] | np.ndarray], xlabel: str, ax: Axes | None = None) -> Axes:
    """Draws one row a method: each seed as a dot, the mean, and the 95 % t interval of several seeds.

    Args:
        results: Method -> one accuracy (0..1) a seed. Methods of ``METHODS`` have their own colour.
        xlabel: Label of the axis of accuracies, which are shown in percent.
        ax: Axes to draw on; ``None`` makes a figure of a fitting height.

    Returns:
        The axes.

    Example:
        >>> from tlhelpers import plots
        >>> results = {"linear probe": [0.81, 0.83, 0.82], "fine-tuning": [0.88, 0.90, 0.89]}
        >>> ax = plots.compare(results, "test accuracy (%)")
        >>> ax.get_xlabel()
        'test accuracy (%)'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 1.1 + 0.5 * len(results)))
    for row, (name, values) in enumerate(results.items()):
        v = 100 * np.atleast_1d(np.asarray(values, float))
        color, marker = METHODS.get(name, METHODS["faulty"])
        ax.plot(v, np.full(len(v), row), ".", color=color, alpha=0.5, markersize=9)
        mean, low, high = t_interval(v.tolist(), between=(0, 100))
        ax.errorbar(
            mean, row, xerr=[[mean - low], [high - mean]], fmt=marker, color=color, capsize=4, markersize=8
        )
        ax.annotate(
            f"{mean:.1f} %", (mean, row), (0, 9), textcoords="offset points", ha="center", color=color
        )
    ax.set(
        yticks=range(len(results)), yticklabels=list(results), xlabel=xlabel, ylim=(len(results) - 0.4, -0.7)
    )
    return ax


def images(x: np.ndarray, titles: Sequence[str], columns: int = 6, size: float = 1.15) -> None:
    """Shows images uint8 ``(n, h, w, 3)`` with titles, in rows of ``columns``; ``size`` in inches.

    Example:
        >>> from tlhelpers import data, plots
        >>> ds = data.load("digits", n_train=20, n_val=10, n_test=10)
        >>> plots.images(ds.x_train[:6], [ds.class_names[k] for k in ds.y_train[:6]], columns=3)
    """
    rows = -(-len(x) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.35)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, x, titles, strict=False):
        ax.imshow(image)
        ax.set_title(title, fontsize=8)


def reliability(curves: Mapping[str, Reliability], ax: Axes | None = None) -> tuple[Axes, str]:
    """Draws accuracy against confidence, bin by bin, with 95 % Wilson intervals.

    Args:
        curves: Name -> what `calibration.reliability` returned.
        ax: Axes to draw on; ``None`` makes a figure.

    Returns:
        The axes, and the figure in words.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import plots
        >>> from tlhelpers.evaluation import calibration
        >>> y, proba = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
        >>> ax, words = plots.reliability({"probe": calibration.reliability(y, proba)})
        >>> ax.get_xlabel()
        'confidence (%)'
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
        curves: Name -> accuracies 0..1, ``(m, seeds)``. Names of ``METHODS`` have their own colour.
        ax: Axes to draw on; ``None`` makes a figure.

    Returns:
        The axes, and the figure in words.

    Raises:
        ValueError: If a curve has not one row a size.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import plots
        >>> curve = np.array([[0.60, 0.62], [0.75, 0.77]])
        >>> ax, words = plots.learning_curves([100, 1000], {"linear probe": curve})
        >>> words
        'Learning curves, ... linear probe: 61.0 % at 100, 76.0 % at 1,000.'
    """
    if ax is None:
        _, ax = plt.subplots()
    words = []
    for (name, values), color, marker in zip(curves.items(), _LINES, _MARKERS, strict=False):
        v = 100 * np.asarray(values, float)
        if v.ndim != 2 or len(v) != len(sizes):
            raise ValueError(f"The curve {name!r} must be ({len(sizes)}, seeds); it is {v.shape}.")
        color, marker = METHODS.get(name, (color, marker))
        ends = np.array([t_interval(row.tolist(), between=(0, 100)) for row in v])
        ax.plot(sizes, ends[:, 0], f"{marker}-", color=color, label=name)
        ax.fill_between(sizes, ends[:, 1], ends[:, 2], color=color, alpha=0.2)
        words.append(f"{name}: {ends[0, 0]:.1f} % at {sizes[0]:,}, {ends[-1, 0]:.1f} % at {sizes[-1]:,}")
    ax.set(xscale="log", xlabel="training images", ylabel="accuracy (%), bands 95 % intervals")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes], minor=False)
    ax.minorticks_off()
    ax.legend()
    return ax, f"Learning curves, accuracy against training images. {'. '.join(words)}."
