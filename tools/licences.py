"""Write the page of licences: what the course is built on, and on which terms.

    python -m tools.licences    # in the environment of `make env`, after `make lock`

Names and terms are read from the installed packages. A package that names none in its metadata is known by
the first lines of the licence that it brings along.
"""

import re
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tools.numbers.provenance import ROOT

PAGE = ROOT / "book" / "licences.md"
LOCK = ROOT / "locks" / "py3.11.txt"
PARTS = {"the package": "", "the notebooks": "notebooks", "development": "dev"}
HEAD = """\
(licences)=
# Licences

What this course is built on. The code of the course is under the Apache License 2.0, its text under CC BY
4.0; weights and data sets have terms of their own ({ref}`model-zoo`, {ref}`data-cards`). The column *needed
by* names the first part that brings a package along. Made by `python -m tools.licences` from what the
packages say of themselves; a package may hold files under further terms.

| package | licence | needed by |
|---|---|---|
"""
TEXTS = {"MIT License": "MIT", "Apache License": "Apache-2.0", "Permission is hereby granted, free": "MIT"}


def locked() -> list[NormalizedName]:
    """Return the names in the lock."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    return sorted(canonicalize_name(line.split("==")[0]) for line in lines if "==" in line)


def terms(package: Distribution) -> str:
    """Return what a package says of its licence.

    Raises:
        ValueError: It says nothing.
    """

    def field(name: str) -> list[str]:
        return package.metadata.get_all(name) or []

    classes = [c.split(" :: ")[-1] for c in field("Classifier") if c.startswith("License ::")]
    stated = [text.split("\n")[0] for text in field("License")]
    said = [*field("License-Expression"), ", ".join(classes), *stated]
    if found := next((text for text in said if text and text != "UNKNOWN"), ""):
        return found[:80]
    for file in package.files or ():
        if re.search(r"licen[cs]e|copying", file.name, re.I) and Path(str(file.locate())).is_file():
            text = " ".join(file.read_text(encoding="utf-8").split())[:600]
            if found := next((name for begin, name in TEXTS.items() if begin in text), ""):
                return found
    raise ValueError(f"{package.name} names no licence: look it up and add a rule.")


def needed(extra: str) -> set[str]:
    """Return all packages that the project brings along with an extra."""
    found: set[str] = set()
    waiting = [("tlhelpers", frozenset({extra} if extra else ()))]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            lines = distribution(name).requires or []
        except ModuleNotFoundError:  # of another system
            continue
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in (*extras, "")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def page() -> str:
    """Return the page."""
    by_part = {part: needed(extra) for part, extra in PARTS.items()}
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    rows = []
    for name in locked():
        part = next((part for part, names in by_part.items() if name in names), "development")
        rows.append(f"| {name} | {terms(installed[name])} | {part} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
