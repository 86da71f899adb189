"""An auditor for transfer learning: finds the faults that raise no error, and says what it did not check.

`check` looks at a model, and at images and labels if it gets some. It makes one step of the model's own
training, looks at what moved, and puts everything back. `Callback` looks on inside ``fit``.

The *base* is the pretrained part: the largest `keras.Model` with convolutions inside the model. If there is
none, but the layers begin like a known network or some are frozen, it is all up to the last convolution.
"""

from typing import Any

import keras

from tlhelpers.audit._callback import Callback
from tlhelpers.audit._checks import DETECTORS, STEP_IMAGES, audit
from tlhelpers.audit._detect_steps import RATE_LIMITS
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


def check(
    model: keras.Model, train: Any = None, val: Any = None, test: Any = None, *, base: Intent | None = None
) -> Report:
    """Audits a transfer-learning model and leaves it as it was.

    What moves is found by one training step with the first images of `train`, at the highest rate of the
    optimizer's schedule. It takes a compiled model, whose flags have not changed since. Afterwards weights,
    optimizer and metrics are put back; the functions that Keras has compiled are not touched. A model that is
    not built yet gets its weights from the first image.

    Of each set some hundred rows are looked at, at most 16 batches. An iterator that cannot start again is
    left alone. What was not looked at stands in the report.

    Args:
        model: Any Keras model.
        train: What ``fit`` takes: a pair ``(x, y)`` or a triple with sample weights, where `x` and `y` may be
            lists or dictionaries of arrays; a `tf.data.Dataset`, a `PyDataset`, a loader of PyTorch, a list
            of batches. Or images alone; or a `data.Dataset`, whose three splits are used.
        val: Validation data, likewise.
        test: Test data, likewise.
        base: What the pretrained part is meant to be: ``"frozen"``, ``"fine-tuned"``, or ``"scratch"`` where
            its weights are random and nothing in it needs care. ``None`` believes the present flags, and asks
            where they may have been forgotten: a base in which at most batch normalization is trainable is
            meant to be frozen.

    Raises:
        ValueError: If `base` is something else.

    Example:
        >>> from tlhelpers import audit, backbones, finetune
        >>> backbone = backbones.load(image_size=32)
        >>> finetune.freeze(backbone)
        >>> report = audit.check(finetune.build_classifier(backbone, n_classes=10), base="frozen")
        >>> report.base, report.ok
        ('frozen', True)
    """
    return audit(model, (train, val, test), base)
