"""An auditor for transfer learning: finds the faults that raise no error.

`check` looks at a model, and at images and labels if it gets some. It makes one step of the model's own
training, looks at what moved, and puts everything back. `Callback` looks on inside ``fit``.

The *base* is the pretrained part: the largest `keras.Model` with convolutions inside the model. If there is
none, but the layers have the names of a known network, it is everything up to the last convolution.
"""

import contextlib
import hashlib
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tlhelpers import backbones, data

Intent = Literal["frozen", "fine-tuned", "scratch"]
STEP_IMAGES = 4  # in the one training step of `check`

# The highest learning rate that passes while a pretrained base trains. Adam and its kin move each weight by
# about the rate in each step, whatever the gradient, and most kernels are of the order of 0.1. Chapter 3
# measures that 1e-3 with a warm-up improves Lite0; its exercise with 1e-2 is about the damage. The limit lies
# between the two. SGD's step is the rate times a gradient that is small in a pretrained network.
# Optimizers that are not here scale their steps in other ways and are not judged.
RATE_LIMITS = dict.fromkeys(("Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Lion"), 3e-3) | {"SGD": 1e-1}

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_NORMALISATION = keras.layers.BatchNormalization

# A layer near the input that tells a family -> a name that `backbones.preprocessing` knows. The order counts:
# some families share layer names.
_SIGNATURES = {
    "block1_pool": "vgg16",
    "conv2_block1_preact_bn": "resnet50v2",
    "conv2_block1_add": "resnet50",
    "conv2_block1_concat": "densenet121",
    "conv_dw_1": "mobilenet",
    "bn_Conv1": "mobilenetv2",
    "expanded_conv_depthwise": "mobilenetv3small",
    "mixed0": "inceptionv3",
    "mixed_5b": "inceptionresnetv2",
    "block2_sepconv1": "xception",
    "stem_bn1": "nasnetmobile",
    "block1a_relu": "efficientnet_lite0",
    "block1a_se_reduce": "efficientnetb0",
    "stem_activation": "efficientnetv2b0",
    **{f"convnext_{size}_stem": "convnexttiny" for size in ("tiny", "small", "base", "large", "xlarge")},
}


def _keras_style(mode: str, x: NDArray) -> NDArray:
    return keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)  # it writes into its input


# What can have happened to RGB pixels of 0..255.
_STYLES: dict[str, Callable[[NDArray], NDArray]] = {
    "nothing done": lambda x: x,
    "divided by 255": lambda x: x / 255,
    "tf style: -1 to 1": partial(_keras_style, "tf"),
    "caffe style: blue-green-red, minus the mean": partial(_keras_style, "caffe"),
    "torch style: minus the mean, divided by the deviation": partial(_keras_style, "torch"),
}
_RAW, _UNIT, _TF, _CAFFE, _TORCH = _STYLES

# Families that scale inside, behind a `preprocess_input` that does nothing: what their first convolution
# expects. EfficientNet has its mean and deviation only with the ImageNet weights.
_SCALED_INSIDE = {
    "efficientnetb0": (_TORCH, _UNIT),
    "efficientnetv2b0": (_TORCH, _TF),
    "mobilenetv3small": (_TF,),
    "convnexttiny": (_TORCH,),
}

# Black, white, grey, the pure colours and two more: they tell order, scale and shift of the channels.
_COLOURS = np.array(
    [[0] * 3, [255] * 3, [128] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 90, 200], [230, 60, 5]],
    dtype=np.float32,
)

