"""Behaviour of tlhelpers.plots."""

import io

import IPython
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib_inline.backend_inline as inline
import numpy as np
import pytest

from tlhelpers import plots
from tlhelpers.evaluation import t_interval

RESULTS = {"from scratch": [0.5, 0.52, 0.54], "fine-tuning": [0.8, 0.81, 0.79], "something else": [0.7]}


@pytest.fixture(autouse=True)
def clean():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def svg(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def test_compare_has_a_row_a_method_and_labels():
    ax = plots.compare(RESULTS, "accuracy on the test set (%)")
    assert ax.get_xlabel() == "accuracy on the test set (%)"
    assert [t.get_text() for t in ax.get_yticklabels()] == list(RESULTS)
    assert list(ax.get_yticks()) == [0, 1, 2]
    assert {t.get_text() for t in ax.texts} == {"52.0 %", "80.0 %", "70.0 %"}
    low, high = sorted(ax.get_ylim())
    assert low < 0
    assert high > 2
    assert ax.yaxis_inverted()  # the first method stands on top


def test_compare_draws_the_seeds_the_mean_and_the_interval():
    ax = plots.compare({"fine-tuning": RESULTS["fine-tuning"]}, "%")
    (errorbar,) = ax.containers
    mean, low, high = t_interval([80.0, 81.0, 79.0])
    data, _, (bar,) = errorbar.lines
    assert data.get_xdata()[0] == pytest.approx(mean)
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [low, high])
    dots = ax.lines[0]
    np.testing.assert_allclose(dots.get_xdata(), [80, 81, 79])
    assert dots.get_color() == plots.METHODS["fine-tuning"][0]


def test_compare_uses_the_axes_that_it_gets():
    _, ax = plt.subplots()
    assert plots.compare(RESULTS, "%", ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_methods_differ_in_colour_and_marker():
    colors, markers = zip(*plots.METHODS.values(), strict=True)
    assert len(set(colors)) == len(set(markers)) == len(plots.METHODS)


def test_images_with_titles():
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    plots.images(x, [f"image {i}" for i in range(5)], columns=3)
    axes = plt.gcf().axes
    assert len(axes) == 6
    assert [ax.get_title() for ax in axes] == [*(f"image {i}" for i in range(5)), ""]
    for ax, image in zip(axes, x, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert not axes[-1].images
    assert not any(ax.axison for ax in axes)


def test_style_makes_equal_figures_from_run_to_run():
    """With matplotlib's own salt, the ids in an SVG file are random."""

    def draw() -> bytes:
        ax = plots.compare(RESULTS, "%")
        ax.fill_between([50, 60], 0, 1, hatch="/")
        return svg(ax.figure)

    plots.style()
    assert draw() == draw()
    plt.rcParams["svg.hashsalt"] = None
    assert draw() != draw()


def test_style_in_a_notebook_is_svg_without_a_date(monkeypatch):
    called = []
    monkeypatch.setattr(inline, "set_matplotlib_formats", lambda *a, **k: called.append((a, k)))
    plots.style()
    assert not called
    monkeypatch.setattr(IPython, "get_ipython", object)
    plots.style()
    assert called == [(("svg",), {"metadata": {"Date": None}})]
