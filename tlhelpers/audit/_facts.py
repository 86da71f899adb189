"""The facts that the detectors look at, gathered from a model and its images; the table of the report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tlhelpers import data
from tlhelpers.audit._model import NORMALISATION, Base, find_base
from tlhelpers.audit._results import Finding, Intent, Part
from tlhelpers.audit._training import compiled_weights

Images = dict[str, tuple[NDArray, NDArray | None]]  # "training", "validation", "test" -> images, labels


@dataclass
class Facts:
    """All that the detectors look at. Weights are known by their ids.

    Attributes:
        model: The model.
        base: Its pretrained part; ``None`` if it has none.
        intent: What the base is meant to be; ``None`` if there is no base.
        told: Whether the user said what is meant.
        sets: The images and labels that were given.
        n_classes: Number of classes, where the data set says it.
        moved: What a step has moved; ``None`` if no step was made.
        step_error: How the step stopped, if it did.
        findings: What the detectors before this one have found.
        labels: The labels that were given, by the names of their sets.
        trainable: Weights that are trainable by the present flags.
        compiled: Weights that the training function trains.
        base_normalisation: Weights and statistics of the batch normalization in the base.
        base_weights: All other weights of the base.
        will_move: What a step is going to move.
    """

    model: keras.Model
    base: Base | None
    intent: Intent | None
    told: bool
    sets: Images
    n_classes: int | None
    moved: set[int] | None = None
    step_error: str | None = None
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = {name: y for name, (_, y) in self.sets.items() if y is not None}
        self.trainable = {id(v) for v in self.model.trainable_variables}
        self.compiled = compiled_weights(self.model, self.trainable)
        layers = [] if self.base is None else self.base.layers
        norms = [layer for layer in layers if isinstance(layer, NORMALISATION)]
        self.base_normalisation = {id(v) for layer in norms for v in layer.weights}
        self.base_weights = {id(v) for layer in layers for v in layer.weights} - self.base_normalisation
        self.will_move = self.compiled | {id(v) for layer in norms if layer.trainable for v in layer.weights}

    @property
    def moving(self) -> set[int]:
        """What moved, or what will move if no step was made."""
        return self.will_move if self.moved is None else self.moved

    @property
    def stale(self) -> bool:
        """Whether the training function goes by flags of the past."""
        return self.compiled != self.trainable


def gather(model: keras.Model, train: Any, val: Any, test: Any, intent: Intent | None) -> Facts:
    """Returns the facts about a model, without a step.

    Raises:
        ValueError: If the model is not built, or an argument is not what it should be.
    """
    if not model.built:
        raise ValueError("The model has no weights yet. Begin it with keras.Input, or call it on an image.")
    if intent not in (None, "frozen", "fine-tuned", "scratch"):
        raise ValueError(f"base must be 'frozen', 'fine-tuned', 'scratch' or None, not {intent!r}.")
    n_classes = None
    if isinstance(train, data.Dataset):
        ds, n_classes = train, train.n_classes
        train = (ds.x_train, ds.y_train)
        val = (ds.x_val, ds.y_val) if val is None else val
        test = (ds.x_test, ds.y_test) if test is None else test
    sets = _sets(train, val, test)
    base, told = find_base(model), intent is not None
    if base is None:
        intent = None
    elif not told:
        intent = _intent_by_flags(base)
    return Facts(model, base, intent, told, sets, n_classes)


def _sets(train: Any, val: Any, test: Any) -> Images:
    sets = {}
    for name, pair in (("training", train), ("validation", val), ("test", test)):
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(f"Give the {name} set as a pair (images, labels), not a {type(pair).__name__}.")
        if pair is not None and pair[0] is not None and len(pair[0]):
            sets[name] = (np.asarray(pair[0]), None if pair[1] is None else np.asarray(pair[1]))
    return sets


def _intent_by_flags(base: Base) -> Intent:
    """By the flags of the layers themselves: a frozen parent does not overrule them."""
    kinds = (NORMALISATION, keras.Model)
    free = [layer for layer in base.layers if layer.trainable and not isinstance(layer, kinds)]
    return "fine-tuned" if any(layer.weights for layer in free) else "frozen"


def parts(facts: Facts) -> Iterator[Part]:
    """Yields the rows of the report's table."""
    top = [] if facts.base is None else facts.base.top
    groups = [(layer.name, [layer]) for layer in facts.model.layers]
    if facts.base is not None and facts.base.network is None:
        groups = [(f"{facts.base.family} layers", top)] + [g for g in groups if g[1][0] not in top]
    for name, layers in groups:
        weights = {id(v): v for layer in layers for v in layer.weights}
        sizes = {key: int(np.prod(v.shape)) for key, v in weights.items()}
        trainable, compiled = (sum(sizes.get(key, 0) for key in s) for s in (facts.trainable, facts.compiled))
        moved = None if facts.moved is None else tuple(weights[k].path for k in weights if k in facts.moved)
        if weights:
            counts = (sum(sizes.values()), trainable, compiled, len(weights))
            yield Part(name, layers[0] in top, *counts, moved)
