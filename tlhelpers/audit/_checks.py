"""One audit: the facts are gathered, a step is tried, every detector looks, and whatever fails is said."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tlhelpers import data
from tlhelpers.audit import _detect_base as base_
from tlhelpers.audit import _detect_head as head_
from tlhelpers.audit import _detect_images as images_
from tlhelpers.audit import _detect_sets as sets_
from tlhelpers.audit import _detect_steps as steps_
from tlhelpers.audit._draw import NotReadError, Sample, draw, mapped
from tlhelpers.audit._facts import Facts, input_shapes, intent_by_flags, parts
from tlhelpers.audit._keras import untested
from tlhelpers.audit._model import find_base
from tlhelpers.audit._results import Finding, Intent, Report
from tlhelpers.audit._training import Step, UntriedError, make_step, restored

STEP_IMAGES = 4  # in the one training step of `check`

# Every detector, in the order of the report: a function from the facts to its findings. A text that it yields
# says what it could not look at. Its docstring is what the report says that was looked at. The last one looks
# at what the others found.
Detector = Callable[[Facts], Iterator[Finding | str]]
DETECTORS: tuple[Detector, ...] = (
    base_.stale_compile,
    base_.base_moves,
    base_.statistics_move,
    base_.base_still,
    base_.nothing_trains,
    base_.base_random,
    base_.broken,
    base_.lora_frozen,
    base_.regulariser_lost,
    images_.preprocessing,
    images_.augmentation_scale,
    images_.images_size,
    images_.pixels,
    sets_.shared_images,
    sets_.order_changes,
    head_.classes_missing,
    head_.batches_sorted,
    head_.head_logits,
    head_.head_loss,
    head_.head_activation,
    head_.metric_threshold,
    head_.labels_loss,
    head_.labels_several,
    head_.labels_broken,
    head_.outputs_and_labels,
    sets_.labels_meaningless,
    steps_.large_rate,
    steps_.step_destroys,
    steps_.loss_explodes,
    steps_.modes_differ,
    steps_.failing_step,
)


def audit(
    model: keras.Model,
    given: Sequence[Any],
    intent: Intent | None,
    *,
    seen: Mapping[str, Sample] | None = None,
    step: Step | None = None,
    losses: Sequence[float] = (),
    accuracy: float | None = None,
) -> Report:
    """Makes one audit.

    Args:
        model: A model.
        given: Training, validation and test data, each as ``fit`` takes it, or ``None``.
        intent: What the base is meant to be, or ``None``.
        seen: What was seen inside ``fit``, where no step is tried; ``None`` outside.
        step: What was seen to move inside ``fit``.
        losses: The mean losses of the first steps inside ``fit``.
        accuracy: The accuracy of the last epoch inside ``fit``.
    """
    check_intent(intent)
    unchecked = [note] if (note := untested()) else []
    sets, n_classes = _sets(model, given, unchecked)
    inside_fit = seen is not None and "training" in seen and "training" not in sets
    sets = {
        name: both[name]
        for name in ("training", "validation", "test")
        if name in (both := {**(seen or {}), **sets})
    }
    _build(model, sets)
    if not model.built:
        unchecked.append("anything: the model has no weights yet. Begin it with keras.Input, or give images")
        return Report(model.name, None, (), (), (), tuple(unchecked))
    base = find_base(model)
    meant = None if base is None else intent or intent_by_flags(base)
    facts = Facts(model, base, meant, intent is not None, sets, n_classes, inside_fit, step)
    facts.losses, facts.accuracy = list(losses), accuracy
    with restored(model):
        if seen is None:
            _try_step(facts, unchecked)
        looked_at = _look(facts, unchecked)
    return Report(model.name, meant, tuple(parts(facts)), tuple(facts.findings), looked_at, tuple(unchecked))


def check_intent(intent: Any) -> None:
    """Raises ValueError for what is no `Intent`."""
    if intent not in (None, "frozen", "fine-tuned", "scratch"):
        raise ValueError(f"base must be 'frozen', 'fine-tuned', 'scratch' or None, not {intent!r}.")


def _look(facts: Facts, unchecked: list[str]) -> tuple[str, ...]:
    looked_at = []
    for detector in DETECTORS:
        topic = (detector.__doc__ or "").strip()
        missed = []
        try:
            for found in detector(facts):
                if isinstance(found, Finding):
                    facts.findings.append(found)
                else:
                    missed.append(f"{topic}: {found}")
        except Exception as error:  # an audit must not fail where a training would run
            missed.append(
                f"{topic}: this could not be looked at ({type(error).__name__}: {str(error)[:200]})"
            )
        unchecked += dict.fromkeys(missed)
        looked_at += [] if missed else [topic]
    return tuple(looked_at)


def _sets(
    model: keras.Model, given: Sequence[Any], unchecked: list[str]
) -> tuple[dict[str, Sample], int | None]:
    train, val, test = given
    n_classes, whole = None, isinstance(train, data.Dataset)
    if whole:
        ds, n_classes = train, train.n_classes
        train = (ds.x_train, ds.y_train)
        val = (ds.x_val, ds.y_val) if val is None else val
        test = (ds.x_test, ds.y_test) if test is None else test
    sets = {}
    for name, part in (("training", train), ("validation", val), ("test", test)):
        if part is None:
            continue
        try:
            sets[name] = draw(part, len(input_shapes(model)), twice=name != "training")
        except NotReadError as reason:
            unchecked.append(f"the {name} set: {reason}")
        except Exception as error:  # of a data set's own code
            unchecked.append(
                f"the {name} set: reading it stops with {type(error).__name__}: {str(error)[:200]}"
            )
    for sample in sets.values():
        sample.resizes = whole  # whoever trains on a `data.Dataset` resizes its images
    return sets, n_classes


def _build(model: keras.Model, sets: Mapping[str, Sample]) -> None:
    """Gives a model its weights, as the first step of ``fit`` does."""
    if not model.built and sets:
        with contextlib.suppress(Exception):
            x = next(iter(sets.values())).rows(1)[0]
            model(mapped(ops.convert_to_tensor, x))


def _try_step(facts: Facts, unchecked: list[str]) -> None:
    """Adds what a step with the first training rows does, or how it fails, where one can be made."""
    sample = facts.sets.get("training")
    if sample is None or sample.y is None or not facts.model.compiled or facts.stale:
        return
    x, y, weights = sample.rows(STEP_IMAGES)
    try:
        facts.step = make_step(facts.model, facts.fitting(x), y, weights, facts.prepared)
    except UntriedError as error:
        unchecked.append(f"a training step: {error}")
    except Exception as error:  # whatever fit may raise: a detector tells
        facts.step_error = f"{type(error).__name__}: {str(error).strip()}"
