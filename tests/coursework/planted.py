"""Planted submissions: the solution with small edits, and the points that each must get."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
Edits = dict[str, Callable[[str], str]]

REGION = re.compile(r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.S | re.M)
BROKEN = re.compile(r"^ *### BROKEN: .*\n", re.M)
TASKS = ("scaling", "logits", "rate", "freeze", "recompile", "choice")
FULL = (3, 3, 3, 4, 4, 3)


@dataclass(frozen=True)
class Planted:
    """One planted submission.

    Attributes:
        edits: Task to the edit of its solved cell.
        points: Points by task, in the order of `TASKS`; ``None`` where nothing can be graded.
        as_released: Tasks whose cell is left as it was released.
        reason: What the reason in the student's row must hold.
    """

    points: tuple[int, ...] | None
    edits: Edits = field(default_factory=dict)
    as_released: tuple[str, ...] = ()
    reason: str = ""


def replace(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """Return an edit that replaces texts, each of which must occur once."""

    def edit(text: str) -> str:
        for old, new in pairs:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in:\n{text}"
            text = text.replace(old, new)
        return text

    return edit


CONVOLUTIONS_ONLY = """\
for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.trainable = False"""

SUBMISSIONS = {
    "perfect": Planted(FULL),
    "empty": Planted((0, 0, 0, 0, 0, 0), as_released=TASKS),
    "scaled-by-255": Planted((0, 3, 3, 4, 4, 3), as_released=("scaling",)),
    "softmax-twice": Planted((3, 0, 3, 4, 4, 3), as_released=("logits",)),
    "base-not-frozen": Planted((3, 3, 3, 0, 4, 3), as_released=("freeze",)),
    "not-recompiled": Planted((3, 3, 3, 4, 0, 3), as_released=("recompile",)),
    "tuned-on-test": Planted((3, 3, 3, 4, 4, 0), as_released=("choice",)),
    # Right for the visible tests only, in all tasks but the first.
    "half-right": Planted(
        (0, 1, 1, 2, 2, 1),
        {
            "scaling": replace(("x = images", "x = images / 127.5 - 1")),
            "logits": replace(
                ("Dense(n_classes)", 'Dense(n_classes, activation="softmax")'),
                ("from_logits=True", "from_logits=False"),
            ),
            "rate": replace(("learning_rate=0.03", "learning_rate=0.0001")),
            "freeze": replace(("base.trainable = False", CONVOLUTIONS_ONLY)),
            "recompile": replace(("learning_rate=learning_rate", "learning_rate=0.1")),
            "choice": replace(('history["val_accuracy"]', 'history["accuracy"]')),
        },
    ),
    # Cells that do not run cost their own points and no others.
    "errors": Planted(
        (3, 0, 3, 0, 0, 3),
        {
            "logits": replace(("Dense(n_classes)(inputs)", "Dense(n_classes)(inputs")),
            "freeze": replace(("def build_phase_1", "def build_phase_one")),
            "recompile": replace(
                ("keras.optimizers.SGD(learning_rate=learning_rate, momentum=0.9)", "model.optimizer")
            ),
        },
    ),
    "kernel killed, ünïcode": Planted(
        None, {"scaling": lambda text: f"import os\n\nos._exit(1)\n{text}"}, reason="kernel died"
    ),
}


def cells_by_id(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Return the cells of a notebook under their nbgrader ids."""
    return {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in notebook["cells"]}


def text_of(cell: dict[str, Any]) -> str:
    """Return the text of a cell."""
    return "".join(cell["source"])


def solved(source: Notebook, released: Notebook) -> Notebook:
    """Return the released notebook with the solutions in it, as a perfect student hands it in."""
    notebook = copy.deepcopy(released)
    solutions = cells_by_id(source)
    for task in TASKS:
        text = REGION.sub(lambda match: BROKEN.sub("", match[1]), text_of(solutions[task]))
        cells_by_id(notebook)[task]["source"] = text
    return notebook


def plant(source: Notebook, released: Notebook, folder: Path) -> None:
    """Write all planted submissions, one folder each."""
    broken = cells_by_id(released)
    for name, planted in SUBMISSIONS.items():
        notebook = solved(source, released)
        cells = cells_by_id(notebook)
        for task in planted.as_released:
            cells[task]["source"] = text_of(broken[task])
        for task, edit in planted.edits.items():
            cells[task]["source"] = edit(text_of(cells[task]))
        (folder / name).mkdir(parents=True)
        (folder / name / "repair.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
