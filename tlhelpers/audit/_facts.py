"""The facts that the detectors look at, gathered from a model and its images; the table of the report."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from tlhelpers import data
from tlhelpers.audit._draw import Sample, images_in, is_image, mapped
from tlhelpers.audit._heads import Head, heads_of
from tlhelpers.audit._keras import layers_inside
from tlhelpers.audit._model import NORMALISATION, Base, fresh_layers
from tlhelpers.audit._preprocessing import styles_of
from tlhelpers.audit._probe import Seen, entering, given_by, look, pooled
from tlhelpers.audit._results import Finding, Intent, Part
from tlhelpers.audit._training import Step, compiled_weights, optimizer_of, restored

AGAIN = 32  # rows whose outputs are asked for again at the end of a training

Detector = Callable[["Facts"], Iterator[Finding | str]]


@dataclass
class Facts:
    """All that the detectors look at. Weights are known by their ids.

    Attributes:
        model: The model.
        base: Its pretrained part; ``None`` if it has none.
        intent: What the base is meant to be; ``None`` if there is no base.
        told: Whether the user said what is meant.
        sets: The rows that were seen of each set, by its name.
        n_classes: Number of classes, where the data set says it.
        inside_fit: Whether the rows were seen inside ``fit``, past the preprocessor of a task.
        step: What a step does; ``None`` if none was made.
        step_error: How the step stopped, if it did.
        losses: The mean losses of the first steps, inside ``fit``.
        logs: What the last epoch logged, inside ``fit``.
        last: Whether the training has ended.
        memory: What the audits of one training have seen of the model, by the number of rows.
        findings: What the detectors before this one have found.
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
    sets: dict[str, Sample]
    n_classes: int | None = None
    inside_fit: bool = False
    step: Step | None = None
    step_error: str | None = None
    losses: list[float] = field(default_factory=list)
    logs: dict[str, Any] = field(default_factory=dict)
    last: bool = False
    memory: dict[Any, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
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
        return self.will_move if self.step is None else self.step.moved

    @property
    def stale(self) -> bool:
        """Whether the training function goes by flags of the past."""
        return self.compiled != self.trainable

    @property
    def base_name(self) -> str:
        """How the user's code may call the base."""
        network = None if self.base is None else self.base.network
        return "base" if network is None else f"model.get_layer('{network.name}')"

    @property
    def optimizer(self) -> str:
        """How the optimizer is written in code."""
        return f"keras.optimizers.{type(optimizer_of(self.model)).__name__}"

    def frozen(self, layer: keras.layers.Layer) -> bool:
        """Whether no weight of a layer is trainable."""
        return not self.trainable.intersection(map(id, layer.weights))

    @cached_property
    def fresh(self) -> tuple[int, int]:
        """Layers of the base that are as new, and all that can tell."""
        return (0, 0) if self.base is None else fresh_layers(self.base)

    @property
    def rows(self) -> Sample | None:
        """The rows that probes are made with: of training, else of another set."""
        return next(iter(self.sets.values()), None)

    @cached_property
    def seen(self) -> Seen:
        """What the model does with those rows; with noise where there are none.

        Seen once in a training; at its end the outputs of some rows are asked for again.
        """
        rows = noise(self.model) if self.rows is None else self.rows.x
        n = 0 if self.rows is None else len(self.rows)
        seen = self.memory.get(n)
        if seen is None:
            seen = look(self.model, self.base, self.prepared(self.fitting(rows)))
        elif self.last:
            few = self.prepared(self.fitting(mapped(lambda a: a[:AGAIN], rows)))
            seen = replace(seen, outputs=given_by(self.model, few))
        self.memory[n] = seen
        return seen

    @cached_property
    def modes_alike(self) -> float | None:
        """Correlation of the base's features of some rows in training and in inference mode."""
        network = None if self.base is None else self.base.network
        if network is None or self.rows is None or len(self.rows) < 8:
            return None
        x = self.prepared(self.fitting(self.rows.rows(AGAIN)[0]))
        x = ops.convert_to_tensor(entering(self.model, [network], x))
        with restored(self.model, whole=False):  # at once: other detectors look at the statistics
            modes = [pooled(network(x, training=training)) for training in (False, True)]
        a, b = ((m - m.mean(axis=0)).ravel() for m in modes)
        return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))

    @cached_property
    def heads(self) -> list[Head]:
        """The outputs, each with its loss and its labels."""
        return heads_of(self.model, self.seen, self.sets)

    @cached_property
    def styles(self) -> dict[str, tuple[str, ...]]:
        """How the images of each set may have been prepared, the likeliest way first."""
        return {name: styles_of(x) for name, x in self.images.items()}

    @property
    def images(self) -> dict[str, NDArray]:
        """The first images of each set that has some."""
        found = {name: images_in(sample.x) for name, sample in self.sets.items()}
        return {name: images[0] for name, images in found.items() if images}

    def prepared(self, x: Any) -> Any:
        """Returns inputs as the model itself gets them inside ``fit``: a task of KerasHub prepares them."""
        preprocessor = getattr(self.model, "preprocessor", None)
        return x if self.inside_fit or not callable(preprocessor) else preprocessor(x)

    def fitting(self, x: Any) -> Any:
        """Returns inputs whose images have the size that the model takes."""
        size = self.size
        if size is None or callable(getattr(self.model, "preprocessor", None)):
            return x

        def resized(images: NDArray) -> NDArray:
            if not is_image(images) or images.shape[1:3] == size:
                return images
            if images.dtype == np.uint8 and images.shape[3] == 3 and size[0] == size[1]:
                return data.resize(images, size[0])
            sides = zip(images.shape[1:3], size, strict=True)
            rows, columns = (np.linspace(0, n - 1, m).astype(int) for n, m in sides)
            return images[:, rows][:, :, columns]

        return mapped(resized, x)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that the model takes; ``None`` where any will do."""
        shapes = [shape for shape in input_shapes(self.model) if len(shape) == 4 and shape[3] in (1, 3)]
        return shapes[0][1:3] if shapes and None not in shapes[0][1:3] else None


# What a detector may need: whether it is there, and what is said where it is not.
_NEEDS: dict[str, tuple[Callable[[Facts], Any], str]] = {
    "compiled": (lambda f: f.model.compiled, "the model is not compiled"),
    "base": (lambda f: f.base, "the model has no pretrained base"),
    "care": (lambda f: f.intent != "scratch", "nothing in the base is pretrained"),
    "images": (lambda f: f.images, "no images were given"),
    "two sets": (lambda f: len(f.images) > 1, "there are no two sets of images"),
    "order": (lambda f: any(s.reordered is not None for s in f.sets.values()), "no set was read twice"),
    "labels": (lambda f: any(head.labels for head in f.heads), "no labels were given"),
    "two labels": (lambda f: any(len(h.classes) > 1 for h in f.heads), "no two sets of labels to compare"),
    "batches": (lambda f: len(getattr(f.sets.get("training"), "sizes", ())) > 2, "too few batches were seen"),
    "loss": (lambda f: any(h.wants or h.kind for h in f.heads), "the loss takes no logits or probabilities"),
    "losses": (lambda f: len(f.losses) > 2, "it is seen after some steps of fit"),
    "end": (lambda f: f.last, "it is seen at the end of fit"),
}


def needs(*names: str) -> Callable[[Detector], Detector]:
    """Marks a detector by what there must be, that it has looked at its topic.

    Args:
        *names: Keys of what may be needed.
    """

    def marked(detector: Detector) -> Detector:
        vars(detector)["needs"] = names
        return detector

    return marked


def missing(detector: Detector, facts: Facts) -> str | None:
    """Says what a detector needs and has not; ``None`` if nothing."""
    needed = (_NEEDS[name] for name in vars(detector).get("needs", ()))
    return next((words for there, words in needed if not there(facts)), None)


def input_shapes(model: keras.Model) -> list[tuple]:
    """Returns the shapes of a model's inputs; empty where it has none before it is called."""
    try:
        return [tuple(tensor.shape) for tensor in tree.flatten(model.inputs or [])]
    except (AttributeError, ValueError):
        return []


