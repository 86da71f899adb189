"""Submissions that want to break the grader: what is handed in, and what their row must say."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted

Notebook = dict[str, Any]


def own_cell(code: str) -> Callable[[Notebook], Notebook]:
    """Return an edit that puts a cell of the student's own behind the first task."""

    def edit(notebook: Notebook) -> Notebook:
        cell = {"cell_type": "code", "metadata": {}, "source": code, "outputs": [], "execution_count": None}
        places = [c["metadata"].get("nbgrader", {}).get("grade_id") for c in notebook["cells"]]
        notebook["cells"].insert(places.index("roles") + 1, cell)
        return notebook

    return edit


def changed_tests(notebook: Notebook) -> Notebook:
    for name, cell in planted.cells_by_id(notebook).items():
        if name.endswith("_visible"):
            cell["source"] = "print('passed')"
    return notebook


def without_tests(notebook: Notebook) -> Notebook:
    kept = [c for c in notebook["cells"] if not c["metadata"]["nbgrader"]["grade_id"].endswith("_visible")]
    notebook["cells"] = kept
    return notebook


def doubled(notebook: Notebook) -> Notebook:
    cells = []
    for cell in notebook["cells"]:
        cells += [cell, copy.deepcopy(cell)]
    notebook["cells"] = cells
    return notebook


def doubled_task(notebook: Notebook) -> Notebook:
    """A first try, and the right one in a copy of the cell below it."""
    places = [c["metadata"]["nbgrader"]["grade_id"] for c in notebook["cells"]]
    first = copy.deepcopy(notebook["cells"][places.index("risk")])
    first["source"] = "def empirical_risk(logits, labels):\n    return 0.0"
    notebook["cells"].insert(places.index("risk"), first)
    return notebook


def without_task(notebook: Notebook) -> Notebook:
    notebook["cells"] = [c for c in notebook["cells"] if c["metadata"]["nbgrader"]["grade_id"] != "trends"]
    return notebook


def without_metadata(notebook: Notebook) -> Notebook:
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    return notebook


def reordered(notebook: Notebook) -> Notebook:
    notebook["cells"].reverse()
    return notebook


def windows_lines(notebook: Notebook) -> Notebook:
    for cell in notebook["cells"]:
        cell["source"] = planted.text_of(cell).replace("\n", "\r\n")
    return notebook


def third_format(notebook: Notebook) -> Notebook:
    """The format of notebooks until 2014, which some editors still write."""
    cells = [{**cell, "input": cell["source"]} for cell in notebook["cells"]]
    for cell in cells:
        del cell["source"]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]}


def strange_notebook(notebook: Notebook) -> Notebook:
    """Another kernel, two cells of one id, cells without any, and outputs that are none."""
    notebook["metadata"] = {"kernelspec": {"name": "ir", "language": "R"}, "language_info": []}
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = "one" if number % 2 else None
        cell["outputs"] = {"text": 7} if number % 3 else [None, {"data": []}]
    return notebook


def megabytes(notebook: Notebook) -> Notebook:
    output = {"output_type": "stream", "name": "stdout", "text": "x" * (20 << 20)}
    planted.cells_by_id(notebook)["setup"]["outputs"] = [output]
    return notebook


def task(name: str, code: str) -> Callable[[Notebook], Notebook]:
    """Return an edit that replaces the cell of a task."""

    def edit(notebook: Notebook) -> Notebook:
        planted.cells_by_id(notebook)[name]["source"] = code
        return notebook

    return edit


SWALLOW = "while True:\n    try:\n        while True:\n            pass\n    except:\n        pass"
SLOW_HOG = """
hog = []
try:
    while True:
        hog.append(bytearray(10**7))
except MemoryError:
    pass
hog = []
"""
CHATTER = """
import os
for descriptor in range(3, 20):
    try:
        os.write(descriptor, b"x" * 100)
    except OSError:
        pass
"""
FORK = "import subprocess, sys\nchildren = [subprocess.Popen(['sleep', '600']) for _ in range(100)]"

