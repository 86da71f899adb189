"""Detectors of the heads: whether outputs, losses, metrics and labels fit each other."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tlhelpers.audit._facts import Facts, needs
from tlhelpers.audit._heads import Head, is_one_hot, labels_in, of_output
from tlhelpers.audit._model import as_made
from tlhelpers.audit._results import Finding, fault

PROBABILITIES = ("softmax", "sigmoid")
CUT = ("relu", "relu6", "sigmoid")  # what takes half of a logit away from the activation above
NARROW = 31  # relu units before as many classes or more, that are a bottleneck
# Metrics that cut at 0.5 unless told otherwise.
OTHER_METRICS: dict[str, Any] = {
    "why": "A metric counts by its own rule, whatever the loss does; for logits the border is 0, not 0.5.",
    "mend": "For logits: keras.metrics.BinaryAccuracy(threshold=0.0), Precision(thresholds=0.0), "
    "AUC(from_logits=True). Else metrics=['accuracy'], which finds its form by outputs and labels.",
}
AT_HALF = {"binaryaccuracy", "precision", "recall", "truepositives", "falsepositives", "binaryiou"}
RARE = 400  # rows of one class alone, from which on the other one is not just rare
MANY = 5  # rows for each output from which on a class that never occurs is no accident


@needs("compiled")
def head_logits(facts: Facts) -> Iterator[Finding | str]:
    """logits and probabilities"""
    for head in facts.heads:
        if head.end == head.under == "softmax":
            yield fault("head-logits", f"{head.where} ends in a softmax of a softmax.")
        elif head.loss is None or head.wants is None or head.end is None:
            yield f"{head.where.lower()}: the loss takes no logits or probabilities, or cannot be tried"
        elif (head.end == "linear") if head.wants == "probabilities" else (head.end in PROBABILITIES):
            ends = "logits" if head.end == "linear" else f"a {head.end}"
            yield fault("head-logits", f"{head.where} ends in {ends}, but the loss wants {head.wants}.")


@needs("compiled")
def head_loss(facts: Facts) -> Iterator[Finding]:
    """softmax and sigmoid"""
    for head in facts.heads:
        end, kind = head.end or "", head.kind or ""
        pairs = head.n == 2 and all(y.shape[-1] == 2 for y in head.labels.values())  # the same number
        if head.end == "ones" and head.n == 1 and head.loss is not None:
            yield fault("head-loss", f"{head.where} gives 1 for every image: a softmax over one output.", 1)
        elif {"softmax": head.kind == "binary" and not pairs, "sigmoid": "categorical" in kind}.get(end):
            yield fault("head-loss", f"{head.where}: a {end} over {head.n} does not fit the {kind} loss.")


@needs("loss")
def head_activation(facts: Facts) -> Iterator[Finding]:
    """last activations"""
    for head in facts.heads:
        of = f" of a {head.under}" if head.under in CUT and head.end in PROBABILITIES else ""
        if head.end == "softmax over the batch":
            yield fault("softmax-axis", f"{head.where} ends in a softmax over the rows of a batch.")
        elif head.wants and (of or head.end not in (None, "linear", "ones", *PROBABILITIES)):
            what = f"{head.where} ends in a {head.end}{of}, and the loss wants {head.wants}."
            yield fault("head-activation", what, activation=head.under if of else head.end)
        for below in head.last[1:]:
            units = getattr(below, "units", None)
            activation = getattr(getattr(below, "activation", None), "__name__", "")
            if head.wants and units and units <= min(head.n, NARROW) and head.n > 1 and activation == "relu":
                what = f"{below.name} has {units} relu units before {head.n} outputs"
                yield fault("head-narrow", f"{what}.", units)


def head_frozen(facts: Facts) -> Iterator[Finding]:
    """frozen heads"""
    base = [] if facts.base is None else facts.base.layers
    for layer in {id(layer): layer for head in facts.heads for layer in head.last}.values():
        if facts.trainable and facts.frozen(layer) and layer not in base and as_made(layer):
            what = f"{layer.name}, after the base, is frozen with the random kernel that it was made with"
            yield fault("head-frozen", f"{what}.", layer=layer.name)


@needs("compiled", "loss")
def metric_threshold(facts: Facts) -> Iterator[Finding | str]:
    """metrics"""
    given: Any = None
    with contextlib.suppress(Exception):  # a loss or a metric of one's own may have no configuration
        given = facts.model.get_compile_config() or {}
    if given is None:
        yield "they have no configuration that could be read"
        return
    for place, head in enumerate(facts.heads):
        parts = [given.get(key) for key in ("metrics", "weighted_metrics")]
        parts = [of_output(part, head.name, place) for part in parts] if head.name else parts
        for name, config in _metrics(parts):
            if (wrong := _wrong_metric(head, name, config)) is not None:
                half = "0.5" in wrong
                found = fault("metric-threshold", f"{head.where} {wrong}.", 0.5 if half else None)
                known = half and name in ("accuracy", "acc")
                yield found if known else replace(found, **OTHER_METRICS)
                break


def _wrong_metric(head: Head, name: str, config: dict[str, Any] | None) -> str | None:
    """Says how a metric does not fit an output; ``None`` if it does, or if that cannot be told."""
    if name == "accuracy" and config is not None and (head.wants or head.kind):
        return "has the metric Accuracy(), which counts outputs that equal the labels: it is no accuracy"
    config = config or {}
    cut = config.get("threshold", config.get("thresholds"))
    cut = 0.5 if cut is None else float(np.max(cut))
    halved = name in AT_HALF or (name == "auc" and not config.get("from_logits"))
    halved = (halved and not config.get("top_k")) or (head.n == 1 and name in ("accuracy", "acc"))
    if halved and cut > 0 and head.end == "linear" and head.wants == "logits":
        return f"gives logits, and {name} cuts at {cut:.2g}, as of probabilities"
    if name == "binaryaccuracy" and head.n > 2 and head.kind in ("categorical", "sparse categorical"):
        return f"has {head.n} classes, and binaryaccuracy counts each as yes or no: most are right by chance"
    forms = {is_one_hot(y) for y in head.labels.values() if y.ndim < 3 and head.n > 1}
    if name.endswith("categoricalaccuracy") and "topk" not in name and forms == {name[0] == "s"}:
        return f"has {'one-hot' if True in forms else 'integer'} labels, and {name} takes the others"
    return None


def _metrics(given: Any) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yields the metrics of a compiled model: their names, and what they were told; ``None`` for a text."""
    if isinstance(given, str):
        yield given.replace("_", "").lower(), None
    elif isinstance(given, dict) and "class_name" in given:
        yield given["class_name"].lower(), given.get("config") or {}
    elif isinstance(given, dict | list | tuple):
        for inner in given.values() if isinstance(given, dict) else given:
            yield from _metrics(inner)


