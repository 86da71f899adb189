"""Runs a submission, asks it questions from outside, and counts the points.

The student's code runs in a box. When all cells have run and their outputs are here, probes go in: each
calls the student's functions on inputs that are drawn outside, and hands back numbers. They are compared
here, in a process that the student's code never enters. What is expected, and how it is compared, never
leaves this process.
"""

import builtins
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.grading import collect, sandbox
from tools.grading.box import wire
from tools.grading.course import Assignment, CourseworkError, Item, Notebook, variant
from tools.grading.release import with_seed

MAX_STARTS = 3  # a cell or a probe that ends the process is left out in the next start


@dataclass
class Row:
    """One student's result.

    Attributes:
        student: Name.
        number: The platform's number, or empty.
        points: ``item.part`` -> points; empty where nothing could be graded. Items marked by hand are
            missing until their marks are there.
        messages: ``item.part`` -> what is wrong.
        comments: Item -> the marker's comment.
        reason: Why nothing was graded, or what else to know.
        cells: What ran, with outputs, for the feedback page.
    """

    student: str
    number: str = ""
    points: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    cells: list[dict[str, Any]] = field(default_factory=list)
    graded: bool = False

    def item_points(self, item: Item) -> float | None:
        """Returns the points of an item; ``None`` where there are none yet."""
        keys = [f"{item.name}.{part}" for part in item.parts]
        if not any(key in self.points for key in keys):
            return None
        return sum(self.points.get(key, 0.0) for key in keys)

    @property
    def total(self) -> float:
        """All points so far."""
        return sum(self.points.values())


@dataclass(frozen=True)
class Settings:
    """How to grade.

    Attributes:
        secret: From which inputs are drawn.
        limits: Of a submission.
        walls: Whether to use bubblewrap where it works.
        variants: Whether each student has a notebook with numbers of its own.
        jobs: Submissions at the same time.
    """

    secret: str
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)
    walls: bool = True
    variants: bool = False
    jobs: int = 1


