"""Finds submissions, reads whatever was handed in, and puts the course's own cells back."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.grading.course import Assignment, CourseworkError, Notebook, cell_id, is_solution, text_of

MAX_BYTES = 200 << 20
MAX_OUTPUT = 2 << 20  # of a picture
MAX_TEXT = 20_000
# How learning platforms name what they export.
CANVAS = re.compile(r"^(?P<name>[^\W\d_]+)(?:_LATE)?_(?P<number>\d+)_\d+_.*$")
MOODLE = re.compile(r"^(?P<name>.+)_(?P<number>\d+)_assignsubmission_file_?$")


@dataclass
class Submission:
    """What one student handed in.

    Attributes:
        student: Name, of the folder or the file.
        number: The platform's number of the student, where the name holds one.
        path: The notebook; ``None`` where there is none.
        reason: Why there is none.
    """

    student: str
    number: str = ""
    path: Path | None = None
    reason: str = ""


@dataclass
class Merged:
    """A submission that is ready to run: the course's cells, with the student's answers in them.

    Attributes:
        cells: In order; ``kind`` is "code" or "markdown", ``id`` the course's id or ``None``, ``source``,
            and ``own`` for a cell that the student wrote or changed.
        notes: What had to be mended.
        reason: Why it cannot be graded; empty if it can.
    """

    cells: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str = ""


def identity(name: str) -> tuple[str, str]:
    """Returns a student's name and platform number from the name of a file or folder."""
    match = MOODLE.match(name) or CANVAS.match(name)
    return (match["name"], match["number"]) if match else (name, "")


def find(folder: Path, assignment: Assignment, roster: Sequence[str] = ()) -> list[Submission]:
    """Returns a submission for each student, sorted by name.

    A submission is ``folder/<student>/<assignment>.ipynb`` or ``folder/<student>.ipynb``; the names that
    Canvas and Moodle give are understood.

    Raises:
        CourseworkError: If there is no folder, nothing in it, or a student twice.
    """
    if not folder.is_dir():
        raise CourseworkError(f"There is no folder {folder}. Give one with a subfolder for each student.")
    found: dict[str, Submission] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            student, number = identity(path.name)
            one = Submission(student, number, *_inside(path, assignment))
        elif path.suffix == ".ipynb":
            student, number = identity(path.stem)
            one = Submission(student, number, path)
        else:
            continue
        if student in found:
            raise CourseworkError(
                f"There are two submissions of {student}: {path.name} and another. Remove one."
            )
        found[student] = one
    for student in roster:
        found.setdefault(student, Submission(student, reason="nothing was handed in"))
    if not found:
        raise CourseworkError(f"{folder} has neither subfolders nor notebooks in it.")
    return [found[student] for student in sorted(found)]


def _inside(folder: Path, assignment: Assignment) -> tuple[Path | None, str]:
    wanted = [folder / assignment.notebook, folder / assignment.name / assignment.notebook]
    for path in wanted:
        if path.is_file():
            return path, ""
    others = sorted(p.name for p in folder.iterdir())
    there = f"there is: {', '.join(others[:5])}" if others else "the folder is empty"
    return None, f"no {assignment.notebook}; {there}"


def decode(content: bytes) -> tuple[str, str]:
    """Returns a text and a note on its encoding; a notebook should be UTF-8, but not every editor knows."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), "the file was in UTF-16"
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "the file was not in UTF-8"


def read(path: Path) -> tuple[list[dict[str, Any]], str, str]:
    """Returns the cells of a file that should be a notebook, a note, and why it is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return [], "", f"the file is larger than {MAX_BYTES >> 20} MB"
        text, note = decode(path.read_bytes())
        if not text.strip():
            return [], "", "the file is empty"
        notebook = json.loads(text)
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        clean = []
        for cell in cells:
            kind = "code" if cell["cell_type"] == "code" else "markdown"
            source = text_of({"source": cell.get("source", cell.get("input", ""))})
            if not isinstance(source, str):
                raise TypeError
            source = source.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
            clean.append({"kind": kind, "id": cell_id(cell), "source": source, **_outputs(cell)})
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return [], "", f"the file is not a valid notebook ({type(error).__name__})"
    return clean, note, ""


def merge(path: Path, released: Notebook) -> Merged:
    """Puts a student's answers into the released notebook; the student's further cells stay where they were.

    Test cells and all other cells of the course come from the release, whatever the student did to them.
    """
    cells, note, reason = read(path)
    result = Merged(notes=[note] if note else [], reason=reason)
    if reason:
        return result
    course = {cell_id(cell): cell for cell in released["cells"]}
    first_lines = {
        _first_line(text_of(cell)): cell_id(cell)
        for cell in released["cells"]
        if cell["cell_type"] == "code" and is_solution(cell)
    }
    answers: dict[str, list[dict[str, Any]]] = {}
    extra: dict[str | None, list[dict[str, Any]]] = {}
    last: str | None = None
    seen: set[str] = set()
    for cell in cells:
        known = cell["id"] if cell["id"] in course else None
        if known is None and cell["kind"] == "code":  # some editors drop what they do not know
            known = first_lines.get(_first_line(cell["source"]))
        if known is None:
            if cell["source"].strip():
                extra.setdefault(last, []).append({**cell, "id": None, "own": True})
            continue
        seen.add(known)
        last = known
        if is_solution(course[known]):
            answers.setdefault(known, []).append(cell)
        elif cell["source"].strip() != text_of(course[known]).strip() and known.endswith("_visible"):
            result.notes.append(f"the test cell {known} was changed and has been restored")
    wanted = {name for name, cell in course.items() if name and is_solution(cell)}
    if not seen & wanted:
        result.reason = "none of the assignment's task cells is in it; is it another notebook?"
        return result
    result.cells += extra.get(None, [])
    for cell in released["cells"]:
        name = cell_id(cell)
        assert name is not None
        merged = {"source": text_of(cell), "own": False}
        if is_solution(cell):
            options = [c for c in answers.get(name, []) if c["source"].strip() != text_of(cell).strip()]
            if len(options) > 1:
                result.notes.append(f"the cell {name} was there {len(options)} times; the last one counts")
            if name not in answers:
                result.notes.append(f"the cell {name} was missing")
            merged = {**(options or [merged])[-1], "own": True}
        elif name not in seen and name.endswith("_visible"):
            result.notes.append(f"the test cell {name} was missing and has been put back")
        kind = "code" if cell["cell_type"] == "code" else "markdown"
        result.cells.append({**merged, "kind": kind, "id": name})
        result.cells += extra.get(name, [])
    return result


def _outputs(cell: dict[str, Any]) -> dict[str, Any]:
    """Returns the texts and pictures that were stored with a cell, for what is not run again."""
    texts: list[str] = []
    images: list[str] = []
    stored = cell.get("outputs")
    for output in stored if isinstance(stored, list) else []:
        if not isinstance(output, dict):
            continue
        data: Any = output.get("data")
        data = data if isinstance(data, dict) else {}
        png = text_of({"source": data.get("image/png", "")})
        if isinstance(png, str) and 0 < len(png) < MAX_OUTPUT and len(images) < 8:
            images.append("".join(png.split()))
        else:
            text = text_of({"source": output.get("text", data.get("text/plain", ""))})
            texts.append(text[:MAX_TEXT] if isinstance(text, str) else "")
    return {"text": "".join(texts)[:MAX_TEXT], "images": images}


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()
