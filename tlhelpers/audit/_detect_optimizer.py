"""Detectors of the optimizer: its learning rate, and a training step that stops with an error."""

from collections.abc import Iterator

import numpy as np

from tlhelpers.audit._facts import Facts
from tlhelpers.audit._results import Finding, fault
from tlhelpers.audit._training import highest_rate, optimizer_of

# The highest learning rate that passes while a pretrained base trains. Adam and its kin move each weight by
# about the rate in each step, whatever the gradient, and most kernels are of the order of 0.1. Chapter 3
# measures that 1e-3 with a warm-up improves Lite0; its exercise with 1e-2 is about the damage. The limit lies
# between the two. SGD's step is the rate times a gradient that is small in a pretrained network.
# Optimizers that are not here scale their steps in other ways and are not judged.
RATE_LIMITS = dict.fromkeys(("Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Lion"), 3e-3) | {"SGD": 1e-1}


def large_rate(facts: Facts) -> Iterator[Finding]:
    """The learning rate is too large for a pretrained base that trains."""
    pretrained = facts.told or (facts.base is not None and facts.base.family is not None)
    if facts.intent == "fine-tuned" and pretrained and facts.model.compiled:
        optimizer = optimizer_of(facts.model)
        kind, rate = type(optimizer).__name__, highest_rate(optimizer)[0]
        limit = RATE_LIMITS.get(kind, np.inf)
        if rate > limit * (1 + 1e-6):  # rates are float32
            what = f"{kind} trains a pretrained base at a rate of up to {rate:g}; the limit is {limit:g}"
            yield fault(
                "rate-large",
                f"{what}.",
                why="Large steps erase the pretrained features before the head can use them.",
                mend="Train the head first on the frozen base, then both with a smaller rate and a warm-up.",
                severity="warning",
                link="notebooks/03_model_based",
            )


def failing_step(facts: Facts) -> Iterator[Finding]:
    """The training step stopped with an error that no other finding explains."""
    explained = any(f.code.startswith(("stale", "head", "labels", "outputs")) for f in facts.findings)
    if facts.step_error and not explained:
        yield fault(
            "step-fails",
            f"A training step stops with {facts.step_error[:300]}",
            why="fit would stop in the same way.",
            mend="Read the message. 'Unknown variable' means: compile with a new optimizer.",
        )
