"""How a model trains: what ``fit`` will train, what one step does and how it is undone, the highest rate."""

import contextlib
import copy
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from tlhelpers.audit._keras import drop_metrics, flags_at_compile, iterations, learning_rate, optimized


class UntriedError(Exception):
    """A step cannot be made here, although fit may well make one."""


@dataclass
class Step:
    """What one training step does.

    Attributes:
        moved: Ids of the variables that it moves.
        change: Median over the kernels that it moves of the change, as a share of the kernel. It is ``None``
            where it was not measured, like the next two.
        before: The loss of its images before it.
        after: The loss of the same images after it.
    """

    moved: set[int]
    change: float | None = None
    before: float | None = None
    after: float | None = None


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
    flags = flags_at_compile(model)
    if flags and all(layer.trainable == flag for layer, flag in flags.items()):
        return now
    return {id(v) for v in optimized(optimizer_of(model))}


def highest_rate(optimizer: keras.Optimizer) -> tuple[float, int]:
    """Returns the highest learning rate and the step that has it."""
    schedule = learning_rate(optimizer)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(ops.convert_to_numpy(optimizer.learning_rate)), 0
    # A schedule turns at the steps that it holds as numbers (warmup_steps, decay_steps, boundaries).
    held = [n for value in vars(schedule).values() for n in np.ravel(value)]
    turns = {int(n) + d for n in held if isinstance(n, int | np.integer) for d in (-1, 0, 1)}
    steps = sorted(n for n in turns | {2**k - 1 for k in range(21)} if n >= 0)
    rates = [float(ops.convert_to_numpy(schedule(n))) for n in steps]
    return max(rates), steps[rates.index(max(rates))]


def effective_rate(optimizer: keras.Optimizer) -> float:
    """Returns the highest rate, over 1 - momentum where steps in one direction add up: SGD and RMSprop."""
    momentum = float(getattr(optimizer, "momentum", 0.0) or 0.0)
    return highest_rate(optimizer)[0] / (1 - momentum if 0 <= momentum < 1 else 1)


def values(variables: Sequence[keras.Variable]) -> list[tuple[keras.Variable, NDArray]]:
    """Returns variables, each with a copy of its present value."""
    return [(v, np.array(ops.convert_to_numpy(v))) for v in variables]


def moved_since(before: list[tuple[keras.Variable, NDArray]]) -> set[int]:
    """Returns the ids of the variables that have another value than `values` has seen."""
    return {id(v) for v, value in before if not np.array_equal(value, ops.convert_to_numpy(v))}


def make_step(model: keras.Model, x: Any, y: Any, weights: Any, prepare: Callable[[Any], Any]) -> Step:
    """Makes one training step and undoes it.

    The model is compiled for it, without metrics: what is built is built for the flags of this moment, and
    these may still change before the first fit. The step is eager, but for JAX, where that takes minutes.

    Args:
        model: A compiled model.
        x: A few inputs, as ``fit`` takes them.
        y: Their targets.
        weights: Their sample weights, or ``None``.
        prepare: What ``fit`` makes of `x` before the model gets it.
    """
    eager = keras.backend.backend() != "jax"
    with restored(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer, loss = model.optimizer, model.loss
        drop_metrics(model)
        try:
            model.compile(optimizer if optimizer.built else _copy(optimizer), loss, run_eagerly=eager)
        except Exception as error:
            raise UntriedError(f"the model cannot be compiled a second time ({error})") from None
        # Where a warm-up begins and where a schedule ends, the rate is 0 and nothing moves. Of steps that
        # accumulate gradients only the last one moves anything.
        optimizer = optimizer_of(model)
        steps = optimizer.gradient_accumulation_steps or 1
        iterations(optimizer).assign((highest_rate(optimizer)[1] + 1) * steps - 1)
        before = values(model.weights)
        n = len(tree.flatten(x)[0])
        history = model.fit(x, y, sample_weight=weights, batch_size=n, shuffle=False, verbose=0).history
        step = Step(moved_since(before), change(before), *map(float, history.get("loss", [])[:1]))
        with contextlib.suppress(Exception):  # a model may compute its loss in its own way
            loss = model.compute_loss(x=x, y=y, y_pred=model(prepare(x), training=True))
            step.after = float(ops.convert_to_numpy(loss))
        return step


def change(before: list[tuple[keras.Variable, NDArray]]) -> float:
    """Returns the median over the kernels of the change since `values` saw them, as a share of the kernel."""
    changes = [
        np.linalg.norm(ops.convert_to_numpy(v) - old) / norm
        for v, old in before
        if old.ndim > 1 and v.trainable and (norm := np.linalg.norm(old)) > 0
    ]
    changes = [c for c in changes if c > 0]
    return float(np.median(changes)) if changes else 0.0


def _copy(optimizer: keras.Optimizer) -> keras.Optimizer:
    try:
        return optimizer.from_config(optimizer.get_config())
    except (TypeError, ValueError, NotImplementedError):  # a schedule or an optimizer of one's own
        return copy.deepcopy(optimizer)


@contextlib.contextmanager
def restored(model: keras.Model, whole: bool = True) -> Iterator[None]:
    """Puts back what a step or a call changes, past ``setattr``, which would track what is put back.

    Args:
        model: A model.
        whole: Whether a step may be made; a call changes states of random numbers and statistics alone.
    """
    attributes = dict(vars(model))
    if whole:
        optimizer = [] if getattr(model, "optimizer", None) is None else model.optimizer.variables
        before = values([*model.variables, *model.metrics_variables, *optimizer])
    else:
        before = values([v for v in model.variables if not v.trainable and len(v.shape) < 2])
    try:
        yield
    finally:
        vars(model).clear()
        vars(model).update(attributes)
        for variable, value in before:
            variable.assign(value)


class Tap:
    """Stands in for a model's compiled function and shows the batches that it gets, before it gets them.

    It takes itself away after some calls, or where it meets an iterator of another kind.
    """

    def __init__(self, model: keras.Model, name: str, see: Callable[[list[Any]], bool]) -> None:
        self.model, self.name, self.see = model, name, see
        self.function = getattr(model, name)
        vars(model)[name] = self  # past setattr, which would track it

    def __call__(self, *arguments: Any) -> Any:
        *state, iterator = arguments
        batches, iterator = _peek(iterator, self.model.steps_per_execution)
        if batches is None or not self.see(batches):
            self.remove()
        return self.function(*state, iterator)

    def remove(self) -> None:
        """Puts the function back."""
        if vars(self.model).get(self.name) is self:
            vars(self.model)[self.name] = self.function


def _peek(iterator: Any, steps: int) -> tuple[list[Any] | None, Any]:
    """Returns the next batches, and an iterator that gives them once more."""
    if isinstance(iterator, list | tuple):  # PyTorch, and JAX before Keras 3.9: the batches themselves
        return list(iterator), iterator
    if not hasattr(iterator, "element_spec"):
        batches = list(itertools.islice(iterator, steps))
        return batches, itertools.chain(batches, iterator)
    import tensorflow as tf

    if not isinstance(iterator, tf.data.Iterator):  # of a strategy for several devices
        return None, iterator
    batches, spec = list(itertools.islice(iterator, steps)), iterator.element_spec
    try:
        parts = [tf.data.Dataset.from_tensor_slices(b).batch(len(tree.flatten(b)[0])) for b in batches]
        again = functools.reduce(tf.data.Dataset.concatenate, parts)
    except Exception:  # there is no batch, or it has no rows, or it is sparse
        again = None
    if again is None or again.element_spec != spec:  # it must be of the same kind, or fit traces once more
        again = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)  # slower
    return batches, iter(again)
