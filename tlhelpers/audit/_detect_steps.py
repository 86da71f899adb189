"""Detectors of training: its rate, what steps do to the loss, training against inference, a failing step."""

import math
from collections.abc import Iterator

import numpy as np

from tlhelpers.audit._facts import Facts
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


def large_rate(facts: Facts) -> Iterator[Finding | str]:
    """learning rate"""
    pretrained = facts.told or (facts.base is not None and facts.base.family is not None)
    if facts.intent != "fine-tuned" or not pretrained or not facts.model.compiled:
        return
    optimizer = optimizer_of(facts.model)
    kind, rate = type(optimizer).__name__, effective_rate(optimizer)
    limit = RATE_LIMITS.get(kind)
    if limit is None:
        if facts.step is None:
            yield f"the steps of {kind} have to be measured, and none was made"
        elif facts.step.change > CHANGE_LIMIT:
            share = facts.step.change
            what = f"One step of {kind} changes the kernels of a pretrained base by {share:.0%}"
            yield fault("rate-large", f"{what}.", share, optimizer=facts.optimizer, limit="...")
    elif rate > limit * (1 + 1e-6):  # rates are float32
        momentum = ", momentum counted in," if getattr(optimizer, "momentum", 0) else ""
        what = f"{kind} trains a pretrained base at a rate of up to {rate:g}{momentum}; its limit: {limit:g}."
        yield fault("rate-large", what, rate, optimizer=facts.optimizer, limit=f"{limit / 30:.0e}")


def step_destroys(facts: Facts) -> Iterator[Finding | str]:
    """loss of a step"""
    step, guess = facts.step, _guess(facts)
    if step is None or math.isnan(step.before) or guess is None:
        yield "no step was made whose loss is a cross-entropy"
    elif not math.isnan(step.after) and step.after > max(WORSE * guess, 2 * step.before):
        what = f"One step raises the loss of its own images from {step.before:.3g} to {step.after:.3g}"
        yield fault("step-destroys", f"{what}; guessing costs {guess:.3g}.", step.after)
    elif not np.isfinite(step.before):
        yield fault("step-destroys", f"The loss of the first step is {step.before}.", step.before)


def loss_explodes(facts: Facts) -> Iterator[Finding]:
    """first losses"""
    guess = _guess(facts)
    if len(facts.losses) >= 3 and guess is not None:
        worst = max(facts.losses, key=lambda loss: loss if np.isfinite(loss) else math.inf)
        first = facts.losses[0]
        if not np.isfinite(worst) or worst > max(WORSE * guess, 2 * first):
            what = f"In {len(facts.losses)} steps the mean loss rose from {first:.3g} to {worst:.3g}"
            yield fault("loss-explodes", f"{what}; guessing costs {guess:.3g}.", worst)


def _guess(facts: Facts) -> float | None:
    """Returns the loss of a model that knows nothing, where the loss is a cross-entropy."""
    head = facts.heads[0] if len(facts.heads) == 1 else None
    if head is None or head.wants is None:
        return None
    return math.log(max(2, head.n) if head.kind != "binary" else 2)


def modes_differ(facts: Facts) -> Iterator[Finding]:
    """training against inference"""
    head = facts.heads[0] if len(facts.heads) == 1 else None
    y = None if head is None else head.classes.get("training")
    known = head is not None and head.end in ("softmax", "linear", "sigmoid")
    if head is None or y is None or facts.accuracy is None or not known:
        return
    outputs = facts.seen.outputs[next(iter(facts.seen.outputs))]
    border = 0.0 if head.end == "linear" else 0.5
    given = outputs.argmax(1) if head.n > 1 else (outputs[:, 0] > border).astype(int)
    n = min(len(given), len(y))
    after = float((given[:n] == y[:n]).mean())
    if n >= 16 and facts.accuracy - after > MODES:
        what = f"In the epoch {facts.accuracy:.0%} of the images were right; afterwards, in inference mode, "
        yield fault("modes-differ", f"{what}{after:.0%} of {n} of the same images.", after)


def failing_step(facts: Facts) -> Iterator[Finding | str]:
    """a training step"""
    explained = any(
        f.code.startswith(("stale", "head", "labels", "outputs", "images")) for f in facts.findings
    )
    if facts.step_error and not explained:
        yield fault("step-fails", f"A training step stops with {facts.step_error[:300]}")
    elif facts.step is None:
        yield "none was made: it takes a compiled model, images and labels, and flags as compiled"
