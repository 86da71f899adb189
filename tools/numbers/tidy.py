"""Removes from stored notebooks what editors and runners write beside code and outputs. The outputs stay.

    python -m tools.numbers.tidy [notebooks/03_model_based.ipynb ...]

Times of execution, states of widgets and an editor's own notes differ from machine to machine, and no reader
sees them. Without a name all chapters are tidied. Standard library only.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tools.numbers.provenance import ROOT

NOTEBOOK_KEYS = ("tlhelpers",)  # what is kept of the metadata: which code made the outputs
CELL_KEYS = ("mystnb", "tags")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidy(notebook: Any) -> None:
    """Leave, in place, only the metadata that the book uses, and name one kernel."""
    about = notebook["metadata"]
    for key in [k for k in about if k not in NOTEBOOK_KEYS]:
        del about[key]
    about["kernelspec"] = dict(KERNEL)
    about["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        about = cell["metadata"]
        for key in [k for k in about if k not in CELL_KEYS or not about[k]]:
            del about[key]


def tidied(text: str) -> str:
    """Return a notebook's file as it is stored: tidy, and laid out in one way."""
    notebook = json.loads(text)
    tidy(notebook)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str]) -> None:
    """Tidy the notebooks that are named, or all chapters."""
    named = [Path(name) for name in arguments]
    for path in named or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if (new := tidied(text)) != text:
            path.write_text(new, encoding="utf-8", newline="\n")
            print(f"{path.name}: tidied")


if __name__ == "__main__":
    main(sys.argv[1:])
