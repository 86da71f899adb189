"""One start of a submission: its cells run in a box, then the probes go in. What came back is plain data.

The other side may lie, so every frame must be the one that is due: the cells one after another, each begun
before it ends, then an answer for each probe. Anything else ends the start.
"""

import base64
from typing import Any

import numpy as np

from tools.grading import sandbox
from tools.grading.box import wire
from tools.grading.course import Assignment

MAX_TEXT = 25_000  # characters of a cell's output
MAX_SHOWN = 6 << 20  # characters and bytes of all outputs; a page does not hold more
PNG = b"\x89PNG\r\n\x1a\n"
SLACK = 20.0  # seconds after which a cell that swallows its interrupt is ended from outside
FOREIGN = "it wrote into the grader's channel"


class Run:
    """One start of a submission.

    Attributes:
        records: Index of a cell -> what it printed, showed and raised.
        given: Item -> the inputs of its probe.
        found: Item -> what the probe found, and the error that it stopped with.
        at: Index of the cell that runs; ``None`` before the first and after the last.
        probing: The item whose probe runs.
    """

    def __init__(self, assignment: Assignment, cells: list[dict[str, Any]], secret: str, seed: int) -> None:
        self.assignment, self.cells, self.secret, self.seed = assignment, cells, secret, seed
        self.records: dict[int, dict[str, Any]] = {}
        self._left = MAX_SHOWN
        self.given: dict[str, dict[str, Any]] = {}
        self.found: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {}
        self.at: int | None = None
        self.probing: str | None = None

    def go(
        self, limits: sandbox.Limits, walls: bool, end: float, skipped: set[int], silent: set[str]
    ) -> None:
        """Runs the cells, then the probes.

        Args:
            limits: Of the submission.
            walls: Whether to use bubblewrap.
            end: When this submission's time is up, on the monotonic clock.
            skipped: Cells that are left out.
            silent: Items that are not probed.

        Raises:
            sandbox.Ended: If the process ends, or sends what is not due; `at` or `probing` says where it was.
        """
        due = [i for i, cell in enumerate(self.cells) if cell["kind"] == "code" and i not in skipped]
        job = {
            "cells": [[i, self.cells[i]["source"]] for i in due],
            "memory": limits.memory,
            "file_size": limits.file_size,
            "cell_seconds": limits.cell_seconds,
            "probe_seconds": limits.probe_seconds,
        }
        try:
            first = wire.pack(job)
        except wire.WireError:
            raise sandbox.Ended("there is too much code in its cells") from None
        with sandbox.opened(limits, walls, end) as box:
            box.send(first)
            for index in due:
                _expect(box.receive(limits.cell_seconds + SLACK)[0], "begin", index)
                self.at = index
                meta, images = box.receive(limits.cell_seconds + SLACK)
                _expect(meta, "cell", index)
                self.keep(index, meta, images)
                box.watch()
                box.send(wire.pack({}))
            _expect(box.receive(SLACK)[0], "ran", None)
            self.at = None
            for item in self.assignment.items:
                if item.by_hand or item.name in silent:
                    continue
                self.probing = item.name
                given = self.given[item.name] = self.assignment.draw(item, self.secret, self.seed)
                texts = {name: value for name, value in given.items() if not isinstance(value, np.ndarray)}
                arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
                box.send(wire.pack({"source": self.assignment.probe(item), "given": texts}, arrays))
                meta, found = box.receive(limits.probe_seconds + SLACK)
                _expect(meta, "found", None)
                said, error = meta.get("texts"), meta.get("error")
                self.found[item.name] = (
                    {**(said if isinstance(said, dict) else {}), **found},
                    error if isinstance(error, dict) else None,
                )
            self.probing = None

    def keep(self, index: int, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Keeps what a cell printed, showed and raised: of the right type, no more than a page holds."""
        text, error = meta.get("text"), meta.get("error")
        text = text[: min(MAX_TEXT, self._left)] if isinstance(text, str) else ""
        self._left -= len(text)
        images = []
        for array in arrays.values():
            image = array.tobytes()
            if image.startswith(PNG) and len(image) <= self._left:
                self._left -= len(image)
                images.append(base64.b64encode(image).decode())
        if isinstance(error, dict):
            error = {key: _short(error.get(key)) for key in ("type", "text", "cell", "line")}
        else:
            error = None
        self.records[index] = {"text": text, "images": images, "error": error}

    def shown(self) -> list[dict[str, Any]]:
        """Returns the cells with what they printed, showed and raised."""
        nothing: dict[str, Any] = {"text": "", "images": [], "error": None}
        return [
            {**cell, **self.records.get(i, nothing), "ran": i in self.records}
            for i, cell in enumerate(self.cells)
        ]


def _expect(meta: Any, event: str, cell: int | None) -> None:
    if not isinstance(meta, dict) or meta.get("event") != event or meta.get("cell") != cell:
        raise sandbox.Ended(FOREIGN)


def _short(value: Any) -> Any:
    """Returns a text or a number of an error; anything else is not one."""
    return value[:2000] if isinstance(value, str) else value if type(value) is int else None
