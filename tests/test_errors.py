"""Behaviour of tlhelpers.evaluation.errors: tables by hand, planted label errors, errors."""

import numpy as np
import pytest

from tlhelpers import evaluation
from tlhelpers.evaluation import errors


def test_by_class_by_hand():
    y, predicted = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0, 0])
    table = errors.by_class(y, predicted, ["cat", "dog", "none"])
    assert [row.name for row in table] == ["dog", "cat"]  # the worst first; no image, no row
    dog, cat = table
    assert (dog.count, dog.accuracy, dog.precision) == (4, 0.5, pytest.approx(2 / 3))
    assert (cat.count, cat.accuracy, cat.precision) == (3, pytest.approx(2 / 3), 0.5)
    assert dog.low < dog.accuracy < dog.high
    assert "dog" in repr(table)
    assert "precision" in repr(table)


def test_by_slice_by_hand():
    y, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    table = errors.by_slice(
        y, predicted, {"all": np.ones(4, bool), "first": np.array([True, True, False, False])}
    )
    assert [(row.name, row.count, row.accuracy) for row in table] == [("all", 4, 0.75), ("first", 2, 0.5)]
    assert "precision" not in repr(table)


def test_confident_mistakes_come_first():
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    assert errors.confident_mistakes(np.array([1, 1, 1, 0]), proba).tolist() == [0, 3, 1]
    assert errors.confident_mistakes(np.array([0, 0, 1, 1]), proba).tolist() == []


def test_label_errors_by_hand():
    # Mean probability of class 0 over its images 0.7, of class 1 over its images 0.6.
    proba = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.15, 0.85], [0.95, 0.05]])
    y = np.array([0, 0, 0, 1, 1, 1])
    assert errors.label_errors(y, proba).tolist() == [5, 2]


def test_planted_label_errors_are_found():
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    f = rng.normal(size=(600, 10)) + 3 * np.eye(3, 10)[y]
    planted = rng.choice(600, 30, replace=False)
    given = y.copy()
    given[planted] = (y[planted] + rng.integers(1, 3, 30)) % 3
    proba = evaluation.cross_validate(f, given, strengths=(1.0,)).proba
    found = errors.label_errors(given, proba)
    hits = np.isin(found, planted)
    assert hits.sum() >= 24
    assert hits.mean() > 0.5
    assert hits[:20].mean() > 0.9  # the least credible first


@pytest.mark.parametrize("y", [[], [[0]]])
def test_what_is_no_pair(y):
    for function, more in ((errors.by_class, ["a"]), (errors.by_slice, {})):
        with pytest.raises(ValueError, match=r"argmax\(axis=1\)"):
            function(np.array(y, int), np.array(y, int), more)


def test_clear_errors():
    y = np.array([0, 1])
    with pytest.raises(ValueError, match="whole numbers from 0 to 0"):
        errors.by_class(y, y, ["only one"])
    for inside in (np.array([1, 0]), np.array([False, False]), np.array([True])):
        with pytest.raises(ValueError, match="'odd' must be a bool"):
            errors.by_slice(y, y, {"odd": inside})
    with pytest.raises(ValueError, match=r"\[1\] have no image"):
        errors.label_errors(np.array([0, 0]), np.array([[0.5, 0.5], [0.2, 0.8]]))
