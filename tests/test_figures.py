"""Behaviour of tlhelpers.figures: what is drawn, and that the words say the same."""

import matplotlib
import numpy as np
import pytest

from tlhelpers import evaluation, figures
from tlhelpers.evaluation import calibration

matplotlib.use("Agg")


def test_reliability_draws_each_bin_and_says_which_way_it_is_off():
    proba = np.tile([0.9, 0.1], (100, 1))
    y = np.repeat([0, 1], [60, 40])
    r = calibration.reliability(y, proba)
    ax, words = figures.reliability({"raw": r})
    assert "raw: on average 30.0 points too certain, 1 bins" in words
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["as it should be", "raw"]
    (line,) = ax.containers[0].lines[:1]
    assert line.get_xydata().tolist() == pytest.approx(np.array([[90.0, 60.0]]))
    assert "too uncertain" in figures.reliability({"raw": calibration.reliability(0 * y, proba)})[1]


def test_learning_curves():
    curve = np.array([[0.5, 0.6, 0.7], [0.8, 0.8, 0.8]])
    ax, words = figures.learning_curves([10, 100], {"linear probe": curve})
    assert "60.0 % at 10, 80.0 % at 100" in words
    assert ax.lines[0].get_color() == figures.METHODS["linear probe"][0]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(evaluation.t_interval(100 * curve[0])[1])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "100"]
    assert "at 100" in figures.learning_curves([10, 100], {"one seed": curve[:, :1]})[1]
    with pytest.raises(ValueError, match=r"must be \(3, seeds\)"):
        figures.learning_curves([1, 2, 3], {"a": curve})


def test_pareto_front():
    #             a   b    c    d (as good as b, dearer)   e (as cheap as a, worse)
    cost, value = [1, 2.0, 3.0, 4.0, 1], [0.5, 0.8, 0.7, 0.8, 0.4]
    assert figures.pareto_front(cost, value).tolist() == [0, 1]
    assert figures.pareto_front([1, 1], [2, 2]).tolist() == [0]
    for bad in (([], []), ([1], [1, 2]), ([np.nan], [1])):
        with pytest.raises(ValueError, match="finite costs"):
            figures.pareto_front(*bad)
