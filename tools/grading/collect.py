"""Reads whatever was handed in, and puts the course's own cells back."""

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.grading.course import Notebook, cell_id, is_solution, text_of

MAX_BYTES = 50 << 20
MAX_PARTS = 4_000_000  # lists, dicts and their entries: each takes far more memory than it takes in the file
MAX_CODE = 300_000  # characters of all cells
MAX_CELLS = 1000
MAX_OUTPUT = 2 << 20  # of a picture
MAX_TEXT = 20_000


class Unreadable(Exception):
    """A file cannot be used; the message says why."""


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


def content(path: Path) -> bytes:
    """Returns the bytes of a file that a student handed in.

    Raises:
        Unreadable: If it is no plain file (opening a pipe would wait for ever, a link may lead to a
            neighbour's work), or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        link = "it is a link to another place; nothing was read"
        raise Unreadable(
            link if path.is_symlink() else f"the file cannot be read ({error.strerror})"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("it is no plain file, but a pipe, a device or a folder")
        if found.st_size > MAX_BYTES:
            raise Unreadable(f"the file has {found.st_size >> 20} MB, more than {MAX_BYTES >> 20} MB")
        return file.read(MAX_BYTES + 1)


def digest(path: Path) -> str:
    """Returns what tells a file from another one, or why it cannot be read."""
    try:
        return hashlib.sha256(content(path)).hexdigest()
    except Unreadable as error:
        return str(error)


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
        held = content(path)
        if held.count(b"[") + held.count(b"{") + held.count(b",") > MAX_PARTS:
            return [], "", "the file has more parts than a notebook can have"
        text, note = decode(held)
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
            source = source.replace("\r\n", "\n").replace("\r", "\n")
            clean.append({"kind": kind, "id": cell_id(cell), "source": source, **_outputs(cell)})
    except Unreadable as error:
        return [], "", str(error)
    except Exception as error:  # whatever is in it, it is the file's fault
        return [], "", f"the file is not a valid notebook ({type(error).__name__})"
    if len(clean) > MAX_CELLS:
        return [], "", f"it has {len(clean):,} cells, more than {MAX_CELLS:,}"
    if sum(len(cell["source"]) for cell in clean) > MAX_CODE:
        return [], "", f"its cells hold more than {MAX_CODE:,} characters"
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
