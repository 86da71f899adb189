"""How a model trains: what ``fit`` will train, what one step moves and how it is undone, the highest rate."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

# What compile and fit write into a model.
_WRITTEN = (
    "optimizer", "train_function", "test_function", "predict_function", "history", "stop_training",
    "_run_eagerly", "_compile_loss", "_compile_metrics", "_eval_epoch_iterator",
)  # fmt: skip


def optimizer_of(model: keras.Model) -> keras.Optimizer:
    """Returns the optimizer itself, out of the wrapper that mixed precision puts around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def compiled_weights(model: keras.Model, now: set[int]) -> set[int]:
    """Returns what the training function trains; what it will train by the present flags if it is not built.

    A step in that function could not tell: where a batch has another shape than before, TensorFlow traces it
    once more, by the present flags, and keeps that trace. But its optimizer knows. (Not if the same optimizer
    was compiled again, with less to train; then the flags are those of the last compile.)

    Args:
        model: A built model.
        now: Ids of the weights that are trainable by the present flags.
    """
    if not model.compiled or model.train_function is None or not optimizer_of(model).built:
        return now
    flags = getattr(model, "_compiled_trainable_state", {})  # new in Keras 3.15
    if flags and all(layer.trainable == flag for layer, flag in flags.items()):
        return now
    return {id(v) for v in optimizer_of(model)._trainable_variables}


def highest_rate(optimizer: keras.Optimizer) -> tuple[float, int]:
    """Returns the highest learning rate and the step that has it."""
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(ops.convert_to_numpy(optimizer.learning_rate)), 0
    # A schedule turns at the steps that it holds as numbers (warmup_steps, decay_steps, boundaries).
    held = [n for value in vars(schedule).values() for n in np.ravel(value)]
    turns = {int(n) + d for n in held if isinstance(n, int | np.integer) for d in (-1, 0, 1)}
    steps = sorted(n for n in turns | {2**k - 1 for k in range(21)} if n >= 0)
    rates = [float(ops.convert_to_numpy(schedule(n))) for n in steps]
    return max(rates), steps[rates.index(max(rates))]


def values(variables: Sequence[keras.Variable]) -> list[tuple[keras.Variable, NDArray]]:
    """Returns variables, each with a copy of its present value."""
    return [(v, np.array(ops.convert_to_numpy(v))) for v in variables]


def moved_since(before: list[tuple[keras.Variable, NDArray]]) -> set[int]:
    """Returns the ids of the variables that have another value than `values` has seen."""
    return {id(v) for v, value in before if not np.array_equal(value, ops.convert_to_numpy(v))}


def make_step(model: keras.Model, x: NDArray, y: NDArray) -> set[int]:
    """Makes one training step and undoes it; returns the ids of what moved.

    The step is eager and without metrics, and works on copies of all that it would build: what is built is
    built for the flags of this moment, and these may still change before the first fit.
    """
    with _restored(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vars(model).update(train_function=None, _run_eagerly=True, _compile_metrics=None)
        if model.loss is not None:
            names = getattr(model, "output_names", None)
            vars(model)["_compile_loss"] = type(vars(model)["_compile_loss"])(model.loss, output_names=names)
        if not model.optimizer.built:
            vars(model)["optimizer"] = model.optimizer.from_config(model.optimizer.get_config())
        optimizer = optimizer_of(model)
        # Where a warm-up begins and where a schedule ends, the rate is 0 and nothing moves. Of steps that
        # accumulate gradients only the last one moves anything.
        steps = optimizer.gradient_accumulation_steps or 1
        optimizer._iterations.assign((highest_rate(optimizer)[1] + 1) * steps - 1)
        before = values(model.weights)
        model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
        return moved_since(before)


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[None]:
    """Puts back what a training step changes, past ``setattr``, which would track what is put back."""
    attributes = {name: value for name, value in vars(model).items() if name in _WRITTEN}
    before = values([*model.variables, *model.metrics_variables, *model.optimizer.variables])
    try:
        yield
    finally:
        for name in _WRITTEN:
            vars(model).pop(name, None)
        vars(model).update(attributes)
        for variable, value in before:
            variable.assign(value)