_PREPARE = (
    "The pretrained weights expect the scale and the order of channels that they were trained with.",
    "Use the preprocess_input of this family, once, best inside the model: backbones.load does it.",
)
# code -> why it matters, how to mend it
_TEXTS: dict[str, tuple[str, str]] = {
    "stale-compile": (
        "Keras reads the flags when it builds its training function, in the first fit after compile.",
        "Compile again, with a new optimizer, after every change of trainable.",
    ),
    "base-moves": (
        "The gradients of a new head distort the pretrained features.",
        "Set trainable = False on the base, then compile with a new optimizer.",
    ),
    "statistics-move": (
        "Small batches replace the pretraining's statistics. fit overrides a training=False in the model.",
        "Set trainable = False on each BatchNormalization layer, as finetune.freeze does, then compile.",
    ),
    "base-still": (
        "Only the head trains. The loss falls all the same, so nobody sees it.",
        "Set trainable = True on the base, freeze single layers if you like, compile with a new optimizer.",
    ),
    "preprocessing-missing": _PREPARE,
    "preprocessing-twice": _PREPARE,
    "preprocessing-other": _PREPARE,
    "head-logits": (
        "The loss is not the cross-entropy of the model. (With TensorFlow, Keras finds the logits before a "
        "softmax and uses them; other backends take the softmax twice.)",
        "End in Dense(n_classes) without activation, and use a loss with from_logits=True.",
    ),
    "head-loss": (
        "Softmax shares 1 among classes that exclude each other; sigmoid says yes or no for each output.",
        "One class an image: logits with a (sparse) categorical loss. Several: logits with the binary one.",
    ),
    "labels-loss": (
        "Keras stops with an error about shapes, or compares each label with the wrong thing.",
        "Integer labels: SparseCategoricalCrossentropy. One-hot labels: CategoricalCrossentropy.",
    ),
    "outputs-few": (
        "Some classes have no output. On a GPU this may raise no error, but give a loss of NaN.",
        "Give the head as many outputs as there are classes.",
    ),
    "labels-range": (
        "Some labels have no output. On a GPU this may raise no error, but give a loss of NaN.",
        "Number the classes from 0, for instance with np.unique(y, return_inverse=True)[1].",
    ),
    "rate-large": (
        "Large steps erase the pretrained features before the head can use them.",
        "Train the head first on the frozen base, then both with a smaller rate and a warm-up.",
    ),
    "shared-images": (
        "Accuracy on images that were trained on, or that were used to choose, is too good.",
        "Cut the sets apart before anything else (data.load does), and use the test set once, at the end.",
    ),
    "step-fails": (
        "fit would stop in the same way.",
        "Read the message. 'Unknown variable' means: compile with a new optimizer.",
    ),
}
_WARNINGS = ("rate-large",)  # the others are errors
_CHAPTERS = dict.fromkeys(("base-moves", "base-still", "rate-large"), "notebooks/03_model_based")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        code: Short name that stays the same, such as ``"stale-compile"``.
        severity: ``"error"`` (the result is not what the code says) or ``"warning"`` (it may still work).
        what: What was found.
        why: Why it matters.
        mend: What to do.
        link: Page of the book about it.
    """

    code: str
    severity: Literal["error", "warning"]
    what: str
    why: str
    mend: str
    link: str

    def __str__(self) -> str:
        lines = [f"[{self.severity}] {self.code}: {self.what}", f"    why:  {self.why}"]
        lines += [f"    mend: {self.mend}", f"    see:  {self.link}"]
        return "\n".join(textwrap.fill(line, 100, subsequent_indent=" " * 10) for line in lines)


@dataclass(frozen=True)
class Part:
    """One row of the table: a layer or a network inside the model.

    Attributes:
        name: Name of the layer; of its family for a network whose layers lie open in the model.
        is_base: Whether this is the pretrained part.
        parameters: Number of parameters.
        trainable: Parameters that are trainable by the flags of this moment.
        compiled: Parameters that the training function trains, as Keras built it after the last ``compile``;
            the same as `trainable` if it is not built yet.
        tensors: Number of weight tensors, statistics of batch normalization included.
        moved: Paths of the tensors that moved; ``None`` if no step was made.
    """

    name: str
    is_base: bool
    parameters: int
    trainable: int
    compiled: int
    tensors: int
    moved: tuple[str, ...] | None


@dataclass(frozen=True)
class Report:
    """What an audit found.

    Attributes:
        model: Name of the model.
        base: What the base is meant to be, told or inferred; ``None`` if the model has no base.
        parts: The table.
        findings: The faults; empty if there are none.
    """

    model: str
    base: Intent | None
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in their order."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("part", "parameters", "trainable", "as compiled", "moved")]
        for part in self.parts:
            moved = "no step" if part.moved is None else f"{len(part.moved)} of {part.tensors} tensors"
            counts = (f"{n:,}" for n in (part.parameters, part.trainable, part.compiled))
            rows.append((part.name + " (base)" * part.is_base, *counts, moved))
        width = max(len(row[0]) for row in rows)
        table = [f"{a:<{width}}  {b:>11}  {c:>11}  {d:>11}  {e}" for a, b, c, d, e in rows]
        base = "no pretrained base" if self.base is None else f"the base is meant to be {self.base}"
        count = len(self.findings)
        title = f"Audit of {self.model}: {base}; {count or 'no'} finding{'s' * (count != 1)}"
        return "\n".join([title, "", *table, "", *map(str, self.findings)]).rstrip()

    __repr__ = __str__  # what a notebook shows


class AuditError(RuntimeError):
    """A `Callback` that raises found something."""


@dataclass(frozen=True)
class _Base:
    """The pretrained part. `network` is None where its layers lie open in the model."""

    family: str | None
    network: keras.Model | None
    top: list[keras.layers.Layer]  # the layers of the model itself that hold it
    layers: list[keras.layers.Layer]  # all layers in it, at any depth


@dataclass
class _Facts:
    """All that the detectors look at. Weights are known by their ids."""

    model: keras.Model
    base: _Base | None
    intent: Intent | None
    told: bool  # whether the user said what is meant
    sets: dict[str, tuple[NDArray, NDArray | None]]
    n_classes: int | None
    moved: set[int] | None = None  # by a step, if one was made
    step_error: str | None = None
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = {name: y for name, (_, y) in self.sets.items() if y is not None}
        self.trainable = {id(v) for v in self.model.trainable_variables}
        self.compiled = _compiled(self.model, self.trainable)
        layers = [] if self.base is None else self.base.layers
        norms = [layer for layer in layers if isinstance(layer, _NORMALISATION)]
        self.normalisation = {id(v) for layer in norms for v in layer.weights}
        self.weights = {id(v) for layer in layers for v in layer.weights} - self.normalisation
        self.will_move = self.compiled | {id(v) for layer in norms if layer.trainable for v in layer.weights}

    @property
    def moving(self) -> set[int]:
        """What moved, or what will move if no step was made."""
        return self.will_move if self.moved is None else self.moved

    @property
    def stale(self) -> bool:
        """Whether the training function goes by flags of the past."""
        return self.compiled != self.trainable


def check(
    model: keras.Model,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    *,
    base: Intent | None = None,
) -> Report:
    """Audits a transfer-learning model and leaves it as it was.

    What moves is found by one training step with the first images of `train`, at the highest rate of the
    optimizer's schedule. It takes a compiled model, whose flags have not changed since. Afterwards weights,
    optimizer and metrics are put back; the functions that Keras has compiled are not touched.

    Args:
        model: Built image classifier: one input ``(n, h, w, 3)``, one output ``(n, n_classes)``.
        train: A `data.Dataset`, whose three splits are used; or a pair ``(x, y)`` as ``fit`` takes it, images
            ``(n, h, w, 3)`` and labels ``(n,)`` or one-hot ``(n, n_classes)``. For the step, images of uint8
            are resized to the model's input.
        val: Pair of validation images and labels.
        test: Pair of test images and labels.
        base: What the pretrained part is meant to be: ``"frozen"``, ``"fine-tuned"``, or ``"scratch"`` where
            its weights are random and nothing in it needs care. ``None`` believes the present flags: a base
            in which at most batch normalization is trainable is meant to be frozen.

    Raises:
        ValueError: If the model is not built, or an argument is not what it should be.
    """
    facts = _facts(model, train, val, test, base)
    x, y = facts.sets.get("training", (None, None))
    if x is not None and y is not None and model.compiled and not facts.stale:
        x = x[:STEP_IMAGES]
        shape = _image_shape(model)
        if x.dtype == np.uint8 and x.ndim == 4 and shape is not None and shape[0] is not None:
            x = data.resize(x, shape[0])
        try:
            facts.moved = _training_step(model, x, y[:STEP_IMAGES])
        except Exception as error:  # whatever fit may raise: a detector tells
            facts.step_error = f"{type(error).__name__}: {str(error).strip()}"
    return _report(facts)


class Callback(keras.callbacks.Callback):
    """Audits a model inside ``fit``: before the first step, and after the first epoch what moved.

    Where a recipe opens layers later, what moved is judged when all are open.

    Training is not changed. `report` has the last report.

    Args:
        train: As in `check`, like the next three.
        val: Validation images and labels.
        test: Test images and labels.
        base: What the pretrained part is meant to be.
        on_finding: ``"print"`` prints the report if there is a finding, ``"raise"`` raises `AuditError`.
    """

    def __init__(
        self,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        *,
        base: Intent | None = None,
        on_finding: Literal["print", "raise"] = "print",
    ) -> None:
        super().__init__()
        if on_finding not in ("print", "raise"):
            raise ValueError(f"on_finding must be 'print' or 'raise', not {on_finding!r}.")
        self.report: Report | None = None
        self._arguments = (train, val, test, base)
        self._on_finding = on_finding
        self._before: list[tuple[keras.Variable, NDArray]] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks what can be seen before the first step."""
        self.report = None
        self._before = _values(self.model.weights)
        self._audit(None)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Checks what has moved, once every layer is open."""
        last_opening = getattr(self.model.optimizer, "last_opening", 0)
        if int(ops.convert_to_numpy(self.model.optimizer.iterations)) > last_opening:
            self._judge()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Checks what has moved, where the layers never opened."""
        self._judge()

    def _judge(self) -> None:
        if self._before:
            moved, self._before = _moved(self._before), []
            self._audit(moved)

    def _audit(self, moved: set[int] | None) -> None:
        facts = _facts(self.model, *self._arguments)
        facts.moved = moved
        known = () if self.report is None else self.report.codes
        self.report = _report(facts)
        if set(self.report.codes) - set(known):
            if self._on_finding == "raise":
                raise AuditError(f"\n{self.report}")
            print(self.report)


