"""One audit: the facts are gathered, a step is tried, every detector looks, and whatever fails is said."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tlhelpers import data
from tlhelpers.audit import _detect_base, _detect_head, _detect_images, _detect_sets, _detect_steps
from tlhelpers.audit._draw import NotReadError, Sample, draw, mapped, tensor
from tlhelpers.audit._facts import Detector, Facts, input_shapes, intent_by_flags, missing, parts
from tlhelpers.audit._keras import untested
from tlhelpers.audit._model import find_base
from tlhelpers.audit._results import Finding, Intent, Report
from tlhelpers.audit._training import UntriedError, make_step, restored

STEP_IMAGES = 4  # in the one training step of `check`

# Every detector, in the order of the report: the public generators of these modules, from the facts to
# findings. A text that one yields says what it could not look at; its docstring is what the report says it
# looked at. The last one, the step that fails, looks at what the others found.
DETECTORS: tuple[Detector, ...] = tuple(
    function
    for module in (_detect_base, _detect_images, _detect_sets, _detect_head, _detect_steps)
    for name, function in vars(module).items()
    if inspect.isgeneratorfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
)


def audit(model: keras.Model, given: Sequence[Any], intent: Intent | None, **inside: Any) -> Report:
    """Makes one audit.

    Args:
        model: A model.
        given: Training, validation and test data, each as ``fit`` takes it, or ``None``.
        intent: What the base is meant to be, or ``None``.
        **inside: What was seen inside ``fit``, as `gather` takes it.
    """
    check_intent(intent)
    unchecked = [note] if (note := untested()) else []
    facts = gather(model, given, intent, unchecked, **inside)
    if facts is None:
        unchecked.append("anything: the model has no weights yet. Begin it with keras.Input, or give images")
        return Report(model.name, None, (), (), (), tuple(unchecked))
    with restored(model, whole="seen" not in inside):
        if "seen" not in inside:
            _try_step(facts, unchecked)
        looked_at = look(facts, unchecked)
    told = (tuple(unchecked), facts.told)
    return Report(model.name, facts.intent, tuple(parts(facts)), tuple(facts.findings), looked_at, *told)


def gather(
    model: keras.Model,
    given: Sequence[Any],
    intent: Intent | None,
    unchecked: list[str],
    seen: Mapping[str, Sample] | None = None,
    **inside: Any,
) -> Facts | None:
    """Returns the facts about a model; ``None`` if it has no weights and cannot get any.

    Args:
        model: A model.
        given: Training, validation and test data, or ``None``.
        intent: What the base is meant to be, or ``None``.
        unchecked: What cannot be read is added to it.
        seen: The rows that were seen inside ``fit``, by the name of the set.
        **inside: Other fields of `Facts`.
    """
    sets, n_classes = _sets(model, given, unchecked)
    inside_fit = bool(seen) and "training" not in sets
    both = {**(seen or {}), **sets}
    sets = {name: both[name] for name in ("training", "validation", "test") if name in both}
    _build(model, sets)
    if not model.built:
        return None
    # What is new is known before the first step alone.
    base = inside.setdefault("memory", {}).setdefault("base", find_base(model))
    if base is not None and base.others:
        names = ", ".join(network.name for network in base.others)
        unchecked.append(f"{names}: beside the base, which is the largest network")
    meant = None if base is None else intent or intent_by_flags(base)
    return Facts(model, base, meant, intent is not None, sets, n_classes, inside_fit, **inside)


def check_intent(intent: Any) -> None:
    """Raises ValueError for what is no `Intent`."""
    if intent not in (None, "frozen", "fine-tuned", "scratch"):
        raise ValueError(f"base must be 'frozen', 'fine-tuned', 'scratch' or None, not {intent!r}.")


def look(facts: Facts, unchecked: list[str]) -> tuple[str, ...]:
    """Lets every detector look that has what it needs; returns what was looked at."""
    looked_at: list[str] = []
    missed: dict[str, list[str]] = {}
    for detector in DETECTORS:
        topic = (detector.__doc__ or "").strip()
        reasons = []
        try:
            lacks = missing(detector, facts)
            for found in detector(facts) if lacks is None else [lacks]:
                if isinstance(found, Finding):
                    facts.findings.append(found)
                else:
                    reasons.append(found)
        except Exception as error:  # an audit must not fail where a training would run
            reasons.append(f"this could not be looked at ({type(error).__name__}: {str(error)[:200]})")
        for reason in dict.fromkeys(reasons):
            missed.setdefault(reason, []).append(topic)
        looked_at += [] if reasons else [topic]
    unchecked += [f"{', '.join(topics)}: {reason}" for reason, topics in missed.items()]
    return tuple(looked_at)


def _sets(model: keras.Model, given: Sequence[Any], unchecked: list[str]) -> tuple[dict[str, Sample], Any]:
    train, val, test = given
    whole = isinstance(train, data.Dataset)
    names = getattr(train, "class_names", None)  # a folder that Keras reads has them, too
    n_classes = getattr(train, "num_classes", None) if names is None else len(names)
    if whole:
        ds, train = train, (train.x_train, train.y_train)
        val = (ds.x_val, ds.y_val) if val is None else val
        test = (ds.x_test, ds.y_test) if test is None else test
    sets = {}
    for name, part in (("training", train), ("validation", val), ("test", test)):
        if part is None:
            continue
        try:
            sets[name] = draw(part, len(input_shapes(model)), twice=name != "training")
            if sets[name].spent:
                unchecked.append(f"the {name} set: it can be read only once; make it anew before fit")
        except Exception as error:  # of a data set's own code
            known, kind = isinstance(error, NotReadError), type(error).__name__
            reason = str(error) if known else f"reading it stops with {kind}: {str(error)[:200]}"
            unchecked.append(f"the {name} set: {reason}")
    for sample in sets.values():
        sample.resizes = whole  # whoever trains on a `data.Dataset` resizes its images
    return sets, n_classes


def _build(model: keras.Model, sets: Mapping[str, Sample]) -> None:
    """Gives a model its weights, as the first step of ``fit`` does."""
    if not model.built and sets:
        with contextlib.suppress(Exception):
            model(mapped(tensor, next(iter(sets.values())).rows(1)[0]))


def _try_step(facts: Facts, unchecked: list[str]) -> None:
    """Adds what a step with the first training rows does, or how it fails, where one can be made."""
    sample = facts.sets.get("training")
    if sample is None or sample.y is None or not facts.model.compiled or facts.stale:
        return
    counted = sample.weights if isinstance(sample.weights, np.ndarray) else np.ones(len(sample))
    places = np.flatnonzero(counted.reshape(len(sample), -1).sum(axis=1))[:STEP_IMAGES]
    x, y, weights = sample.rows(places if len(places) else STEP_IMAGES)
    x = mapped(lambda a: tensor(a) if a.dtype.kind in "OSU" else a, facts.fitting(x))
    try:
        facts.step = make_step(facts.model, x, y, weights, facts.prepared)
    except UntriedError as error:
        unchecked.append(f"a training step: {error}")
    except Exception as error:  # whatever fit may raise: a detector tells
        facts.step_error = f"{type(error).__name__}: {str(error).strip()}"
