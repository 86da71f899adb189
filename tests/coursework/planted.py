"""Planted submissions: the solution with small edits, and the points that each must get."""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planted_first import CONCEPTS, FEATURES, REPAIR
from planted_second import FINETUNE, SOURCE, TUNING
from planting import NONE as NONE

Notebook = dict[str, Any]

REGION = re.compile(r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.S | re.M)
BROKEN = re.compile(r"^ *### BROKEN: .*\n", re.M)

SUBMISSIONS = {
    "repair": REPAIR,
    "concepts": CONCEPTS,
    "features": FEATURES,
    "finetune": FINETUNE,
    "tuning": TUNING,
    "source": SOURCE,
}


def cells_by_id(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Return the cells of a notebook under their nbgrader ids."""
    return {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in notebook["cells"]}


def text_of(cell: dict[str, Any]) -> str:
    """Return the text of a cell."""
    return "".join(cell["source"])


def solution(text: str) -> str:
    """Return the text of a cell as a perfect student leaves it."""
    return REGION.sub(lambda match: BROKEN.sub("", match[1]), text)


def solved(source: Notebook, released: Notebook) -> Notebook:
    """Return the released notebook with the solutions in it, as a perfect student hands it in."""
    notebook = copy.deepcopy(released)
    solutions = cells_by_id(source)
    for name, cell in cells_by_id(notebook).items():
        if cell["metadata"]["nbgrader"].get("solution"):
            cell["source"] = solution(text_of(solutions[name]))
    return notebook


def plant(name: str, source: Notebook, released: Notebook, folder: Path, students: Sequence[str]) -> None:
    """Write planted submissions of an assignment, one folder each."""
    broken = cells_by_id(released)
    for student in students:
        planted = SUBMISSIONS[name][student]
        notebook = solved(source, released)
        cells = cells_by_id(notebook)
        for item in planted.as_released:
            cells[item]["source"] = text_of(broken[item])
        for item, edit in planted.edits.items():
            cells[item]["source"] = edit(text_of(cells[item]))
        (folder / student).mkdir(parents=True)
        (folder / student / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