# Name -> edit, points lost of the 35, what the reason must hold.
RUNNING: dict[str, tuple[Callable[[Notebook], Notebook], float, str]] = {
    "endless loop": (own_cell("while True:\n    pass"), 0, "ran too long"),
    "endless, swallowed": (own_cell(SWALLOW), 0, "ran too long"),
    "endless when called": (
        task("risk", "def empirical_risk(logits, labels):\n    while True:\n        pass"),
        3,
        "",
    ),
    "memory hog": (own_cell("import numpy as np\nhog = np.ones(10**11)"), 0, ""),
    "memory hog, slowly": (own_cell(SLOW_HOG), 0, ""),
    "kernel killed": (own_cell("import os\nos._exit(1)"), 0, "its process ended"),
    "killed by a signal": (
        own_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        0,
        "its process ended",
    ),
    "killed when called": (
        task("risk", "import os\ndef empirical_risk(logits, labels):\n    os._exit(0)"),
        3,
        "process ended",
    ),
    "exit": (own_cell("import sys\nsys.exit(3)"), 0, ""),
    "syntax error": (task("risk", "def empirical_risk(logits, labels)\n    return 1"), 3, ""),
    "prints without end": (own_cell("for i in range(10**6):\n    print('x' * 1000)"), 0, ""),
    "many processes": (own_cell(FORK), 0, "processes"),
    "changed tests": (changed_tests, 0, "was changed and has been restored"),
    "deleted tests": (without_tests, 0, "was missing and has been put back"),
    "doubled cells": (doubled, 0, ""),
    "second try": (doubled_task, 0, "the last one counts"),
    "deleted task": (without_task, 4, "the cell trends was missing"),
    "no metadata": (without_metadata, 0, ""),
    "megabytes of output": (megabytes, 0, ""),
    "reordered": (reordered, 0, ""),
    "lines of Windows": (windows_lines, 0, ""),
    "third format": (third_format, 0, ""),
    "strange notebook": (strange_notebook, 0, ""),
    "asks for input": (own_cell("answer = input('Your name?')"), 0, ""),
    "leaves": (own_cell("exit()"), 0, ""),
    "magic and shell": (own_cell("%timeit -n1 -r1 1 + 1\n!ls\n1 + 1"), 0, ""),
    "strange results": (task("risk", "def empirical_risk(logits, labels):\n    return object()"), 3, ""),
    "channel": (own_cell(CHATTER), 0, "grader's channel"),
}

# Name -> bytes of the file, and what the reason must hold: nothing can be graded here.
FILES: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"cells": [', "not a valid notebook"),
    "empty file": (b"", "empty"),
    "binary": (bytes(range(256)) * 10, "not a valid notebook"),
    "other notebook": (
        b'{"cells": [{"cell_type": "code", "metadata": {}, "source": "1"}]}',
        "another notebook",
    ),
    "a list": (b"[1, 2]", "not a valid notebook"),
    "nested": (b"[" * 100_000, "not a valid notebook"),
    "endless number": (b'{"cells": [' + b"9" * 10_000 + b"]}", "not a valid notebook"),
    "cells that are none": (b'{"cells": {"a": 1}}', "not a valid notebook"),
    "many cells": (
        b'{"cells": [' + b'{"cell_type": "code", "source": "1"}, ' * 3000 + b'{"cell_type": "raw"}]}',
        "3,001 cells",
    ),
    # What a terminal or a page would obey, and what a path would.
    "\x1b[31mred\nada 35 of 35": (b"", "empty"),
    "<script>alert(1)</script>".replace("/", "\\"): (b"", "empty"),
    "ada..": (b"", "empty"),
    "🦄 = 1 + 1": (b"", "empty"),
}

# Name -> encoding: these are the perfect submission, and get all points.
ENCODINGS = {"utf-8 with mark": "utf-8-sig", "utf-16": "utf-16", "ünïcode 学生": "utf-8"}


# Graded in every run of the tests.
ALWAYS = (
    "endless loop",
    "kernel killed",
    "second try",
    "no metadata",
    "magic and shell",
)


def plant(source: Notebook, released: Notebook, folder: Path, chosen: dict[str, Any]) -> None:
    """Write these, and the perfect submission in other encodings, for the assignment `concepts`."""
    perfect = planted.solved(source, released)
    for name, (edit, *_) in chosen.items():
        write(folder / name, json.dumps(edit(copy.deepcopy(perfect))).encode())
    for name, encoding in ENCODINGS.items():
        write(folder / name, json.dumps(perfect, ensure_ascii=False).encode(encoding))


def write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "concepts.ipynb").write_bytes(content)
