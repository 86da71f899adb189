"""Figures that the book shows more than once, in one visual language."""

from collections.abc import Mapping, Sequence

import numpy as np

from tlhelpers.evaluation import t_interval
from tlhelpers.evaluation.confusion import Confusion, confusion
from tlhelpers.extras import extra

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

__all__ = ["METHODS", "Confusion", "compare", "confusion", "images", "style"]

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


def style() -> None:
    """Sets the course's figure style. In a notebook, figures become SVG that is equal from run to run."""
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
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 1.1 + 0.5 * len(results)))
    for row, (name, values) in enumerate(results.items()):
        v = 100 * np.atleast_1d(np.asarray(values, float))
        color, marker = METHODS.get(name, METHODS["faulty"])
        ax.plot(v, np.full(len(v), row), ".", color=color, alpha=0.5, markersize=9)
        mean, low, high = t_interval(v) if len(v) > 1 else (v[0], v[0], v[0])
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
    """Shows images uint8 ``(n, h, w, 3)`` with titles, in rows of ``columns``; ``size`` in inches."""
    rows = -(-len(x) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.35)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, x, titles, strict=False):
        ax.imshow(image)
        ax.set_title(title, fontsize=8)
