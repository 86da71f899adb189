"""Solutions of single tasks, probed and judged as the grader does it, but in this process."""

import ast
from typing import Any

import planted

from tools.grading import course, engine
from tools.grading.box import runner, wire

SECONDS = 60.0  # of one probe
COPY = """
def copied(model):
    import keras

    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin
"""


class Bench:
    """The notebook of an assignment after its own cells have run, ready for any solution of any task."""

    def __init__(self, name: str, secret: str = "a secret of the bench") -> None:
        self.assignment, self.secret = course.load(name), secret
        self.source = self.assignment.source()
        self._names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(COPY, "<copy>", "exec"), self._names)
        for cell_id, cell in planted.cells_by_id(self.source).items():
            if cell["cell_type"] == "code" and not cell_id.endswith("_visible"):
                text = planted.solution(planted.text_of(cell))
                exec(compile(text, f"<{cell_id}>", "exec"), self._names)
        self._given: dict[str, dict[str, Any]] = {}

    def items(self) -> list[course.Item]:
        """Return the items that have checks."""
        return [item for item in self.assignment.items if not item.by_hand]

    def lost(self, item: course.Item, source: str, seconds: float = SECONDS) -> float:
        """Return the points that a solution loses, 0 for a right one.

        Args:
            item: The task.
            source: The text of its cell.
            seconds: How long the probe may take; on a busy machine an import can take a minute.
        """
        cells = planted.cells_by_id(self.source)
        own = _defined(planted.solution(planted.text_of(cells[item.name])))
        names = {name: value for name, value in self._names.items() if name not in own}
        try:
            exec(compile(source, "<cell 0>", "exec"), names)
        except Exception:
            return item.points
        given = self._given.setdefault(item.name, self.assignment.draw(item, self.secret, 0))
        inputs = {k: v.copy() if hasattr(v, "copy") else v for k, v in given.items()}
        frame = runner.run_probe(names, self.assignment.probe(item), inputs, seconds)
        meta, found = wire.unpack(frame[8:])
        self.said = meta.get("error")
        if self.said:
            return item.points
        share, self.said = engine.judge(self.assignment, item, given, {**meta["texts"], **found})
        return sum(points * (1 - share[part]) for part, points in item.parts.items())


def _defined(source: str) -> set[str]:
    """Return the names that a cell defines."""
    space: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            space.add(node.name)
        elif isinstance(node, ast.Assign):
            space |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return space