def grade_all(
    assignment: Assignment,
    released: Notebook,
    submissions: Sequence[collect.Submission],
    settings: Settings,
    tell: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Returns one row a submission, in the same order, whatever was handed in."""

    def one(submission: collect.Submission) -> Row:
        row = grade(assignment, released, submission, settings)
        tell(row)
        return row

    with ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        return list(pool.map(one, submissions))


def grade(
    assignment: Assignment, released: Notebook, submission: collect.Submission, settings: Settings
) -> Row:
    """Returns the row of one submission."""
    row = Row(submission.student, submission.number)
    if submission.path is None:
        row.reason = submission.reason
        return row
    seed = variant(settings.secret, submission.student) if settings.variants else 0
    merged = collect.merge(submission.path, with_seed(released, seed) if seed else released)
    if merged.reason:
        row.reason = merged.reason
        return row
    notes = list(merged.notes)
    if assignment.checks is None:  # what needs the student's own data is not run again
        row.cells = [{"text": "", "images": [], "error": None, **cell} for cell in merged.cells]
        row.graded, row.reason = True, "; ".join(notes)
        return row
    skipped: set[int] = set()
    silent: set[str] = set()
    for start in range(MAX_STARTS):
        run = _Run(assignment, merged.cells, settings, seed)
        try:
            run.go(skipped, silent)
        except sandbox.Ended as end:
            if run.probing is not None:
                silent.add(run.probing)
                notes.append(f"when the cell {run.probing} was checked, {end}; its checks count as failed")
            elif run.at is not None:
                skipped.add(run.at)
                notes.append(f"in the cell {_named(merged.cells, run.at)}, {end}; the cell was left out")
            else:
                row.reason = f"the notebook did not start: {end}"
                return row
            row.cells = _shown(merged.cells, run.records)
            if start == MAX_STARTS - 1:
                row.reason = "; ".join([*notes, "it was not started again"])
                return row
            continue
        break
    row.cells = _shown(merged.cells, run.records)
    for item in assignment.items:
        if not item.by_hand:
            _count(row, assignment, item, run, item.name in silent)
    for index in (i for i, record in run.records.items() if (record["error"] or {}).get("type") == "TooLong"):
        notes.append(f"the cell {_named(merged.cells, index)} ran too long and was stopped")
    row.graded = True
    row.reason = "; ".join(notes)
    return row


class _Run:
    """One start of a submission."""

    def __init__(
        self, assignment: Assignment, cells: list[dict[str, Any]], settings: Settings, seed: int
    ) -> None:
        self.assignment, self.cells, self.settings, self.seed = assignment, cells, settings, seed
        self.records: dict[int, dict[str, Any]] = {}
        self.given: dict[str, dict[str, Any]] = {}
        self.found: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {}
        self.at: int | None = None
        self.probing: str | None = None

    def go(self, skipped: set[int], silent: set[str]) -> None:
        """Runs the cells, then the probes.

        Raises:
            sandbox.Ended: If the process ends; `at` or `probing` says where it was.
        """
        limits = self.settings.limits
        sources = [
            cell["source"] if cell["kind"] == "code" and i not in skipped else None
            for i, cell in enumerate(self.cells)
        ]
        job = {
            "cells": sources,
            "memory": limits.memory,
            "file_size": limits.file_size,
            "cell_seconds": limits.cell_seconds,
            "probe_seconds": limits.probe_seconds,
        }
        with sandbox.opened(limits, self.settings.walls) as box:
            box.send(wire.pack(job))
            while True:
                # A cell that swallows its interrupt is ended from outside a little later.
                meta, _ = box.receive(limits.cell_seconds + 20)
                event = meta.get("event") if isinstance(meta, dict) else None
                if event == "ran":
                    break
                index = meta.get("cell") if isinstance(meta, dict) else None
                if (
                    event not in ("begin", "cell")
                    or not isinstance(index, int)
                    or not 0 <= index < len(sources)
                ):
                    raise sandbox.Ended("it wrote into the grader's channel")
                self.at = index
                if event == "cell":
                    self.records[index] = _record(meta)
                    box.watch()
                    box.send(wire.pack({}))
            self.at = None
            for item in self.assignment.items:
                if item.by_hand or item.name in silent:
                    continue
                self.probing = item.name
                given = self.given[item.name] = self.assignment.draw(item, self.settings.secret, self.seed)
                texts = {name: value for name, value in given.items() if not isinstance(value, np.ndarray)}
                arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
                box.send(wire.pack({"source": self.assignment.probe(item), "given": texts}, arrays))
                meta, found = box.receive(limits.probe_seconds + 20)
                if not isinstance(meta, dict) or meta.get("event") != "found":
                    raise sandbox.Ended("it wrote into the grader's channel")
                said, error = meta.get("texts"), meta.get("error")
                self.found[item.name] = (
                    {**(said if isinstance(said, dict) else {}), **found},
                    error if isinstance(error, dict) else None,
                )
            self.probing = None


def _count(row: Row, assignment: Assignment, item: Item, run: _Run, silent: bool) -> None:
    """Compares what an item's probe found with what is right, and writes points and messages into the row."""
    wrong = dict.fromkeys(item.parts, "")
    share = dict.fromkeys(item.parts, 1.0)
    reached: set[str] = set()
    found, error = run.found.get(item.name, ({}, None))
    if silent:
        wrong = dict.fromkeys(
            item.parts, "Your code ended the whole process or ran too long when it was called."
        )
    elif error is not None:
        wrong = dict.fromkeys(item.parts, _where(error, run.cells))
    else:
        try:
            for part, right, message in assignment.check(item)(run.given[item.name], found):
                if part not in wrong:
                    raise CourseworkError(f"{assignment.name}.{item.name} has no part {part!r}.")
                reached.add(part)
                share[part] = min(share[part], float(right))
                if right < 1 and not wrong[part]:
                    wrong[part] = message
        except CourseworkError:
            raise
        except Exception:  # what was found has a form that the check did not expect
            pass
        for part in item.parts:
            if part not in reached:
                share[part] = 0.0
                wrong[part] = "What your code returned does not have the form that the task asks for."
    if error is not None or silent:
        share = dict.fromkeys(item.parts, 0.0)
    for part, points in item.parts.items():
        row.points[f"{item.name}.{part}"] = round(points * share[part], 2)
        if wrong[part]:
            row.messages[f"{item.name}.{part}"] = wrong[part]


def _where(error: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """Says which error came, and in which line of the student's; nothing that the student's code wrote."""
    name = error.get("type")
    if name == "TooLong":
        return "Your code ran too long when it was called with other inputs."
    known = isinstance(name, str) and isinstance(getattr(builtins, name, None), type)
    text = f"Your code stopped with {name if known else 'an error'} when it was called with other inputs"
    cell, line = error.get("cell"), error.get("line")
    if isinstance(cell, int) and isinstance(line, int) and 0 <= cell < len(cells):
        lines = cells[cell]["source"].split("\n")
        if 0 < line <= len(lines):
            return f"{text}, at: {lines[line - 1].strip()[:100]}"
    if name in ("KeyError", "NameError") and cell == -1:
        return f"{text}. Is the name that the task asks for defined, and did its cell run?"
    return f"{text}."


def _record(meta: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of a cell with everything in it of the right type."""
    text, images, error = meta.get("text"), meta.get("images"), meta.get("error")
    return {
        "text": text[:25_000] if isinstance(text, str) else "",
        "images": [i for i in images if isinstance(i, str)][:8] if isinstance(images, list) else [],
        "error": error if isinstance(error, dict) else None,
    }


def _shown(cells: list[dict[str, Any]], records: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    nothing: dict[str, Any] = {"text": "", "images": [], "error": None}
    return [{**cell, **records.get(i, nothing), "ran": i in records} for i, cell in enumerate(cells)]


def _named(cells: list[dict[str, Any]], index: int) -> str:
    return str(cells[index]["id"] or f"number {index + 1} (your own)")