@needs("labels", "loss")
def labels_loss(facts: Facts) -> Iterator[Finding]:
    """form of the labels"""
    for head in facts.heads:
        if head.n > 1 and head.kind in ("categorical", "sparse categorical"):
            wanted = head.kind == "categorical"
            wrong = [name for name, y in head.labels.items() if y.ndim < 3 and is_one_hot(y) != wanted]
            if wrong:
                what = f"The {' and '.join(wrong)} labels are {'integers' if wanted else 'one-hot'}"
                yield fault("labels-loss", f"{what}, the loss is {head.kind} cross-entropy.")


@needs("labels")
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


@needs("labels")
def labels_broken(facts: Facts) -> Iterator[Finding]:
    """NaN in labels"""
    for name, sample in facts.sets.items():
        n = sum(int((~np.isfinite(y)).sum()) for y in labels_in(sample) if y.dtype.kind == "f")
        if n:
            yield fault("labels-broken", f"{n} {name} labels are NaN or infinite.", n)


@needs("labels", "loss")
def outputs_and_labels(facts: Facts) -> Iterator[Finding | str]:
    """number of outputs"""
    for head in facts.heads:
        if head.kind is None and head.wants is None:
            continue
        if head.classes and (head.n == 1 or head.kind != "binary"):
            yield from _outputs(head, np.concatenate(list(head.classes.values())), facts)
        else:
            yield f"{head.where.lower()} has no labels that name one class"


def _outputs(head: Head, values: np.ndarray, facts: Facts) -> Iterator[Finding]:
    n = 2 if head.n == 1 else head.n  # one number for two classes
    columns = [y.shape[1] for y in head.labels.values() if is_one_hot(y)]
    declared = facts.n_classes if len(facts.heads) == 1 else None
    have = declared or int(values.max()) + 1
    n_classes = max([len(np.unique(values)), declared or 0, *columns])
    rows = sum(len(y) for name, y in head.classes.items() if facts.sets[name].whole)
    if n_classes > n:
        what = f"There are {n_classes} classes, but outputs for {n} only."
        yield fault("outputs-few", what, n_classes, classes=n_classes)
    elif values.min() < 0 or values.max() >= n:
        what = f"Labels go from {values.min()} to {values.max()}, the outputs are for 0 to {n - 1}."
        yield fault("labels-range", what, float(values.max()))
    elif have < n and not columns and (declared or rows >= MANY * n or n >= 1000):
        yield fault("outputs-many", f"There are {n} outputs, and {have} classes.", n, classes=have)


@needs("two labels")
def classes_missing(facts: Facts) -> Iterator[Finding | str]:
    """classes of each set"""
    for head in facts.heads:
        classes = head.classes if head.kind != "binary" or head.n == 1 else {}
        known = set(np.concatenate([y.ravel() for y in classes.values()]).tolist()) if classes else set()
        for name, y in classes.items():
            n = len(set(y.tolist()))
            if n < len(known) and not facts.sets[name].whole:
                yield f"only {len(y)} {name} labels were seen, of {n} classes"
            elif n < len(known) and len(y) >= (MANY if n > 1 else 1.5) * len(known):
                what = f"The {name} set has images of {n} of {len(known)} classes."
                yield fault("classes-missing", what, len(known) - n)


@needs("batches", "labels")
def batches_sorted(facts: Facts) -> Iterator[Finding | str]:
    """order of batches"""
    sample = facts.sets["training"]
    for head in facts.heads:
        y = head.classes.get("training")
        if y is None or head.n * len(y) < 2 or max(sample.sizes) < 4:
            yield f"{head.where.lower()} has no labels of one class, or too few in a batch"
            continue
        cut = np.split(y, np.cumsum(sample.sizes)[:-1])
        single = sum(len(np.unique(part)) == 1 for part in cut)
        if single < 0.8 * len(cut):
            continue
        counts = np.unique(np.concatenate(list(head.classes.values())), return_counts=True)[1]
        chance = float(((counts / counts.sum()) ** (len(y) / len(cut))).sum())  # of one class in a batch
        alone = len(np.unique(y)) == 1
        what = f"{single} of the first {len(cut)} batches of training hold one class each"
        if chance < 0.5 or (alone and not sample.whole and (head.n > 2 or len(y) >= RARE)):
            yield fault("batches-sorted", f"{what}.", single)
        elif not alone or not sample.whole:
            yield f"{what}, and one class is so frequent that it may be chance"
