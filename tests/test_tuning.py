"""Behaviour of tlhelpers.tuning: a search that is killed goes on, the range test, each setting acts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest

import tiny
from tlhelpers import tuning

# A trial notes its number and its proposal when it starts and when it ends; the file survives a kill.
SCRIPT = """
import sys, time
from tlhelpers import tuning
path, log, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
def note(*words):
    with open(log, "a") as file:
        print(*words, file=file, flush=True)
def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    note("start", trial.number, x)
    # Not part of what the objective computes.
    time.sleep(float(sys.argv[4]) if trial.number >= int(sys.argv[5]) else 0)
    note("end", trial.number, x)
    return -x * x
tuning.search(objective, n, path, seed=3)
"""


def start(path: Path, log: Path, n: int, sleep: float, slow_from: int = 0) -> subprocess.Popen:
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = map(str, (path, log, n, sleep, slow_from))
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *words], env=env)


def lines(log: Path, word: str) -> list[list[str]]:
    text = log.read_text().splitlines() if log.exists() else []
    return [line.split() for line in text if line.startswith(word)]


def parabola(trial: optuna.Trial) -> float:
    return -(trial.suggest_float("x", -1, 1) ** 2)


def study_in(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{path}")


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    """No finished trial is lost or run twice, and what is proposed is what an unbroken search proposes."""
    path, log = tmp_path / "search.db", tmp_path / "log"
    process = start(path, log, 14, 600, slow_from=12)
    try:
        deadline = time.monotonic() + 120
        while len(lines(log, "start")) < 13 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {words[2] for words in lines(log, "end")}
    assert len(lines(log, "start")) == len(before) + 1, "it was killed within a trial"
    stored = {t.params["x"]: t.value for t in study_in(path).trials if t.state.name == "COMPLETE"}
    assert start(path, log, 16, 0).wait() == 0

    ended = [words[2] for words in lines(log, "end")]
    assert len(ended) == len(set(ended)) == 16
    trials = [t for t in study_in(path).trials if t.state.name == "COMPLETE"]
    assert len(trials) == 16
    assert {t.params["x"]: t.value for t in trials}.items() >= stored.items()
    unbroken = tuning.search(parabola, 16, seed=3)
    assert [t.params["x"] for t in unbroken.trials] == [t.params["x"] for t in trials]
    assert not list(tmp_path.glob(".search.db.*[0-9a-f].lock")), "locks of workers that are gone"


@pytest.mark.slow
def test_processes_share_the_trials(tmp_path):
    path, log = tmp_path / "search.db", tmp_path / "log"
    workers = [start(path, log, 12, 0.2) for _ in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    assert sorted(int(words[1]) for words in lines(log, "end")) == list(range(12))
    assert len({words[2] for words in lines(log, "end")}) == 12
    assert len(study_in(path).trials) == 12


def test_a_search_is_determined_by_its_seed(tmp_path):
    first, again, other = (tuning.search(parabola, 12, seed=s) for s in (0, 0, 1))
    proposals = [[t.params["x"] for t in study.trials] for study in (first, again, other)]
    assert proposals[0] == proposals[1] != proposals[2]
    assert len(set(proposals[0])) == 12
    kept = tuning.search(parabola, 5, tmp_path / "a.db", seed=0)
    kept = tuning.search(parabola, 12, tmp_path / "a.db", seed=0)
    assert [t.params["x"] for t in kept.trials] == proposals[0]
    tuning.search(parabola, 12, tmp_path / "a.db", seed=0)
    assert len(study_in(tmp_path / "a.db").trials) == 12, "a finished search runs nothing"


def test_random_search_proposes_numbers_that_differ(tmp_path):
    study = tuning.search(parabola, 8, tmp_path / "r.db", sampler="random")
    study = tuning.search(parabola, 16, tmp_path / "r.db", sampler="random")
    assert len({t.params["x"] for t in study.trials}) == 16
    assert study.best_value == max(t.value for t in study.trials)


def test_another_sampler_or_seed_does_not_mix_with_a_stored_study(tmp_path):
    tuning.search(parabola, 2, tmp_path / "a.db", seed=0)
    for other in ({"seed": 1}, {"sampler": "random"}):
        with pytest.raises(ValueError, match="same settings"):
            tuning.search(parabola, 3, tmp_path / "a.db", **other)
    assert len(tuning.search(parabola, 2, tmp_path / "a.db", name="another", seed=1).trials) == 2


def squares(scale: float, x: np.ndarray, log: list | None = None) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        if log is not None:
            log.append(trial.number)
        return -float(np.mean((trial.suggest_float("x", -scale, scale) - x) ** 2))

    return objective


def roots(trial: optuna.Trial) -> float:
    return -(abs(trial.suggest_float("x", -1, 1)) ** 0.5)


def distance(trial: optuna.Trial, x: np.ndarray) -> float:
    return -float(np.mean((trial.suggest_float("x", -1, 1) - x) ** 2))


SPACE: dict[str, tuple[float, float]] = {"x": (-1.0, 1.0)}


def proposed(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", *SPACE["x"])


def around(trial: optuna.Trial) -> float:
    return max(proposed(trial) for _ in range(1))


class Objective:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, self.scale)


ZEROS, ONE = np.zeros(3), np.eye(1, 3)[0]
OTHER = {
    "other code": (parabola, roots, "code"),
    "another search space": (squares(1, ZEROS), squares(2, ZEROS), "scale"),
    "other data": (squares(1, ZEROS), squares(1, ONE), "x"),
    "data of another type": (squares(1, ZEROS), squares(1, ZEROS.astype(np.float32)), "x"),
    "another lambda": (lambda trial: 1.0, lambda trial: 2.0, "code"),
    "another argument of functools.partial": (
        partial(distance, x=ZEROS),
        partial(distance, x=ONE),
        "arguments",
    ),
    "another object that is called": (Objective(1), Objective(2), "self"),
}


@pytest.mark.parametrize(
    ("first", "second", "word"), OTHER.values(), ids=[f"tuning.search: {k}" for k in OTHER]
)
def test_trials_of_another_objective_do_not_mix(tmp_path, first, second, word):
    tuning.search(first, 2, tmp_path / "a.db")
    tuning.search(first, 3, tmp_path / "a.db")
    for n in (3, 4):  # whether or not a trial is missing: what is returned would be another objective's
        with pytest.raises(ValueError, match=f"in: .*{word}.*even_if_changed"):
            tuning.search(second, n, tmp_path / "a.db")
    assert len(study_in(tmp_path / "a.db").trials) == 3
    assert len(tuning.search(second, 4, tmp_path / "a.db", even_if_changed=True).trials) == 4
    tuning.search(second, 5, tmp_path / "a.db")


def test_another_search_space_among_the_globals_is_seen(tmp_path, monkeypatch):
    """It is read two functions away, and within a generator expression."""
    tuning.search(around, 2, tmp_path / "a.db")
    monkeypatch.setitem(SPACE, "x", (-1.0, 2.0))
    with pytest.raises(ValueError, match=r"proposed\.SPACE"):
        tuning.search(around, 3, tmp_path / "a.db")


def test_a_log_that_grows_and_a_changed_objective_before_the_first_trial_are_no_change(tmp_path):
    log: list[int] = []
    for n in (2, 4):
        tuning.search(squares(1, ZEROS, log), n, tmp_path / "a.db")
    assert log == [0, 1, 2, 3]
    fails = iter([True, False])

    def objective(trial: optuna.Trial) -> float:
        if next(fails):
            raise OSError("disk")
        return 1.0

    with pytest.raises(OSError, match="disk"):
        tuning.search(objective, 1, tmp_path / "b.db")
    tuning.search(parabola, 1, tmp_path / "b.db")
    with pytest.raises(ValueError, match="code"):
        tuning.search(objective, 2, tmp_path / "b.db")


@pytest.mark.parametrize(
    "direction", ["maximize", "minimize"], ids=lambda d: f"tuning.search: a study to {d}"
)
def test_a_study_of_another_origin_is_refused(tmp_path, direction):
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    other = optuna.create_study(storage=storage, study_name="search", direction=direction)
    other.optimize(parabola, 1)
    with pytest.raises(ValueError, match="did not make it"):
        tuning.search(parabola, 2, tmp_path / "a.db")


@pytest.mark.parametrize(
    "content",
    [b"no database at all " * 100, b"\xff\xd8\xff" * 500],
    ids=["tuning.search: text for a study file", "tuning.search: a picture for a study file"],
)
def test_a_file_that_is_no_study_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.db.* is no file"):
        tuning.search(parabola, 2, path)
    assert path.read_bytes() == content


def test_first_settings_come_first_and_once(tmp_path):
    for n in (1, 3):
        study = tuning.search(parabola, n, tmp_path / "a.db", first=[{"x": 0.25}])
    assert [t.params["x"] for t in study.trials].count(0.25) == 1
    assert study.trials[0].params == {"x": 0.25}


def test_what_diverges_counts_and_an_error_does_not(tmp_path):
    study = tuning.search(lambda trial: float("nan"), 3, tmp_path / "a.db")
    assert [t.state.name for t in study.trials] == ["FAIL"] * 3
    assert tuning.finished(study) == 3

    def broken(trial: optuna.Trial) -> float:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        tuning.search(broken, 5, tmp_path / "a.db", even_if_changed=True)
    study = tuning.search(parabola, 5, tmp_path / "a.db", even_if_changed=True)
    assert tuning.finished(study) == 5
    assert len(study.trials) == 6


def test_pruned_trials_count_and_cost(tmp_path):
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        time.sleep(0.02)
        if trial.number % 2:
            raise optuna.TrialPruned
        return 1.0

    study = tuning.search(objective, 4, tmp_path / "a.db")
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED"] * 2
    assert tuning.cost(study) >= 0.08


def test_clear_errors():
    with pytest.raises(ValueError, match=r"sampler .*tpe, random"):
        tuning.search(parabola, 2, sampler="grid")
    for n, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="n_trials must be"):
            tuning.search(parabola, n)


def learnable() -> tuple[keras.Model, object]:
    ds = tiny.make_dataset()
    y = (ds.x_train.reshape(24, -1).mean(axis=1) > np.median(ds.x_train.reshape(24, -1).mean(axis=1))).astype(
        int
    )
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, -1)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x)), replace(ds, y_train=y)


def test_range_test_finds_a_rate_that_trains_and_puts_the_weights_back():
    keras.utils.set_random_seed(0)
    model, ds = learnable()
    before = tiny.weights(model)
    found = tuning.range_test(model, ds, low=1e-6, high=10.0, steps=60, batch_size=24)
    assert not tiny.moved(before, model)
    assert len(found.rates) == len(found.losses)
    assert found.rates[0] == pytest.approx(1e-6)
    ratios = found.rates[1:] / found.rates[:-1]
    np.testing.assert_allclose(ratios, ratios[0])
    assert 1e-5 < found.steepest < 1
    assert found.steepest <= found.lowest
    assert found.losses.min() < found.losses[0] / 2
    again = tuning.range_test(model, ds, low=1e-6, high=10.0, steps=60, batch_size=24)
    np.testing.assert_allclose(again.losses, found.losses, rtol=1e-4)


def test_range_test_goes_on_where_the_loss_of_one_batch_is_near_zero():
    """A fitted head has batches with next to no loss; the next batch is no explosion."""
    model, ds = learnable()
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(ds.x_train, ds.y_train, epochs=30, verbose=0)
    found = tuning.range_test(model, ds, low=1e-8, high=1e-6, steps=40, batch_size=1)
    assert len(found.rates) == 40
    assert found.losses.max() > 4 * found.losses.min()  # one batch against another
    contradictory = replace(ds, x_train=np.full_like(ds.x_train, 200), y_train=np.arange(24) % 2)
    found = tuning.range_test(model, contradictory, low=1e-4, high=1e4, steps=80, batch_size=3)
    assert len(found.rates) < 80, "an explosion ends the test"


def test_range_test_errors():
    model, ds = learnable()
    for low, high, steps, message in (
        (1e-2, 1e-3, 20, "0 < low < high"),
        (0, 1, 20, "low is 0"),
        (1e-3, 1e-2, 5, "steps .*at least 10"),
    ):
        with pytest.raises(ValueError, match=message):
            tuning.range_test(model, ds, low=low, high=high, steps=steps)
    model.layers[-1].set_weights([np.full((192, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(ValueError, match="out of bounds"):
        tuning.range_test(model, ds)
