"""The auditor inside ``fit``: it looks at the batches that go by, and asks for no data."""

import functools
from collections.abc import Callable as Function
from dataclasses import replace
from typing import Any, Literal

import keras
from keras import ops
from numpy.typing import NDArray

from tlhelpers.audit import _checks, _training
from tlhelpers.audit._draw import Sample, from_batches
from tlhelpers.audit._results import AuditError, Intent, Report

BATCHES = {"training": 8, "validation": 64}  # that are looked at
ROWS = 64  # of training that are enough
FIRST = 20  # steps whose losses are noted
STOPPED = "anything more: the audit stopped"


def _harmless(hook: Function) -> Function:
    """A training that would run must not stop here: what fails is said, and no other batch is looked at."""

    @functools.wraps(hook)
    def guarded(self: "Callback", *given: Any, **named: Any) -> Any:
        try:
            return hook(self, *given, **named)
        except AuditError:
            raise
        except Exception as error:
            self._release()
            reason = f"{STOPPED} with {type(error).__name__}: {error}"[:300]
            report = self.report or Report(self.model.name, None, (), (), ())
            self.report = replace(report, unchecked=(*report.unchecked, reason))
            return False

    return guarded


class Callback(keras.callbacks.Callback):
    """Audits a model inside ``fit``: before the first step, in the first epoch, and after it.

    It sees the batches that ``fit`` sees, of training and of validation, whatever they come from. Training is
    not changed, and never stopped by what the auditor cannot do. Where a recipe opens layers later, what
    moved is judged when all are open. `report` has the last report.

    Args:
        train: As in `check`, like the next three; not needed, but for images in two sets: inside ``fit`` only
            some batches of each are compared.
        val: Validation images and labels.
        test: Test images and labels.
        base: What the pretrained part is meant to be.
        on_finding: ``"print"`` prints the report if there is a finding, ``"raise"`` raises `AuditError`.

    Example:
        >>> from tlhelpers import audit, data, finetune
        >>> from tlhelpers.recipes import Recipe
        >>> ds = data.load("digits", n_train=32, n_val=10, n_test=10)
        >>> auditor = audit.Callback(base="scratch")
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
        _checks.check_intent(base)
        self.report: Report | None = None
        self._given, self._base, self._on_finding = (train, val, test), base, on_finding
        self._taps: list[_training.Tap] = []

    @_harmless
    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks what can be seen without a batch, and begins to look at batches."""
        self.report = None
        self._step: _training.Step | None = None
        self._logs: dict[str, Any] = {}
        self._losses: list[float] = []
        self._change: float | None = None
        self._batches: dict[str, list[Any]] = {"training": [], "validation": []}
        self._whole: dict[str, bool] = {}
        self._built, self._late = self.model.built, False
        self._memory: dict[int, Any] = {}
        self._before: list[tuple[keras.Variable, NDArray]] = []
        if self._built:
            self._before = _training.values(self.model.weights)
            if keras.backend.backend() == "jax":  # later it has the weights elsewhere
                self._audit()
        self._tap("train_function", "training")

    @_harmless
    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Notes the losses of the first steps."""
        if len(self._losses) < FIRST and logs and "loss" in logs:
            self._losses.append(float(logs["loss"]))
        if keras.backend.backend() == "jax":  # it has the weights elsewhere during an epoch
            return
        if self._before and self._change is None:
            self._change = _training.change(self._before)
        # It was not built until this first step: what moves from now on can be seen.
        if not self._built:
            self._built = self._late = True
            self._before = _training.values(self.model.weights)

    @_harmless
    def on_test_begin(self, logs: dict | None = None) -> None:
        """Begins to look at batches of validation."""
        if self._taps and not self._batches["validation"]:
            self._tap("test_function", "validation")

    @_harmless
    def on_test_end(self, logs: dict | None = None) -> None:
        """Knows whether all of validation was seen."""
        self._whole["validation"] = len(self._batches["validation"]) < BATCHES["validation"]

    @_harmless
    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Checks what has moved, once every layer is open."""
        self._logs = dict(logs or {})
        optimizer = getattr(self.model, "optimizer", None)
        steps = getattr(optimizer, "iterations", None)
        opened = steps is None or int(ops.convert_to_numpy(steps)) > getattr(optimizer, "last_opening", 0)
        if self._before and opened and epoch + 1 < self.params.get("epochs", 1):
            self._judge()

    @_harmless
    def on_train_end(self, logs: dict | None = None) -> None:
        """Checks what has moved, where that was not yet seen, and inference against training."""
        self._release()
        self._judge(last=True)

    def _release(self) -> None:
        for tap in self._taps:
            tap.remove()
        self._taps = []

    def _tap(self, function: str, name: str) -> None:
        if getattr(self.model, function, None) is not None:
            self._taps.append(_training.Tap(self.model, function, lambda batches: self._see(name, batches)))

    @_harmless
    def _see(self, name: str, batches: list[Any]) -> bool:
        """Keeps batches; with the first ones of training, checks the model before its first step."""
        if name == "training" and self._logs:  # of a second epoch, whose images are those of the first
            return False
        seen = self._batches[name]
        seen += batches
        away = keras.backend.backend() == "jax"  # it has the weights elsewhere during an epoch
        if name == "training" and len(seen) == len(batches) and self.model.built and not away:
            self._audit()
        enough = name == "training" and len(seen) >= 3 and len(from_batches(seen)) >= ROWS
        return len(seen) < BATCHES[name] and not enough

    def _judge(self, last: bool = False) -> None:
        if self._before:
            moved = _training.moved_since(self._before)
            if moved or not self._late:  # a single step, which built the model, tells nothing
                self._step = _training.Step(moved, self._change)
            self._before = []
        self._audit(last)

    def _samples(self) -> dict[str, Sample]:
        seen = ((name, from_batches(batches)) for name, batches in self._batches.items() if batches)
        return {name: replace(sample, whole=self._whole.get(name, False)) for name, sample in seen}

    def _audit(self, last: bool = False) -> None:
        inside: dict[str, Any] = {"seen": self._samples(), "step": self._step, "losses": [*self._losses]}
        inside |= {"memory": self._memory, "logs": self._logs, "last": last}
        report = _checks.audit(self.model, self._given, self._base, **inside)
        before, known = (self.report.unchecked, self.report.codes) if self.report else ((), ())
        stopped = tuple(line for line in before if line.startswith(STOPPED))
        self.report = report = replace(report, unchecked=(*report.unchecked, *stopped))
        if set(report.codes) - set(known):
            if self._on_finding == "raise":
                raise AuditError(f"\n{report}")
            print(report)
