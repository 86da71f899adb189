"""Detectors of the base: what of it trains, what was meant to, and whether it is pretrained at all."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from tlhelpers.audit._facts import Facts, needs
from tlhelpers.audit._keras import layers_inside, leaves
from tlhelpers.audit._model import as_made, broken_weights
from tlhelpers.audit._results import Finding, fault
from tlhelpers.audit._training import effective_rate, optimizer_of

CAREFUL = 1e-4  # a rate up to this one tells that a base is meant to be fine-tuned
TINY = 1e-5  # a rate at which a head alone learns next to nothing
FEW = 32  # rows in a batch from which on the statistics of batch normalization are let alone
OWN = ("train_step", "compute_loss")  # what a model may do in its own way
ALIKE = 0.5  # correlation of features in both modes from which on they are let alone, too


@needs("compiled")
def stale_compile(facts: Facts) -> Iterator[Finding]:
    """flags as compiled"""
    if facts.stale:
        late, lost = len(facts.compiled - facts.trainable), len(facts.trainable - facts.compiled)
        what = f"{late} tensors with frozen flags train, {lost} with trainable flags do not"
        what = f"trainable was changed after the last compile and fit: {what}."
        yield fault("stale-compile", what, late + lost, optimizer=facts.optimizer)


@needs("base")
def base_moves(facts: Facts) -> Iterator[Finding]:
    """freezing"""
    if facts.stale or not facts.moving & facts.base_weights:
        return
    n = len(facts.moving & (facts.base_weights | facts.base_normalisation))
    typed = _mistyped([facts.model, *facts.base.top, facts.base.network or facts.model])  # type: ignore[union-attr]
    if facts.intent == "frozen" or (typed and not facts.told):
        meant = f"{typed} was set, which Keras does not read" if typed else "The base is meant to be frozen"
        yield fault("base-moves", f"{meant}, but {n} of its tensors move.", n, base=facts.base_name)
    elif not facts.told and facts.model.compiled and _nothing_says_so(facts):
        rate = effective_rate(optimizer_of(facts.model))
        what = f"All {n} tensors of the base train, at a rate of {rate:g}, and nothing says that they should"
        yield fault("base-trains", f"{what}.", n, base=facts.base_name)


def _mistyped(layers: list[keras.layers.Layer]) -> str | None:
    """Returns an attribute of a layer that was meant to be `trainable`."""
    named = (item for layer in layers for item in vars(layer).items())
    names = [name for name, value in named if value is False and name[0] != "_"]
    close = [n for n in names if n == "training" or difflib.get_close_matches(n, ["trainable"], cutoff=0.8)]
    return f"{close[0]} = False" if close else None


def _nothing_says_so(facts: Facts) -> bool:
    """Whether all of the base trains at a rate that is made for a network without pretraining."""
    layers = [] if facts.base is None else facts.base.layers
    leaves = [layer for layer in layers if layer.weights and not layers_inside(layer)]
    chosen = any(not layer.trainable or getattr(layer, "lora_enabled", False) for layer in leaves)
    return not chosen and effective_rate(optimizer_of(facts.model)) > CAREFUL * (1 + 1e-6)


@needs("base", "care")
def statistics_move(facts: Facts) -> Iterator[Finding | str]:
    """batch normalization"""
    n = len(facts.moving & facts.base_normalisation)
    if not n or facts.stale:
        return
    sizes = [size for sample in list(facts.sets.values())[:1] for size in sample.sizes]
    share = f"{n} tensors of batch normalization move"
    if facts.intent == "frozen":
        if not facts.moving & facts.base_weights:
            what = f"The base is meant to be frozen, but {share}."
            yield fault("statistics-move", what, n, base=facts.base_name)
    elif not facts.model.compiled:
        yield "the model is not compiled"
    elif effective_rate(optimizer_of(facts.model)) < CAREFUL * (1 - 1e-6):
        if facts.seen.pinned:
            what = f"The base is called with training=False, and in fit {share} all the same. "
            what += "The official guide does so, too; at a small rate it does little harm"
            yield fault("statistics-move", f"{what}.", n, "note", base=facts.base_name)
    elif facts.seen.pinned or max(sizes, default=0) < FEW:
        what = f"The base is fine-tuned, and {share} with it"
        what += ", although it is called with training=False: fit overrides that" if facts.seen.pinned else ""
        what += f". The batches have {max(sizes)} images" if sizes else ""
        alike = None if sizes or facts.seen.pinned else facts.modes_alike
        if alike is not None:
            what += f". In batches of {FEW}, features of training and inference mode correlate by {alike:.2f}"
        if alike is None or alike < ALIKE:
            yield fault("statistics-move", f"{what}.", alike or n, "warning", base=facts.base_name)


@needs("base", "care")
def base_still(facts: Facts) -> Iterator[Finding]:
    """fine-tuning"""
    free = (facts.base_weights | facts.base_normalisation) & facts.trainable
    still = facts.step is not None and bool(facts.step.moved) and not facts.step.moved & free
    if facts.intent == "fine-tuned" and not facts.stale and (still or not free):
        what = "a training step moves none of it" if free else "none of it is trainable"
        yield fault("base-still", f"It is meant to be fine-tuned, but {what}.", 0, base=facts.base_name)
    elif facts.intent == "frozen" and not facts.told and not free:
        yield from _head_alone(facts)


def _head_alone(facts: Facts) -> Iterator[Finding]:
    """Asks, where a name or the rate of a new optimizer speaks of fine-tuning, and only the head trains."""
    if not facts.model.compiled or not facts.trainable:
        return
    optimizer = optimizer_of(facts.model)
    rate = effective_rate(optimizer)
    named = re.search("fine.?tun", facts.model.name.lower())
    if named or (rate <= TINY * (1 + 1e-6) and not int(ops.convert_to_numpy(optimizer.iterations))):
        sign = f"the model is called {facts.model.name}" if named else f"{rate:g} is a rate for fine-tuning"
        what = f"Nothing of the base is trainable, but {sign}."
        yield fault("base-still", what, 0, "warning", base=facts.base_name)


def nothing_trains(facts: Facts) -> Iterator[Finding]:
    """training at all"""
    if facts.trainable and (facts.step is None or facts.step.moved or facts.stale):
        return
    what = "A training step moves nothing" if facts.trainable else "No weight of the model is trainable"
    yield fault("nothing-trains", f"{what}.", 0)


@needs("base", "care")
def base_random(facts: Facts) -> Iterator[Finding | str]:
    """pretrained weights"""
    fresh, known = facts.fresh
    if known < 2:
        yield "the base has no statistics, scales or biases that would tell"
    elif fresh > known // 4:
        what = f"{fresh} of the base's {known} layers that can tell are as new: the base is not pretrained"
        yield fault("base-random", f"{what}.", fresh)
    else:
        own = [la for la in facts.base.layers if hasattr(la, "kernel")]  # type: ignore[union-attr]
        new = [la for la in own if as_made(la)]
        frozen = [la.name for la in new if facts.frozen(la)]
        if frozen and len(new) <= len(own) // 4:
            what = f"{len(frozen)} frozen layers of the base have the kernels that they were made with"
            yield fault("base-partly", f"{what}, first {frozen[0]}; the others were loaded.", len(frozen))


@needs("base")
def base_unused(facts: Facts) -> Iterator[Finding | str]:
    """use of the base"""
    if any(getattr(type(facts.model), name) is not getattr(keras.Model, name) for name in OWN):
        yield "the model has a training step or a loss of its own, which may use what its call does not"
        return
    for network in (facts.base.network, *facts.base.others):  # type: ignore[union-attr]
        if network is not None and facts.seen.used.isdisjoint(map(id, leaves(network))):
            yield fault("base-unused", f"{network.name} is in the model, but its call does not use it.")


def broken(facts: Facts) -> Iterator[Finding]:
    """NaN in weights"""
    paths = broken_weights(facts.model)
    if paths:
        what = f"{len(paths)} weights hold NaN or infinity, first {paths[0]}."
        yield fault("weights-broken", what, len(paths))


def lora_frozen(facts: Facts) -> Iterator[Finding]:
    """LoRA"""
    layers = [layer for layer in layers_inside(facts.model) if getattr(layer, "lora_enabled", False)]
    frozen = [layer for layer in layers if id(layer.lora_kernel_a) not in facts.trainable]
    if frozen:
        what = f"LoRA is on in {len(layers)} layers, and in {len(frozen)} of them its matrices are frozen"
        yield fault("lora-frozen", f"{what}, first in {frozen[0].name}.", len(frozen))


def regulariser_lost(facts: Facts) -> Iterator[Finding]:
    """regularizers"""
    lost = [
        f"{layer.name}.{name}"
        for layer in layers_inside(facts.model)
        for name, given in vars(layer).items()
        if name.endswith("_regularizer") and name != "activity_regularizer" and given is not None
        and getattr(_regularised(layer, name.removesuffix("_regularizer")), "regularizer", layer) is None
    ]  # fmt: skip
    if lost:
        what = f"{len(lost)} regularizers of layers are not those of their weights, first {lost[0]}"
        yield fault("regulariser-lost", f"{what}.", len(lost))


def _regularised(layer: keras.layers.Layer, name: str) -> Any:
    """Returns the weight that a regularizer is for: ``depthwise``, say, for the kernel of such a layer."""
    weights = (getattr(layer, key, None) for key in (name, f"{name}_kernel", "kernel"))
    return next((weight for weight in weights if weight is not None), None)
