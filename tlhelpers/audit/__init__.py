"""An auditor for transfer learning: finds the faults that raise no error.

`check` looks at a model, and at images and labels if it gets some. It makes one step of the model's own
training, looks at what moved, and puts everything back. `Callback` looks on inside ``fit``.

The *base* is the pretrained part: the largest `keras.Model` with convolutions inside the model. If there is
none, but the layers have the names of a known network, it is everything up to the last convolution.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from tlhelpers import data
from tlhelpers.audit import _training
from tlhelpers.audit._detect_freezing import base_moves, base_still, stale_compile, statistics_move
from tlhelpers.audit._detect_head import head_logits, head_loss, labels_loss, outputs_and_labels
from tlhelpers.audit._detect_images import preprocessing, shared_images
from tlhelpers.audit._detect_optimizer import RATE_LIMITS, failing_step, large_rate
from tlhelpers.audit._facts import Facts, gather, parts
from tlhelpers.audit._model import image_shape
from tlhelpers.audit._results import AuditError, Finding, Intent, Part, Report

__all__ = [
    "DETECTORS",
    "RATE_LIMITS",
    "STEP_IMAGES",
    "AuditError",
    "Callback",
    "Finding",
    "Intent",
    "Part",
    "Report",
    "check",
]

STEP_IMAGES = 4  # in the one training step of `check`

# Every detector, in the order of the report: a function from the facts to its findings. The last one looks at
# what the others found.
DETECTORS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
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

    Example:
        >>> from tlhelpers import audit, backbones, finetune
        >>> backbone = backbones.load(image_size=32)
        >>> finetune.freeze(backbone)
        >>> report = audit.check(finetune.build_classifier(backbone, n_classes=10))
        >>> report.base, report.ok
        ('frozen', True)
    """
    facts = gather(model, train, val, test, base)
    _try_step(facts)
    return _report(facts)


def _try_step(facts: Facts) -> None:
    """Adds what a step with the first training images moves, or how it fails, where one can be made."""
    x, y = facts.sets.get("training", (None, None))
    if x is None or y is None or not facts.model.compiled or facts.stale:
        return
    x = x[:STEP_IMAGES]
    shape = image_shape(facts.model)
    if x.dtype == np.uint8 and x.ndim == 4 and shape is not None and shape[0] is not None:
        x = data.resize(x, shape[0])
    try:
        facts.moved = _training.make_step(facts.model, x, y[:STEP_IMAGES])
    except Exception as error:  # whatever fit may raise: a detector tells
        facts.step_error = f"{type(error).__name__}: {str(error).strip()}"


def _report(facts: Facts) -> Report:
    for detector in DETECTORS:
        facts.findings += detector(facts)
    return Report(facts.model.name, facts.intent, tuple(parts(facts)), tuple(facts.findings))


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

    Example:
        >>> from tlhelpers import audit, data, finetune
        >>> from tlhelpers.recipes import Recipe
        >>> ds = data.load("digits", n_train=32, n_val=10, n_test=10)
        >>> auditor = audit.Callback(ds, base="scratch")
        >>> model = finetune.small_cnn(8, ds.n_classes)
        >>> history = finetune.fine_tune(model, ds, Recipe(epochs=1), callbacks=[auditor])
        >>> auditor.report.ok
        True
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
        self._before = _training.values(self.model.weights)
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
            moved, self._before = _training.moved_since(self._before), []
            self._audit(moved)

    def _audit(self, moved: set[int] | None) -> None:
        facts = gather(self.model, *self._arguments)
        facts.moved = moved
        known = () if self.report is None else self.report.codes
        self.report = _report(facts)
        if set(self.report.codes) - set(known):
            if self._on_finding == "raise":
                raise AuditError(f"\n{self.report}")
            print(self.report)
