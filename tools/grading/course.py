"""What an assignment is: a notebook, items with points and outcomes, and checks that students never see."""

import hashlib
import importlib.util
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
COURSE = ROOT / "coursework"
DEMONSTRATION = "demonstration"  # the secret where none is set; everybody can read it here
OUTCOME = re.compile(r"tl-[a-z0-9]{2}-\d+")

Notebook = dict[str, Any]
Findings = Iterator[tuple[str, float, str]]  # part, share of it that is right (0..1), what is wrong


class CourseworkError(Exception):
    """The coursework or the submissions cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Item:
    """One graded item.

    Attributes:
        name: Also the id of the cell that the student fills in.
        title: In words.
        outcomes: Ids of the learning outcomes that it assesses.
        parts: Name of a part -> points. A part may be half right.
        by_hand: Whether a person marks it, by the rubric.
    """

    name: str
    title: str
    outcomes: tuple[str, ...]
    parts: Mapping[str, float]
    by_hand: bool = False

    @property
    def points(self) -> float:
        """Most points."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Assignment:
    """One assignment.

    Attributes:
        name: Of its folder, its notebook and its checks.
        title: In words.
        minutes: A student's time.
        items: In the order of the notebook.
        checks: The functions of its checks; ``None`` where a person marks everything.
        drawn: Inputs that were drawn already: some are looked for until mistakes show.
    """

    name: str
    title: str
    minutes: int
    items: tuple[Item, ...]
    checks: SimpleNamespace | None
    drawn: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def notebook(self) -> str:
        """Name of the file that students hand in."""
        return f"{self.name}.ipynb"

    @property
    def points(self) -> float:
        """Most points."""
        return sum(item.points for item in self.items)

    def source(self) -> Notebook:
        """Returns the one source of solution and release."""
        return read_notebook(COURSE / "source" / self.name / self.notebook)

    def draw(self, item: Item, secret: str, seed: int) -> dict[str, Any]:
        """Returns the inputs of an item's probe: arrays, numbers, texts. The same for the same secret."""
        key = f"{secret}|{self.name}|{item.name}"
        if key not in self.drawn:
            rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
            function = getattr(self.checks, f"draw_{item.name}", None)
            self.drawn[key] = function(rng) if function else {}
        return {"seed": seed, **self.drawn[key]}

    def probe(self, item: Item) -> str:
        """Returns the source of the function that runs beside the student's code."""
        source = inspect.getsource(getattr(self.checks, f"probe_{item.name}"))
        return source.replace(f"def probe_{item.name}(", "def probe(", 1)

    def check(self, item: Item) -> Callable[[dict[str, Any], dict[str, Any]], Findings]:
        """Returns the function that compares what the probe found with what is right."""
        function: Callable[[dict[str, Any], dict[str, Any]], Findings]
        function = getattr(self.checks, f"check_{item.name}")
        return function


def read_notebook(path: Path) -> Notebook:
    """Returns a notebook of the course as it is stored."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def cell_id(cell: Mapping[str, Any]) -> str | None:
    """Returns the id under which the course knows a cell, or ``None``."""
    metadata = cell.get("metadata")
    mark = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    found = mark.get("grade_id") if isinstance(mark, dict) else None
    return found if isinstance(found, str) else None


def is_solution(cell: Mapping[str, Any]) -> bool:
    """Tells whether a cell of the course is one that students fill in."""
    return bool(cell["metadata"]["nbgrader"].get("solution"))


def text_of(cell: Mapping[str, Any]) -> str:
    """Returns the text of a cell."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else source


def table(path: Path = COURSE / "items.toml") -> dict[str, Any]:
    """Returns the table of all items, as it is written."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def names() -> list[str]:
    """Returns the names of the assignments, in the order of the course."""
    return list(table())


def load(name: str) -> Assignment:
    """Returns an assignment.

    Raises:
        CourseworkError: If there is none of that name.
    """
    every = table()
    if name not in every:
        raise CourseworkError(f"There is no assignment {name!r}. There are: {', '.join(every)}.")
    entry = every[name]
    items = tuple(
        Item(
            key,
            value["title"],
            tuple(value["outcomes"]),
            {part: float(points) for part, points in value["parts"].items()},
            value.get("by_hand", False),
        )
        for key, value in entry["items"].items()
    )
    return Assignment(name, entry["title"], entry["minutes"], items, _checks(name))


def _checks(name: str) -> SimpleNamespace | None:
    """Returns what the files ``<name>.py`` and ``<name>_*.py`` define, and in ``source`` their text."""
    paths = sorted([*(COURSE / "checks").glob(f"{name}.py"), *(COURSE / "checks").glob(f"{name}_*.py")])
    found: dict[str, Any] = {}
    for path in paths:
        spec = importlib.util.spec_from_file_location(f"checks_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= vars(module)
    return SimpleNamespace(**found, source="".join(p.read_text("utf-8") for p in paths)) if paths else None


def secret() -> str:
    """Returns the instructor's secret: ``COURSEWORK_SECRET``, else ``coursework/secret.txt``, else ours."""
    chosen = os.environ.get("COURSEWORK_SECRET", "").strip()
    path = COURSE / "secret.txt"
    if not chosen and path.is_file():
        chosen = path.read_text(encoding="utf-8").strip()
    return chosen or DEMONSTRATION


def variant(secret: str, student: str) -> int:
    """Returns the seed of a student's own numbers and data; it does not tell the secret."""
    digest = hashlib.sha256(f"{secret}|variant|{student}".encode()).digest()
    return 1 + int.from_bytes(digest[:4], "little") % 9999


def outcomes_of_book(root: Path = ROOT) -> dict[str, str]:
    """Returns all learning outcomes that the book promises: id -> the sentence after it."""
    found: dict[str, str] = {}
    for path in sorted([*(root / "book").glob("*.md"), *(root / "notebooks").glob("*.ipynb")]):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join(text_of(cell) for cell in cells if cell["cell_type"] == "markdown")
        items = re.split(r"\n(?=[-#]|\n)", text)
        for item in items:
            if match := re.match(r"- \{outcome\}`(" + OUTCOME.pattern + r")`\s+(.*)", item.strip(), re.S):
                found[match[1]] = " ".join(match[2].split()).rstrip(";.")
    return found


def assessed() -> dict[str, list[str]]:
    """Returns for each outcome the graded items that assess it, as ``assignment.item``."""
    found: dict[str, list[str]] = {}
    for name, entry in table().items():
        for item, value in entry["items"].items():
            for outcome in value["outcomes"]:
                found.setdefault(outcome, []).append(f"{name}.{item}")
    return found