def noise(model: keras.Model) -> Any:
    """Returns four rows of random inputs.

    Raises:
        ValueError: If the shapes of the inputs are unknown.
    """
    if not input_shapes(model):
        raise ValueError("no images were given, and the model does not say what it takes")
    rng = np.random.default_rng(0)

    def random(tensor: keras.KerasTensor) -> NDArray:
        shape = (4, *(n or 64 for n in tensor.shape[1:]))
        values = rng.uniform(0, 255 if len(shape) == 4 else 1, shape)
        return values.astype(np.float32 if "float" in tensor.dtype else tensor.dtype)

    found = [random(tensor) for tensor in model.inputs]
    return found[0] if len(found) == 1 else found


def intent_by_flags(base: Base) -> Intent:
    """By the flags of the layers themselves: a frozen parent does not overrule them."""
    kinds = (NORMALISATION, keras.Model)
    free = [layer for layer in base.layers if layer.trainable and not isinstance(layer, kinds)]
    return "fine-tuned" if any(layer.weights and not layers_inside(layer) for layer in free) else "frozen"


def parts(facts: Facts) -> Iterator[Part]:
    """Yields the rows of the report's table."""
    top = [] if facts.base is None else facts.base.top
    groups = [(layer.name, [layer]) for layer in facts.model.layers]
    if facts.base is not None and facts.base.network is None:
        name = f"{facts.base.family or 'lower'} layers"
        groups = [(name, top)] + [g for g in groups if g[1][0] not in top]
    for name, layers in groups:
        weights = {id(v): v for layer in layers for v in layer.weights}
        sizes = {key: int(np.prod(v.shape)) for key, v in weights.items()}
        trainable, compiled = (sum(sizes.get(key, 0) for key in s) for s in (facts.trainable, facts.compiled))
        step = facts.step
        moved = None if step is None else tuple(weights[k].path for k in weights if k in step.moved)
        if weights:
            counts = (sum(sizes.values()), trainable, compiled, len(weights))
            yield Part(name, any(layers[0] is layer for layer in top), *counts, moved)
