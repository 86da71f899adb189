"""Detectors of training: its rate, what steps do to the loss, training against inference, a failing step."""

import math
import re
from collections.abc import Iterator

import numpy as np

from tlhelpers.audit._facts import Facts, needs
from tlhelpers.audit._heads import Head
from tlhelpers.audit._results import Finding, fault
from tlhelpers.audit._training import effective_rate, optimizer_of

# The highest learning rate that passes while a pretrained base trains. Adam and its kin move each weight by
# about the rate in each step, whatever the gradient, and most kernels are of the order of 0.1. Chapter 3
# measures that 1e-3 with a warm-up improves Lite0; its exercise with 1e-2 is about the damage. The limit lies
# between the two. SGD's step is the rate times a gradient that is small in a pretrained network.
RATE_LIMITS = dict.fromkeys(("Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Lion"), 3e-3) | {"SGD": 1e-1}
# Of others the step is measured: the share by which it changes a kernel.
CHANGE_LIMIT = 0.1
WORSE = 3.0  # times log(classes), from which on a loss is that of a model that is sure and wrong
MODES = 0.25  # accuracy in the epoch above that of the same images afterwards, that is no accident


@needs("base", "compiled")
def large_rate(facts: Facts) -> Iterator[Finding | str]:
    """learning rate"""
    if facts.intent != "fine-tuned" or not (facts.told or getattr(facts.base, "family", None)):
        yield "no base that is known to be pretrained trains, and a head takes any rate"
        return
    optimizer = optimizer_of(facts.model)
    kind, rate = type(optimizer).__name__, effective_rate(optimizer)
    limit = RATE_LIMITS.get(kind)
    if limit is None:
        if facts.step is None or facts.step.change is None:
            yield f"the steps of {kind} have to be measured, and none was"
        elif (share := facts.step.change) > CHANGE_LIMIT:
            what = f"One step of {kind} changes the kernels of a pretrained base by {share:.0%}"
            yield fault("rate-large", f"{what}.", share, optimizer=facts.optimizer, limit="...")
    elif rate > limit * (1 + 1e-6):  # rates are float32
        momentum = ", momentum counted in," if getattr(optimizer, "momentum", 0) else ""
        what = f"{kind} trains a pretrained base at a rate of up to {rate:g}{momentum}; its limit: {limit:g}."
        yield fault("rate-large", what, rate, optimizer=facts.optimizer, limit=f"{limit / 30:.0e}")


def step_destroys(facts: Facts) -> Iterator[Finding | str]:
    """loss of a step"""
    step, guess = facts.step, _guess(facts)
    if step is None or step.before is None:
        yield "no step was made, or none whose loss is known"
    elif not np.isfinite(step.before):
        yield fault("step-destroys", f"The loss of the first step is {step.before}.", step.before)
    elif guess is None:
        yield "the loss is no cross-entropy"
    elif step.after is not None and not step.after <= max(WORSE * guess, 2 * step.before):
        what = f"One step raises the loss of its own images from {step.before:.3g} to {step.after:.3g}"
        yield fault("step-destroys", f"{what}; guessing costs {guess:.3g}.", step.after)


@needs("losses")
def loss_explodes(facts: Facts) -> Iterator[Finding | str]:
    """first losses"""
    guess = _guess(facts)
    worst = max(facts.losses, key=lambda loss: loss if np.isfinite(loss) else math.inf)
    if not np.isfinite(worst) or (guess is not None and worst > max(WORSE * guess, 2 * facts.losses[0])):
        costs = "" if guess is None else f"; guessing costs {guess:.3g}"
        rose = f"the mean loss rose from {facts.losses[0]:.3g} to {worst:.3g}{costs}"
        yield fault("loss-explodes", f"In {len(facts.losses)} steps {rose}.", worst)
    elif guess is None:
        yield "the loss is no cross-entropy"


def _guess(facts: Facts) -> float | None:
    """Returns the loss of a model that knows nothing, where the loss is a cross-entropy."""
    head = facts.heads[0] if len(facts.heads) == 1 else None
    if head is None or head.wants is None:
        return None
    return math.log(max(2, head.n) if head.kind != "binary" else 2)


@needs("end", "labels")
def modes_differ(facts: Facts) -> Iterator[Finding | str]:
    """training against inference"""
    for head, outputs in zip(facts.heads, facts.seen.outputs.values(), strict=True):
        y, logged = head.classes.get("training"), _logged(facts, head)
        n = 0 if y is None else min(len(outputs), len(y))
        if y is None or n < 16 or logged is None or head.end not in ("softmax", "linear", "sigmoid"):
            yield f"{head.where.lower()}: it takes an accuracy that was logged, and 16 rows of one class each"
            continue
        given = outputs.argmax(1) if head.n > 1 else outputs[:, 0] > (0.0 if head.end == "linear" else 0.5)
        after = float((given[:n] == y[:n]).mean())
        if logged - after > MODES:
            what = f"{head.where}: in the epoch {logged:.0%} of the images were right; then, in inference"
            yield fault("modes-differ", f"{what} mode, {after:.0%} of {n} of the same images.", after)


def _logged(facts: Facts, head: Head) -> float | None:
    """Returns the accuracy of an output in the last epoch, whatever its name."""
    metrics = [m for metric in facts.model.metrics for m in getattr(metric, "metrics", [metric])]
    kinds = {"accuracy": "accuracy", "acc": "accuracy"} | {m.name: type(m).__name__.lower() for m in metrics}
    wrong = "topk|binary" if head.n > 1 else "topk"
    names = [n for n, kind in kinds.items() if kind.endswith("accuracy") and not re.search(wrong, kind)]
    keys = (f"{head.name}_{name}" if head.name else name for name in names)
    return next((float(facts.logs[key]) for key in keys if key in facts.logs), None)


def failing_step(facts: Facts) -> Iterator[Finding | str]:
    """a training step"""
    kinds = ("stale", "head", "labels", "outputs", "images")
    explained = any(f.code.startswith(kinds) for f in facts.findings)
    if facts.step_error and not explained:
        yield fault("step-fails", f"A training step stops with {facts.step_error[:300]}")
    elif facts.step is None:
        yield "none was made: it takes a compiled model, images and labels, and flags as compiled"
