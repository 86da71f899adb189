"""The hidden checks: answers are compared strictly, wrong solutions lose points, right ones lose none."""

import functools
import random

import numpy as np
import planted
import pytest
from bench import Bench
from classroom import ALL, AUTOGRADED, weekly
from mutants import mutants, solution_cells
from right_ones import every, pieces, solutions

from tools.grading import compare

pytestmark = pytest.mark.xdist_group("coursework")  # the notebooks are prepared once
QUICK = ("concepts", "source", "tuning")  # no network is trained: judged in every run of the tests
SAMPLE = 100  # generated wrong solutions of an assignment that are tried in every run; weekly all
# What the generator changes without making it wrong: item -> beginning of what it says -> why.
HARMLESS = {
    "l2sp": {"operands swapped: A @ w_hat": "A is symmetric"},
    "distances": {
        "reversed": "a mean over all pairs has no order",
        "arguments swapped": "the kernel is symmetric",
        "operands swapped": "the difference is squared",
        "the first left out: z": "only its columns are counted there",
        "replaced by u: z": "only its columns are counted there",
    },
    "rank": {
        "order swapped": "a correlation is symmetric",
        "arguments swapped": "a correlation is symmetric",
        "var for std": "it is only compared with 0",
    },
    "leep": {
        "another operator: np.stack": "n cancels",
        "only the left side: np.stack": "n cancels",
        "the first left out: labels": "n cancels",
    },
    "pareto": {"reversed: rows": "the result is sorted"},
    "harm": {
        "another comparison: abs(mean) <= half": "never equal",
        "another comparison: mean > 0": "never 0 there",
    },
    "choose": {
        "reversed: table": "a table has no order",
        "another comparison: best - found[name] <= tolerance": "floats are not meant to be equal",
    },
    "folds": {
        **dict.fromkeys(
            ("arguments swapped: GroupKFold", "reversed: f", "reversed: y"), "split needs the groups alone"
        ),
        **{f"replaced by {x}: {y}": "split needs the groups alone" for x, y in ("yf", "fy")},
        **{f"replaced by groups: {y}": "split needs the groups alone" for y in "fy"},
    },
    "paired": {"one more: 0": "one image of 1,600", "one less: 0": "one image of 1,600"},
    "errors": {
        "without dtype": "counts as floats are counts",
        "without unique": "a dict has each key once",
        "reversed: slices": "each slice is looked at",
        "the first left out: slices": "its slice occurs again",
    },
    "calibration": {
        "reversed: grid": "the smallest is looked for",
        "sum for mean": "the order of sums is that of means",
        "operands swapped: confidence": "a distance",
        "another operator: softmax": "1e-300 is nothing",
        "only the left side: softmax": "1e-300 is nothing",
        "doubled: 1e-300": "1e-300 is nothing",
    },
    "extract": {
        "a copy": "the task asks for the trained weights",
        "without training": "False is Keras' default",
    },
    "probe": {
        "reversed: strengths": "they are sorted",
        "sum for mean": "the order of sums is that of means",
        "doubled: 1.0": "any number below 0 begins",
        "without max_iter": "it converges before",
        "one more: 1000": "it converges before",
        "one less: 1000": "it converges before",
    },
    "leak": {"reversed: x_train": "a set has no order"},
    "fair": {"sum for mean: np.mean(predict(x_val)": "the order of sums is that of means"},
    "interval": {"without kind": "no two are equal"},
    "curve": {"reversed: sizes": "a dict has no order"},
    "depths": {
        "a copy for the shared layers: keras.Model(model.input, [": "features are all that is asked for",
        "without training": "False is Keras' default",
        "order swapped: (1, 2)": "a mean over both",
    },
    "schedule": {"operands swapped: step": "the cosine is even"},
    "recompile": {"without metrics": "not asked for", "without momentum": "not asked for"},
}
# Where any recipe that reaches the goal is right, another one is not wrong: planted submissions look there.
FREE = ("rate", "budget")


@pytest.fixture(scope="module")
def benches():
    """Name -> the notebook of an assignment after its own cells."""
    return functools.cache(Bench)


def assignments():
    """Return the assignments to try, with a reason where one is left for the weekly run."""
    return [pytest.param(name, marks=() if name in QUICK else weekly) for name in AUTOGRADED]


@pytest.mark.parametrize("name", assignments())
def test_generated_wrong_solutions_lose_points(name, benches):
    bench, tried = benches(name), []
    cells = solution_cells(bench.source)
    for item in bench.items():
        assert bench.lost(item, cells[item.name], seconds=600) == 0, f"{item.name}: {bench.said}"
        if item.name not in FREE:
            tried += [(item, label, text) for label, text in mutants(cells[item.name])]
    if not ALL:
        tried = random.Random(name).sample(tried, min(SAMPLE, len(tried)))
    alive = [(item.name, label) for item, label, text in tried if bench.lost(item, text) == 0]
    survivors = [f"{item}: {label}" for item, label in alive if not _why(item, label)]
    harmless = len(alive) - len(survivors)
    print(f"{name}: {len(tried) - len(alive)} of {len(tried)} lose points, {harmless} are not wrong")
    assert len(tried) >= 40
    assert harmless < 0.1 * len(tried)
    assert not survivors, "\n".join(survivors)  # 95 % were asked for; whoever survives is looked at


