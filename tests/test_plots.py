"""Behaviour of tlhelpers.plots."""

import base64
import io
import re

import IPython
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib_inline.backend_inline as inline
import numpy as np
import pytest
from PIL import Image

from tlhelpers import plots
from tlhelpers.evaluation import calibration
from tlhelpers.intervals import mean_interval

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
    mean, low, high = (100 * end for end in mean_interval([0.80, 0.81, 0.79], "%"))
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


def confused(n_classes: int = 3, n: int = 300, side: int = 32):
    """Noise images, labels, and predictions of which many are wrong."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return x, rng.integers(0, n_classes, n), rng.integers(0, n_classes, n)


def test_confusion_counts_true_classes_in_rows():
    x = np.zeros((4, 8, 8, 3), np.uint8)
    matrix = plots.confusion(x, np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), ["cat", "dog", "a <b>"])
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    lines = [line.split() for line in repr(matrix).splitlines()]
    assert lines[1] == ["cat", "1", "0", "1"]
    assert [(cell, [index for index, _ in found]) for cell, found in matrix.pictures.items()] == [
        ((0, 2), [1])
    ]
    page = matrix._repr_html_()
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert re.findall(r'<td data-cell="0-2"[^>]*>(\d+)</td>', page) == ["1"]
    assert re.findall(r"<summary>(.*?)</summary>", page) == ["cat, taken for a &lt;b&gt;: 1 image"]


def test_confusion_shows_the_most_frequent_errors_with_words():
    x, y, predicted = confused()
    matrix = plots.confusion(x, y, predicted, ["a", "b", "c"])
    sizes = [matrix.counts[cell] for cell in matrix.pictures]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 6
    images = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', matrix._repr_html_())
    assert len(images) == 36
    for count, words in re.findall(r": (\d+) images?([^<]*)</summary>", matrix._repr_html_()):
        assert words == (", 6 shown" if int(count) > 6 else "")
    for text, alt in images:
        true, taken, index = re.fullmatch(r"(\w), taken for (\w): image (\d+)", alt).groups()
        assert "abc"[y[int(index)]] == true != taken == "abc"[predicted[int(index)]]
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (32, 32)


@pytest.mark.parametrize("side", [32, 224])
def test_confusion_stays_small(side):
    matrix = plots.confusion(
        *confused(20, 2000 if side == 32 else 400, side), [f"class {i}" for i in range(20)]
    )
    page = matrix._repr_html_()
    assert 0 < page.count("<img") <= 60
    assert sum(len(text) for found in matrix.pictures.values() for _, text in found) < 150_000


def test_confusion_refuses_what_does_not_fit():
    x, y, predicted = confused()
    with pytest.raises(ValueError, match=r"labels must|uint8"):
        plots.confusion(x, y, predicted[:-1], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"labels must|uint8"):
        plots.confusion(x[:0], y[:0], predicted[:0], ["a", "b", "c"])
    with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
        plots.confusion(x, y, predicted, ["a", "b"])


def test_confusion_without_errors_has_no_pictures():
    x, y, _ = confused()
    matrix = plots.confusion(x, y, y, ["a", "b", "c"])
    assert not matrix.pictures
    assert "<details" not in matrix._repr_html_()


def test_reliability_draws_each_bin_and_says_which_way_it_is_off():
    proba = np.tile([0.9, 0.1], (100, 1))
    y = np.repeat([0, 1], [60, 40])
    r = calibration.reliability(y, proba)
    ax, words = plots.reliability({"raw": r})
    assert "raw: on average 30.0 points too certain, 1 bins" in words
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["as it should be", "raw"]
    (line,) = ax.containers[0].lines[:1]
    assert line.get_xydata().tolist() == pytest.approx(np.array([[90.0, 60.0]]))
    assert "too uncertain" in plots.reliability({"raw": calibration.reliability(0 * y, proba)})[1]


def test_learning_curves():
    curve = np.array([[0.5, 0.6, 0.7], [0.8, 0.8, 0.8]])
    ax, words = plots.learning_curves([10, 100], {"linear probe": curve})
    assert "60.0 % at 10, 80.0 % at 100" in words
    assert ax.lines[0].get_color() == plots.METHODS["linear probe"][0]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(100 * mean_interval(curve[0], "%")[1])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "100"]
    assert "at 100" in plots.learning_curves([10, 100], {"one seed": curve[:, :1]})[1]
    with pytest.raises(ValueError, match=r"must be \(3, seeds\)"):
        plots.learning_curves([1, 2, 3], {"a": curve})
