"""Fine-tuning on two devices against one, and what becomes of a last batch that does not divide.

    python benchmarks/devices.py

Needs JAX, which is not among the course's packages (pip install jax). The script that trains is that of
chapter 24, taken from its notebook. Each row is a process, in which JAX passes a CPU off as so many
devices. Nothing here depends on how fast the machine is.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from _common import table, write

CHAPTER = Path(__file__).parents[1] / "notebooks" / "24_beyond_one_machine.ipynb"
SUM = "sum_over_batch_size"  # what Keras divides by unless told otherwise
CASES = {
    "all full": [("1", "64", "keep"), ("2", "64", "keep")],
    "one image": [("1", "65", "keep"), ("2", "65", "keep")],
    "dropped": [("2", "65", "drop")],
    "padded": [("2", "65", "pad"), ("2", "65", "pad", SUM)],
}


def script() -> str:
    """Returns the chapter's script: the text that its two cells assign."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    code = [
        "".join(cell["source"])
        for cell in cells
        if cell["id"] in ("beyond-jax-script", "beyond-jax-training")
    ]
    names: dict[str, str] = {}
    exec("\n".join(code), names)
    return names["DEVICES"]


def main() -> None:
    """Trains, prints and writes."""
    rows, losses = [], {}
    for last, cases in CASES.items():
        for case in cases:
            command = [sys.executable, "-c", script(), *case]
            env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            said = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
            by = "images" if SUM in case else "weights"
            ended = said.split(":")[0].rpartition(".")[2] if done.returncode else f"{float(said):.4f}"
            rows.append([case[0], case[1], last, by, ended])
            print(*rows[-1], flush=True)
            losses[" ".join(case)] = None if done.returncode else float(said)
    pairs = (("1 64 keep", "2 64 keep"), ("1 65 keep", "2 65 pad"))
    apart = {b: abs(losses[a] - losses[b]) for a, b in pairs}
    columns = ["devices", "images", "last batch", "loss divided by its", "loss on other images"]
    shown = table(columns, rows)
    about = {"jax": version("jax"), "losses": losses, "apart": apart, "furthest": max(apart.values())}
    write("devices", shown, about)


if __name__ == "__main__":
    main()
