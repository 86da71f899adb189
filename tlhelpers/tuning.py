"""Searching for hyperparameters: a learning-rate range test, and searches by Optuna that survive a stop."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout

from tlhelpers import checks, data, fingerprint, trunk
from tlhelpers.extras import extra

with extra("tuning"):
    import optuna
    from optuna.trial import TrialState

SAMPLERS = ("tpe", "random")


@dataclass(frozen=True)
class RangeTest:
    """Losses at growing learning rates. Returned by `range_test`.

    Attributes:
        rates: ``(s,)``, one a step, growing by one factor.
        losses: Loss on the batch of each step, before its update, ``(s,)``.
        steepest: The rate at which the smoothed loss falls fastest.
        lowest: The rate at which it is lowest: training is about to go wrong there.
    """

    rates: np.ndarray
    losses: np.ndarray
    steepest: float
    lowest: float


def range_test(
    model: keras.Model,
    ds: data.Dataset,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 80,
    batch_size: int = 32,
    seed: int = 0,
    cache: bool = False,
) -> RangeTest:
    """Trains for a few steps at a rate that grows from step to step (Smith, 2017). The weights are put back.

    It stops early where the loss, as the mean of five steps, is four times its smallest and worse than a
    guess. What it finds is a place to start from, with Adam, without warm-up: a sensible highest rate lies
    between `steepest` and a third of `lowest`.

    Args:
        model: As `finetune.fine_tune` takes it: whatever is trainable in it trains.
        ds: Data set; its training images alone are used.
        low: First rate.
        high: Last rate.
        steps: Steps, at least 10.
        batch_size: Images in one step.
        seed: Of the order of the images.
        cache: As in `finetune.fine_tune`: the frozen part below runs once.

    Raises:
        ValueError: If the rates or steps make no range, or the loss is not finite from the start.

    Example:
        >>> from tlhelpers import data, finetune, tuning
        >>> ds = data.load("digits", n_train=64, n_val=10, n_test=10)
        >>> found = tuning.range_test(finetune.small_cnn(8, ds.n_classes), ds, steps=10)
        >>> len(found.rates) == len(found.losses)
        True
    """
    checks.whole(steps, "steps", 10), checks.whole(batch_size, "batch_size"), checks.whole(seed, "seed", 0)
    if not checks.number(low, "low", above=True) < checks.number(high, "high"):
        raise ValueError(f"A range test needs 0 < low < high; these are {low!r} and {high!r}.")
    rates = np.geomspace(low, high, steps)
    if cache:
        model, ds = trunk.above(model, ds)
    x = np.asarray(ds.x_train) if cache else data.resize(ds.x_train, model.input_shape[1])
    rng = np.random.default_rng(seed)
    before = model.get_weights()
    # A schedule: not on each backend does a compiled step see a rate that is assigned from outside.
    growing = keras.optimizers.schedules.ExponentialDecay(low, steps - 1, high / low)
    model.compile(
        keras.optimizers.Adam(growing), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    losses: list[float] = []
    rows, guess = np.zeros(0, np.int64), np.log(model.output_shape[-1])
    try:
        for _ in rates:
            if len(rows) < batch_size:
                rows = np.concatenate([rows, rng.permutation(len(x))])
            now, rows = rows[:batch_size], rows[batch_size:]
            model.reset_metrics()  # else the loss is the mean of all steps so far
            loss = float(model.train_on_batch(x[now], ds.y_train[now], return_dict=True)["loss"])
            if not np.isfinite(loss):
                break
            losses.append(loss)
            # Where a head has been fitted, the loss is near 0, and four times as much is still small.
            means = [sum(losses[k : k + 5]) / 5 for k in range(len(losses) - 4)]
            if means and means[-1] > max(4 * min(means), guess):
                break
    finally:
        model.set_weights(before)
    if len(losses) < 5:
        raise ValueError(f"The loss grows out of bounds within {len(losses)} steps: choose a smaller low.")
    smooth = np.convolve(np.pad(losses, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    fall = np.gradient(smooth, np.log(rates[: len(losses)]))
    lowest = int(smooth.argmin())
    steepest = int(fall[: lowest + 1].argmin())
    return RangeTest(rates[: len(losses)], np.array(losses), float(rates[steepest]), float(rates[lowest]))


def search(
    objective: Callable[[optuna.Trial], float],
    n_trials: int,
    path: str | Path | None = None,
    *,
    sampler: str = "tpe",
    seed: int = 0,
    pruner: optuna.pruners.BasePruner | None = None,
    name: str = "search",
    first: Sequence[dict[str, Any]] = (),
    even_if_changed: bool = False,
) -> optuna.Study:
    """Searches for the largest value of an objective, until there are so many finished trials.

    With a path the study lives in a file (SQLite, through Optuna's own storage). The same call again goes on
    where it was stopped: finished trials stay, and the one that was under way starts anew. Each trial's
    proposals depend on the seed, its number and the trials before it alone, so that a search that was stopped
    proposes what it would have proposed. Several processes may make the same call at the same time; they
    share the trials. Trials of another objective, or of other data, do not mix with these: its code and what
    it reads are compared with those in the file, as far as `fingerprint.of` sees them.

    Args:
        objective: Takes an `optuna.Trial` and returns a number; it may raise `optuna.TrialPruned`. A trial
            that returns NaN or infinity counts as failed, such as one whose training diverged.
        n_trials: Finished trials in the end, those of earlier calls included.
        path: File of the study, such as ``"search.db"``; ``None`` keeps it in memory.
        sampler: ``"tpe"`` (tree-structured Parzen estimator, Optuna's own), or ``"random"``.
        seed: Of the proposals.
        pruner: Decides when a trial is given up; ``None`` never gives up.
        name: Name of the study in its file.
        first: Settings to try before anything is proposed, such as your usual ones; they count as trials.
        even_if_changed: Whether to go on where the objective, or what it reads, is no longer the same.

    Returns:
        The study; ``best_params`` and ``best_value`` are those of the largest value.

    Raises:
        ValueError: If an argument is not as described, or the study in the file has another sampler, seed or
            objective; the message says what differs.
        TypeError: If a number is none.
        Exception: Whatever the objective raises. That trial is not among the finished ones.

    Example:
        >>> from tlhelpers import tuning
        >>> study = tuning.search(lambda trial: -(trial.suggest_float("x", -1, 1) ** 2), n_trials=5)
        >>> -1 <= study.best_params["x"] <= 1
        True
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}.")
    n_trials, seed = checks.whole(n_trials, "n_trials"), checks.whole(seed, "seed", 0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = None if path is None else Path(path).resolve()
    storage = None
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
    with _lock(place, "study"):
        if place is not None:
            # Other processes may write at the same moment: wait for them.
            if place.is_file() and place.read_bytes()[:6] not in (b"", b"SQLite"):
                raise ValueError(
                    f"{path} is no file of a search. Give another name; this file was not touched."
                )
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{place}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=pruner or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        settings = {"sampler": sampler, "seed": seed, "reads": fingerprint.of(objective)}
        if study.trials or study.user_attrs:
            differs = _differing(study, settings, even_if_changed)
            if differs:
                raise ValueError(
                    f"{path} holds a study {name!r} that differs in: {', '.join(differs)}. "
                    "Use the same settings to go on, or another name or file to start anew. With "
                    "even_if_changed=True another objective goes on, and its trials mix with the others."
                )
        else:
            for params in first:
                study.enqueue_trial(params)
        for key, value in settings.items():
            study.set_user_attr(key, value)
    # A lock ends with its process. So a trial whose worker's lock is free was left behind.
    worker = uuid.uuid4().hex
    with _lock(place, worker):
        while (trial := _next(study, place, worker, n_trials, sampler, seed)) is not None:
            _run(study, trial, objective)
    if place is not None:
        _lock_file(place, worker).unlink(missing_ok=True)
    return study


def finished(study: optuna.Study) -> int:
    """Returns how many trials of a study are done: complete, given up by the pruner, or diverged.

    Example:
        >>> from tlhelpers import tuning
        >>> study = tuning.search(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        >>> tuning.finished(study)
        3
    """
    return sum(map(_is_finished, study.get_trials(deepcopy=False)))


def cost(study: optuna.Study) -> float:
    """Returns the seconds that the trials of a study took, those that were given up or failed included.

    Example:
        >>> from tlhelpers import tuning
        >>> study = tuning.search(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        >>> tuning.cost(study) > 0
        True
    """
    return sum(t.duration.total_seconds() for t in study.trials if t.duration is not None)


def _is_finished(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "diverged" in trial.user_attrs


def _differing(study: optuna.Study, settings: dict[str, Any], even_if_changed: bool) -> list[str]:
    """In what a stored study differs from a call; an objective may change before the first trial is done."""
    known = study.user_attrs
    if "sampler" not in known:
        return ["its origin: this function did not make it"]
    found = [f"{key} ({known[key]} there, {settings[key]} here)" for key in ("sampler", "seed")]
    found = [
        text for key, text in zip(("sampler", "seed"), found, strict=True) if known[key] != settings[key]
    ]
    if finished(study) and not even_if_changed:
        reads = known.get("reads", {})
        found += [key for key, value in settings["reads"].items() if reads.get(key, value) != value]
    return found


def _next(
    study: optuna.Study, place: Path | None, worker: str, n_trials: int, sampler: str, seed: int
) -> optuna.Trial | None:
    """Starts the next trial, or returns ``None`` where enough are finished or under way."""
    with _lock(place, "study"):
        running = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        left = [t for t in running if not _alive(place, t.user_attrs.get("worker"))]
        for stale in left:
            study.tell(stale.number, state=TrialState.FAIL)
            study.enqueue_trial(dict(stale.params))
        if finished(study) + len(running) - len(left) >= n_trials:
            return None
        study.sampler = _sampler(sampler, seed, 0)
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        # Counted without those that were left behind, a trial has the number of an unbroken search.
        lost = sum(
            t.state == TrialState.FAIL and not _is_finished(t) for t in study.get_trials(deepcopy=False)
        )
        study.sampler = _sampler(sampler, seed, trial.number - lost)
        return trial


def _run(study: optuna.Study, trial: optuna.Trial, objective: Callable[[optuna.Trial], float]) -> None:
    try:
        value = float(objective(trial))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return
    except Exception:
        study.tell(trial, state=TrialState.FAIL)
        raise
    if np.isfinite(value):
        study.tell(trial, value)
    else:
        trial.set_user_attr("diverged", True)
        study.tell(trial, state=TrialState.FAIL)


def _sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=own)
    return optuna.samplers.TPESampler(seed=own)


def _lock_file(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}.lock")


def _lock(place: Path | None, what: str) -> AbstractContextManager:
    return nullcontext() if place is None else FileLock(_lock_file(place, what))


def _alive(place: Path | None, worker: str | None) -> bool:
    """Whether the process that runs a trial is still there."""
    if place is None or worker is None or not _lock_file(place, worker).is_file():
        return False
    try:
        with FileLock(_lock_file(place, worker), timeout=0):
            pass
    except Timeout:
        return True
    _lock_file(place, worker).unlink(missing_ok=True)
    return False
