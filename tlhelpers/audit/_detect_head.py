"""Detectors of the heads: whether outputs, losses, metrics and labels fit each other."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tlhelpers.audit._facts import Facts
from tlhelpers.audit._heads import Head, is_one_hot, labels_in
from tlhelpers.audit._results import Finding, fault

PROBABILITIES = ("softmax", "sigmoid")
MANY = 5  # rows for each output from which on a class that never occurs is no accident


def head_logits(facts: Facts) -> Iterator[Finding | str]:
    """logits and probabilities"""
    for head in facts.heads:
        if head.loss is None or head.wants is None or head.end is None:
            if facts.model.compiled:
                yield f"{head.where.lower()}: the loss takes no logits or probabilities, or cannot be tried"
        elif (head.end == "linear") if head.wants == "probabilities" else (head.end in PROBABILITIES):
            ends = "logits" if head.end == "linear" else f"a {head.end}"
            yield fault("head-logits", f"{head.where} ends in {ends}, but the loss wants {head.wants}.")


def head_loss(facts: Facts) -> Iterator[Finding]:
    """softmax and sigmoid"""
    for head in facts.heads:
        over = f"{head.end} over {head.n} outputs"
        if head.end == "ones" and head.n == 1 and head.loss is not None:
            yield fault("head-loss", f"{head.where} gives 1 for every image: a softmax over one output.", 1)
        elif (head.end == "softmax" and head.kind == "binary") or (
            head.end == "sigmoid" and head.kind in ("categorical", "sparse categorical")
        ):
            yield fault("head-loss", f"{head.where}: {over} does not fit the {head.kind} cross-entropy.")


def head_activation(facts: Facts) -> Iterator[Finding]:
    """last activations"""
    for head in facts.heads:
        if head.wants and head.end not in (None, "linear", "ones", *PROBABILITIES):
            what = f"{head.where} ends in a {head.end}, and the loss wants {head.wants}."
            yield fault("head-activation", what, activation=head.end)
        units = getattr(head.below, "units", None)
        activation = getattr(getattr(head.below, "activation", None), "__name__", "")
        if head.wants and units and units <= head.n and head.n > 1 and activation == "relu":
            what = f"{head.below.name} has {units} relu units before {head.n} outputs"  # type: ignore[union-attr]
            yield fault("head-narrow", f"{what}.", units)


def metric_threshold(facts: Facts) -> Iterator[Finding]:
    """metrics"""
    given: Any = None
    with contextlib.suppress(Exception):  # a loss or a metric of one's own may have no configuration
        given = (facts.model.get_compile_config() or {}).get("metrics")
    halves = dict(_metrics(given))
    for head in facts.heads:
        by_half = {"accuracy", "acc"} if head.n == 1 else set()
        counted = [name for name in halves if name in by_half | {"binaryaccuracy"} and halves[name] > 0]
        if counted and head.end == "linear" and head.wants == "logits":
            yield fault("metric-threshold", f"{head.where} gives logits, and {counted[0]} cuts at 0.5.", 0.5)


def _metrics(given: Any) -> Iterator[tuple[str, float]]:
    """Yields the metrics of a compiled model, each with the threshold that it has or would have."""
    if isinstance(given, str):
        yield given.replace("_", "").lower(), 0.5
    elif isinstance(given, dict) and "class_name" in given:
        yield given["class_name"].lower(), (given.get("config") or {}).get("threshold", 0.5)
    elif isinstance(given, dict | list | tuple):
        for inner in given.values() if isinstance(given, dict) else given:
            yield from _metrics(inner)


def labels_loss(facts: Facts) -> Iterator[Finding]:
    """form of the labels"""
    for head in facts.heads:
        if head.n > 1 and head.kind in ("categorical", "sparse categorical"):
            wanted = head.kind == "categorical"
            wrong = [name for name, y in head.labels.items() if is_one_hot(y) != wanted]
            if wrong:
                kind = "integers" if wanted else "one-hot"
                what = f"The {' and '.join(wrong)} labels are {kind}, the loss is {head.kind} cross-entropy."
                yield fault("labels-loss", what)


def labels_several(facts: Facts) -> Iterator[Finding]:
    """several labels a row"""
    for head in facts.heads:
        if head.end == "softmax" or head.kind == "categorical":
            for name, y in head.labels.items():
                sums = y.sum(1) if is_one_hot(y) and y.dtype.kind in "iubf" and y.min() >= 0 else np.ones(1)
                share = float((sums > 1.01).mean())
                if share > 0:
                    what = f"{share:.0%} of the {name} rows have several labels"
                    yield fault("labels-several", f"{what}; the outputs exclude each other.", share)
                    break


def labels_broken(facts: Facts) -> Iterator[Finding]:
    """NaN in labels"""
    for name, sample in facts.sets.items():
        n = sum(int((~np.isfinite(y)).sum()) for y in labels_in(sample) if y.dtype.kind == "f")
        if n:
            yield fault("labels-broken", f"{n} {name} labels are NaN or infinite.", n)


def outputs_and_labels(facts: Facts) -> Iterator[Finding | str]:
    """number of outputs"""
    for head in facts.heads:
        labels = head.classes
        if head.kind is None and head.wants is None:
            continue
        if not labels or (head.n > 1 and head.kind == "binary"):
            none = f"{head.where.lower()} has no labels that name one class"
            yield "several labels a row" if labels else none
            continue
        yield from _outputs(head, np.concatenate(list(labels.values())), facts)


def _outputs(head: Head, values: np.ndarray, facts: Facts) -> Iterator[Finding]:
    n = 2 if head.n == 1 else head.n  # one number for two classes
    columns = [y.shape[1] for y in head.labels.values() if is_one_hot(y)]
    declared = facts.n_classes if len(facts.heads) == 1 else None
    n_classes = max([len(np.unique(values)), declared or 0, *columns])
    rows = sum(len(y) for name, y in head.classes.items() if facts.sets[name].whole)
    if n_classes > n:
        what = f"There are {n_classes} classes, but outputs for {n} only."
        yield fault("outputs-few", what, n_classes, classes=n_classes)
    elif values.min() < 0 or values.max() >= n:
        what = f"Labels go from {values.min()} to {values.max()}, the outputs are for 0 to {n - 1}."
        yield fault("labels-range", what, float(values.max()))
    elif values.max() + 1 < n and not columns and not declared and (rows >= MANY * n or n >= 1000):
        what = f"There are {n} outputs, and no label is larger than {values.max()}."
        yield fault("outputs-many", what, n, classes=values.max() + 1)
    elif declared and declared < n:
        what = f"There are {n} outputs for {declared} classes."
        yield fault("outputs-many", what, n, classes=declared)


def classes_missing(facts: Facts) -> Iterator[Finding]:
    """classes of each set"""
    for head in facts.heads:
        classes = head.classes if head.kind != "binary" or head.n == 1 else {}
        known = set(np.concatenate([y.ravel() for y in classes.values()]).tolist()) if classes else set()
        for name, y in classes.items():
            missing = known - set(y.tolist())
            whole = facts.sets[name].whole
            if missing and whole and len(y) >= (MANY if len(known) - len(missing) > 1 else 1.5) * len(known):
                what = f"The {name} set has images of {len(known) - len(missing)} of {len(known)} classes"
                yield fault("classes-missing", f"{what}.", len(missing))


def batches_sorted(facts: Facts) -> Iterator[Finding]:
    """order of batches"""
    sample = facts.sets.get("training")
    if sample is None or len(sample.sizes) < 3:
        return
    for head in facts.heads:
        y = head.classes.get("training")
        if y is not None and head.n * len(y) > 1 and max(sample.sizes) > 3:
            cut = np.split(y, np.cumsum(sample.sizes)[:-1])
            single = sum(len(np.unique(part)) == 1 for part in cut)
            if single >= 0.8 * len(cut) and (len(np.unique(y)) > 1 or not sample.whole):
                what = f"{single} of the first {len(cut)} batches of training hold one class each"
                yield fault("batches-sorted", f"{what}.", single)