def _why(item, label):
    return next((why for start, why in HARMLESS.get(item, {}).items() if label.startswith(start)), "")


@pytest.mark.parametrize("name", assignments())
def test_right_solutions_get_all_points(name, benches):
    bench = benches(name)
    items = {item.name: item for item in bench.items()}
    assert set(pieces(name)) == set(items)
    assert all(len(set(texts)) >= 9 for texts in solutions(name).values())  # and ours
    lost = []
    for item, number, text in every(name):
        if points := bench.lost(items[item], text, seconds=600):
            lost.append(f"{item}, {number}: {points:g}, {bench.said}")
    assert not lost, "\n".join(lost)


@weekly
@pytest.mark.parametrize("name", AUTOGRADED)
def test_right_solutions_get_all_points_for_every_secret(name):
    """Twenty secrets: ours for each, and for every fifth all the right ones too."""
    for number in range(20):
        bench = Bench(name, f"secret number {number}")
        cells = solution_cells(bench.source)
        for item in bench.items():
            assert bench.lost(item, cells[item.name], seconds=600) == 0, (number, item.name, bench.said)
        if number % 5 == 0:
            items = {item.name: item for item in bench.items()}
            lost = [(i, n, bench.said) for i, n, text in every(name) if bench.lost(items[i], text, 600)]
            assert not lost, (number, lost)


@pytest.mark.parametrize("name", assignments())
def test_planted_solutions_lose_what_was_stated(name, benches):
    """All planted submissions, judged in this process; some of them go through the sandbox elsewhere."""
    bench = benches(name)
    ours = {i: planted.solution(text) for i, text in solution_cells(bench.source).items()}
    for student, submission in planted.SUBMISSIONS[name].items():
        for item in bench.items():
            if item.name in submission.edits:
                stated = submission.lost.get(item.name, 0.0)
                text = submission.edits[item.name](planted.text_of({"source": ours[item.name]}))
                lost = bench.lost(item, text, seconds=600)
                stated = item.points if stated == planted.NONE else stated
                assert lost == pytest.approx(stated, abs=0.01), (student, item.name, bench.said)


RIGHT = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (RIGHT.astype("float32"), RIGHT),
        (RIGHT.astype("float16"), RIGHT),
        (RIGHT.astype(int), RIGHT),
        (2, 2.0),
        (np.float32(0.1), 0.1),
        (np.array(0.1), 0.1),
        (np.array([1, 0], "uint8"), np.array([True, False])),
        (np.array([3.0, 1.0]), np.array([3, 1])),
    ],
)
def test_answers_that_are_right(found, expected):
    assert compare.fault(found, expected) == ""


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        (np.zeros((0, 1)), RIGHT, "shape"),
        (np.zeros((0, 2)), RIGHT, "shape"),
        (np.zeros((0, 1)), 0.5, "a single number was asked for"),
        (np.array([0.5]), 0.5, "a single number was asked for"),
        (1.0, np.ones(3), "an array was asked for"),
        (np.ones((3, 1)), np.ones(3), "more dimensions"),
        (np.ones(3), np.ones((3, 1)), "fewer dimensions"),
        (np.ones(17), np.ones(3), "another length"),
        (RIGHT.T, RIGHT, "value"),
        (RIGHT[::-1], RIGHT, "value"),
        (np.array([[1.0, np.nan], [3.0, 4.0]]), RIGHT, "NaN"),
        (np.inf, 1.0, "NaN"),
        (True, 1.0, "something else"),
        (np.array([0.5, 0.5]), np.array([True, False]), "something else"),
        (1.001, 1.0, "value"),
        (2.5, 2, "value"),
        ("1.0", 1.0, "no number"),
        (None, 1.0, "no number"),
        ([1.0], 1.0, "no number"),
        ({}, 1.0, "no number"),
    ],
)
def test_answers_that_are_wrong(found, expected, said):
    fault = compare.fault(found, expected)
    assert said in fault
    assert not any(c.isdigit() for c in fault)  # a number of the submission's could tell a hidden input


def test_a_check_that_looks_at_nothing_is_refused():
    with pytest.raises(ValueError, match="looks at nothing"):
        compare.fault(np.zeros(0), np.zeros(0))


def test_pairs_count_in_any_order_and_torn_ones_do_not():
    x, y = np.random.default_rng(0).normal(size=(6, 2)), np.array([0, 1, 2, 0, 1, 2])
    order = [3, 1, 0, 5, 4, 2]
    assert compare.same_pairs(x[order].astype("float32"), y[order], x, y)
    assert not compare.same_pairs(x[::-1], y, x, y)
    assert not compare.same_pairs(x[[0, 0, 1, 2, 3, 4]], y[[0, 0, 1, 2, 3, 4]], x, y)
    assert not compare.same_pairs(x[:5], y[:5], x, y)
    assert not compare.same_pairs(x[:0], y[:0], x, y)


def test_a_table_that_only_says_that_it_is_equal_is_not():
    class Always(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    assert compare.answers({"a": Always("no")}, {"a": "yes"})[0] == 0
    assert compare.answers([("a", "yes")], {"a": "yes"})[0] == 0