# --- The parts of a model ---


def _facts(model: keras.Model, train: Any, val: Any, test: Any, intent: Intent | None) -> _Facts:
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
    sets = {}
    for name, pair in (("training", train), ("validation", val), ("test", test)):
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(f"Give the {name} set as a pair (images, labels), not a {type(pair).__name__}.")
        if pair is not None and pair[0] is not None and len(pair[0]):
            sets[name] = (np.asarray(pair[0]), None if pair[1] is None else np.asarray(pair[1]))
    base, told = _find_base(model), intent is not None
    if base is None:
        intent = None
    elif not told:  # by the flags of the layers themselves: a frozen parent does not overrule them
        kinds = (_NORMALISATION, keras.Model)
        free = [layer for layer in base.layers if layer.trainable and not isinstance(layer, kinds)]
        intent = "fine-tuned" if any(layer.weights for layer in free) else "frozen"
    return _Facts(model, base, intent, told, sets, n_classes)


def _inner(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers inside a layer, at any depth."""
    return list(layer._flatten_layers(include_self=False))


def _find_base(model: keras.Model) -> _Base | None:
    everything = _inner(model)
    names = {layer.name for layer in everything}
    sign = next((name for name in _SIGNATURES if name in names), None)
    family = None if sign is None else _SIGNATURES[sign]
    networks = [layer for layer in everything if isinstance(layer, keras.Model) and _has_convolution(layer)]
    if sign is not None:
        networks = [network for network in networks if any(layer.name == sign for layer in _inner(network))]
    if networks:
        network = max(networks, key=lambda n: n.count_params())  # of equals the first, which is the outermost
        top = [layer for layer in model.layers if layer is network or network in _inner(layer)]
        return _Base(family, network, top, _inner(network))
    if sign is None:
        return None
    last = max(i for i, layer in enumerate(model.layers) if _has_convolution(layer))
    top = model.layers[: last + 1]
    return _Base(family, None, top, [x for layer in top for x in [layer, *_inner(layer)]])


def _has_convolution(layer: keras.layers.Layer) -> bool:
    return any(isinstance(part, _CONVOLUTIONS) for part in [layer, *_inner(layer)])


def _image_shape(model: keras.Model) -> tuple[int | None, int | None] | None:
    """Height and width of the images that a model takes; ``None`` if it takes no colour images."""
    shape = getattr(model, "input_shape", None)
    return shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 else None


def _optimizer(model: keras.Model) -> keras.Optimizer:
    """The optimizer itself, out of the wrapper that mixed precision puts around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _compiled(model: keras.Model, now: set[int]) -> set[int]:
    """What the training function trains; what it will train by the present flags if it is not built.

    A step in that function could not tell: where a batch has another shape than before, TensorFlow traces it
    once more, by the present flags, and keeps that trace. But its optimizer knows. (Not if the same optimizer
    was compiled again, with less to train; then the flags are those of the last compile.)
    """
    if not model.compiled or model.train_function is None or not _optimizer(model).built:
        return now
    flags = getattr(model, "_compiled_trainable_state", {})  # new in Keras 3.15
    if flags and all(layer.trainable == flag for layer, flag in flags.items()):
        return now
    return {id(v) for v in _optimizer(model)._trainable_variables}


def _parts(facts: _Facts) -> Iterator[Part]:
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


# --- The training step ---


def _values(variables: Sequence[keras.Variable]) -> list[tuple[keras.Variable, NDArray]]:
    return [(v, np.array(ops.convert_to_numpy(v))) for v in variables]


def _moved(before: list[tuple[keras.Variable, NDArray]]) -> set[int]:
    return {id(v) for v, value in before if not np.array_equal(value, ops.convert_to_numpy(v))}


# What compile and fit write into a model.
_WRITTEN = ["optimizer", "train_function", "test_function", "predict_function", "history", "stop_training"]
_WRITTEN += ["_run_eagerly", "_compile_loss", "_compile_metrics", "_eval_epoch_iterator"]


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[None]:
    """Puts back what a training step changes, past ``setattr``, which would track what is put back."""
    attributes = {name: value for name, value in vars(model).items() if name in _WRITTEN}
    values = _values([*model.variables, *model.metrics_variables, *model.optimizer.variables])
    try:
        yield
    finally:
        for name in _WRITTEN:
            vars(model).pop(name, None)
        vars(model).update(attributes)
        for variable, value in values:
            variable.assign(value)


def _training_step(model: keras.Model, x: NDArray, y: NDArray) -> set[int]:
    """Makes one training step and undoes it; returns what moved.

    The step is eager and without metrics, and works on copies of all that it would build: what is built is
    built for the flags of this moment, and these may still change before the first fit.
    """
    with _restored(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vars(model).update(train_function=None, _run_eagerly=True, _compile_metrics=None)
        if model.loss is not None:
            names = getattr(model, "output_names", None)
            vars(model)["_compile_loss"] = type(vars(model)["_compile_loss"])(model.loss, output_names=names)
        if not model.optimizer.built:
            vars(model)["optimizer"] = model.optimizer.from_config(model.optimizer.get_config())
        optimizer = _optimizer(model)
        # Where a warm-up begins and where a schedule ends, the rate is 0 and nothing moves. Of steps that
        # accumulate gradients only the last one moves anything.
        steps = optimizer.gradient_accumulation_steps or 1
        optimizer._iterations.assign((_highest_rate(optimizer)[1] + 1) * steps - 1)
        before = _values(model.weights)
        model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
        return _moved(before)


def _highest_rate(optimizer: keras.Optimizer) -> tuple[float, int]:
    """Returns the highest learning rate and the step that has it."""
    schedule = optimizer._learning_rate
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(ops.convert_to_numpy(optimizer.learning_rate)), 0
    # A schedule turns at the steps that it holds as numbers (warmup_steps, decay_steps, boundaries).
    held = [n for value in vars(schedule).values() for n in np.ravel(value)]
    turns = {int(n) + d for n in held if isinstance(n, int | np.integer) for d in (-1, 0, 1)}
    steps = sorted(n for n in turns | {2**k - 1 for k in range(21)} if n >= 0)
    rates = [float(ops.convert_to_numpy(schedule(n))) for n in steps]
    return max(rates), steps[rates.index(max(rates))]


# --- Detectors: one fault each ---


def _finding(code: str, what: str) -> Finding:
    severity: Literal["error", "warning"] = "warning" if code in _WARNINGS else "error"
    return Finding(code, severity, what, *_TEXTS[code], _CHAPTERS.get(code, "book/listings"))


def stale_compile(facts: _Facts) -> Iterator[Finding]:
    """Flags changed after the training function was built."""
    if facts.stale:
        late, lost = len(facts.compiled - facts.trainable), len(facts.trainable - facts.compiled)
        what = f"{late} tensors with frozen flags train, {lost} with trainable flags do not"
        yield _finding("stale-compile", f"trainable was changed after the last compile and fit: {what}.")


def base_moves(facts: _Facts) -> Iterator[Finding]:
    """A base that is meant to be frozen trains."""
    if facts.intent == "frozen" and facts.moving & facts.weights and not facts.stale:
        n = len(facts.moving & (facts.weights | facts.normalisation))
        yield _finding("base-moves", f"The base is meant to be frozen, but {n} of its tensors move.")


def statistics_move(facts: _Facts) -> Iterator[Finding]:
    """Batch normalization moves in a base that is otherwise frozen, or was called with training=False."""
    calls = [node for nodes in getattr(facts.model, "_nodes_by_depth", {}).values() for node in nodes]
    calls = [node for node in calls if facts.base is not None and node.operation is facts.base.network]
    pinned = any(node.arguments.kwargs.get("training") is False for node in calls)
    frozen = facts.intent == "frozen" and not facts.moving & facts.weights
    n = len(facts.moving & facts.normalisation)
    if n and not facts.stale and (frozen or (pinned and facts.intent == "fine-tuned")):
        meant = "is meant to be frozen" if frozen else "is called with training=False"
        yield _finding("statistics-move", f"The base {meant}, but {n} tensors of batch normalization move.")


def base_still(facts: _Facts) -> Iterator[Finding]:
    """A base that is meant to be fine-tuned does not move."""
    free = (facts.weights | facts.normalisation) & facts.trainable
    still = bool(facts.moved) and not facts.moving & free
    if facts.intent == "fine-tuned" and not facts.stale and (still or not free):
        what = "a training step moves none of it" if free else "none of it is trainable"
        yield _finding("base-still", f"The base is meant to be fine-tuned, but {what}.")


def preprocessing(facts: _Facts) -> Iterator[Finding]:
    """What reaches the first convolution of a known network is not what its weights expect."""
    if facts.base is None or facts.base.family is None or facts.intent == "scratch":
        return
    scales = {name: _scale(x) for name, (x, _) in facts.sets.items()}
    faults = {scale: _preprocessing_fault(facts, scale) for scale in set(scales.values()) or set(_STYLES)}
    if not scales and None not in faults.values():  # without images, any way to prepare them may be meant
        scales = {"raw": _RAW}
    for scale in dict.fromkeys(scales.values()):
        fault = faults[scale]
        if fault is not None:
            names = ", ".join(name for name in scales if scales[name] == scale)
            what = f"With these images ({names}), {fault[1]}; the network is of {facts.base.family}'s family."
            yield _finding(fault[0], what)


def _scale(x: NDArray) -> str:
    """How the images of an array seem to have been prepared: a key of _STYLES."""
    low, high = float(x.min()), float(x.max())
    if np.issubdtype(x.dtype, np.integer) or (low >= 0 and high > 1):
        return _RAW
    if low >= 0:
        return _UNIT
    if low < -3:
        return _CAFFE
    return _TF if low >= -1.01 and high <= 1.01 else _TORCH


def _preprocessing_fault(facts: _Facts, scale: str) -> tuple[str, str] | None:
    """Sends plain colours, prepared like the images, to the first convolution; returns code and words."""
    family = "" if facts.base is None else facts.base.family or ""
    got = _at_first_convolution(facts, _STYLES[scale](_COLOURS))
    own: list[Callable[[NDArray], NDArray]] = [_STYLES[style] for style in _SCALED_INSIDE.get(family, ())]
    own = own or [lambda x: np.array(backbones.preprocessing(family)(x.copy()))]
    if got is None or any(_same(got, expected(_COLOURS)) for expected in own):
        return None
    if _same(got, _COLOURS):
        return "preprocessing-missing", "raw pixels reach the first convolution"
    for style, prepare in _STYLES.items():
        if _same(got, prepare(_COLOURS)):
            return "preprocessing-other", f"another preprocessing reaches the first convolution ({style})"
        if any(_same(got, expected(prepare(_COLOURS))) for expected in own):
            return "preprocessing-twice", f"two preprocessings follow each other ({style}; then the family's)"
    if any(_same(got, expected(expected(_COLOURS))) for expected in own):
        return "preprocessing-twice", "the family's preprocessing is applied twice"
    return "preprocessing-other", "what reaches the first convolution is no preprocessing known here"


def _same(got: NDArray, want: NDArray) -> bool:
    return bool(np.abs(got - want).max() <= 0.02 * (want.max() - want.min()))


class _ReachedError(Exception):
    """Ends a call of the model at its first convolution."""


def _at_first_convolution(facts: _Facts, colours: NDArray) -> NDArray | None:
    """Returns what reaches the first convolution of the base, ``(k, 3)``, from ``k`` images of one colour.

    Resizing and padding change nothing in the middle of such images. ``None`` where the model takes
    something else than colour images.
    """
    shape = _image_shape(facts.model)
    if shape is None or facts.base is None:
        return None
    images = np.tile(colours[:, None, None], (1, shape[0] or 64, shape[1] or 64, 1)).astype(np.float32)
    seen: list[NDArray] = []

    def stop(inputs: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(np.array(ops.convert_to_numpy(inputs)))
        raise _ReachedError

    convolutions = [layer for layer in facts.base.layers if isinstance(layer, _CONVOLUTIONS)]
    for layer in convolutions:
        vars(layer)["call"] = stop  # hides the method of the class
    try:
        facts.model(images, training=False)
    except Exception:  # Keras may wrap what a layer raises
        if not seen:
            raise
    finally:
        for layer in convolutions:
            del vars(layer)["call"]
    middle = seen[0][:, seen[0].shape[1] // 2, seen[0].shape[2] // 2]
    return middle if middle.shape == colours.shape else None


def _loss(model: keras.Model) -> tuple[str, bool] | None:
    """Returns "sparse categorical", "categorical" or "binary", and from_logits; ``None`` for another loss."""
    loss = model.loss if model.compiled else None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kinds = {f"{k.replace(' ', '')}crossentropy": k for k in ("sparse categorical", "categorical", "binary")}
    kind = kinds.get(str(name).replace("_", "").lower())
    return None if kind is None else (kind, bool(getattr(loss, "from_logits", False)))


def _last_activation(model: keras.Model) -> str | None:
    """Returns "softmax", "sigmoid" or "linear"; ``None`` for another one and where it cannot be told."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None
    tensor = outputs[0]
    while True:
        operation, index, _ = tensor._keras_history
        if isinstance(operation, keras.Model):
            return _last_activation(operation)
        activation = getattr(operation, "activation", None)
        name = getattr(activation, "__name__", type(operation).__name__.lower())
        if name in ("softmax", "sigmoid"):
            return name
        if activation not in (None, keras.activations.linear):
            return None
        sources = operation._inbound_nodes[index].input_tensors
        if getattr(operation, "weights", None) or len(sources) != 1:
            return "linear"
        tensor = sources[0]  # dropout, reshape, a change of dtype: look further up


def head_logits(facts: _Facts) -> Iterator[Finding]:
    """Probabilities where the loss wants logits, or logits where it wants probabilities."""
    loss, activation = _loss(facts.model), _last_activation(facts.model)
    if loss is not None and activation is not None and loss[1] != (activation == "linear"):
        output = "logits" if activation == "linear" else f"a {activation}"
        yield _finding("head-logits", f"The model ends in {output}, but the loss has from_logits={loss[1]}.")


def head_loss(facts: _Facts) -> Iterator[Finding]:
    """Sigmoid with a categorical loss, softmax with the binary one or with a single output."""
    loss, activation = _loss(facts.model), _last_activation(facts.model)
    if loss is not None and activation in ("softmax", "sigmoid"):
        n, binary = facts.model.output_shape[-1], loss[0] == "binary"
        if (activation == "softmax") == binary or (activation == "softmax" and n == 1):
            what = f"{activation} over {n} outputs does not fit the {loss[0]} cross-entropy"
            yield _finding("head-loss", f"The head's {what}.")


def _is_one_hot(y: NDArray) -> bool:
    return y.ndim == 2 and y.shape[1] > 1


def labels_loss(facts: _Facts) -> Iterator[Finding]:
    """One-hot labels with a sparse loss, or integers with one that wants one-hot labels."""
    loss = _loss(facts.model)
    if loss is None or loss[0] == "binary":
        return
    wrong = [name for name, y in facts.labels.items() if _is_one_hot(y) != (loss[0] == "categorical")]
    if wrong:
        kind = "integers" if loss[0] == "categorical" else "one-hot"
        what = f"The {' and '.join(wrong)} labels are {kind}, the loss is {loss[0]} cross-entropy."
        yield _finding("labels-loss", what)


def outputs_and_labels(facts: _Facts) -> Iterator[Finding]:
    """Fewer outputs than classes, or labels that no output stands for."""
    loss, labels = _loss(facts.model), list(facts.labels.values())
    if loss is None or not labels:
        return
    n_outputs = facts.model.output_shape[-1]
    n_outputs = 2 if loss[0] == "binary" and n_outputs == 1 else n_outputs  # one number for two classes
    values = np.unique(np.concatenate([y.argmax(1) if _is_one_hot(y) else y.ravel() for y in labels]))
    n_classes = max([len(values), facts.n_classes or 0] + [y.shape[1] for y in labels if _is_one_hot(y)])
    if n_classes > n_outputs:
        yield _finding("outputs-few", f"There are {n_classes} classes, but outputs for {n_outputs} only.")
    elif values.min() < 0 or values.max() >= n_outputs:
        what = f"Labels go from {values.min()} to {values.max()}, the outputs are for 0 to {n_outputs - 1}"
        yield _finding("labels-range", f"{what}.")


def large_rate(facts: _Facts) -> Iterator[Finding]:
    """The learning rate is too large for a pretrained base that trains."""
    pretrained = facts.told or (facts.base is not None and facts.base.family is not None)
    if facts.intent == "fine-tuned" and pretrained and facts.model.compiled:
        optimizer = _optimizer(facts.model)
        kind, rate = type(optimizer).__name__, _highest_rate(optimizer)[0]
        limit = RATE_LIMITS.get(kind, np.inf)
        if rate > limit * (1 + 1e-6):  # rates are float32
            what = f"{kind} trains a pretrained base at a rate of up to {rate:g}; the limit is {limit:g}"
            yield _finding("rate-large", f"{what}.")


def shared_images(facts: _Facts) -> Iterator[Finding]:
    """The same image in two of the three sets."""
    digests = {name: _digests(x) for name, (x, _) in facts.sets.items()}
    for later, earlier in (("test", "training"), ("test", "validation"), ("validation", "training")):
        known = set(digests.get(earlier, ()))
        n = sum(digest in known for digest in digests.get(later, ()))
        if n:
            what = f"{n} of {len(digests[later])} {later} images are {earlier} images, too"
            yield _finding("shared-images", f"{what}.")


def _digests(x: NDArray) -> list[bytes]:
    if _scale(x) == _RAW:
        x = x.astype(np.uint8)  # the same picture, be it uint8 or float
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in x]


def failing_step(facts: _Facts) -> Iterator[Finding]:
    """The training step stopped with an error that no other finding explains."""
    explained = any(f.code.startswith(("stale", "head", "labels", "outputs")) for f in facts.findings)
    if facts.step_error and not explained:
        yield _finding("step-fails", f"A training step stops with {facts.step_error[:300]}")


# The last one looks at what the others found.
DETECTORS: tuple[Callable[[_Facts], Iterator[Finding]], ...] = (
    stale_compile,
    base_moves,
    statistics_move,
    base_still,
    preprocessing,
    head_logits,
    head_loss,
    labels_loss,
    outputs_and_labels,
    large_rate,
    shared_images,
    failing_step,
)


def _report(facts: _Facts) -> Report:
    for detector in DETECTORS:
        facts.findings += detector(facts)
    return Report(facts.model.name, facts.intent, tuple(_parts(facts)), tuple(facts.findings))
