"""Shared by the benchmarks: the machine in words, tables, and results that are written in one step."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlhelpers.paths import atomic_path

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """Returns what a reader needs to compare times: processor, cores in use, versions, day."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "scikit-learn", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"cpu": model, "cores": cores, "versions": versions, "date": datetime.date.today().isoformat()}


def write(name: str, content: dict[str, Any]) -> None:
    """Writes ``results/<name>.json``, with the machine in it, atomically."""
    path = RESULTS / f"{name}.json"
    with atomic_path(path) as part:
        part.write_text(json.dumps({"machine": machine()} | content, indent=1) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table."""
    cells = [list(columns), *([f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def memory_kb(field: str = "RssAnon") -> int:
    """Returns a field of this process's memory, in KiB: ``RssAnon``, or ``VmHWM``, the highest total so far.

    Raises:
        OSError: Where there is no ``/proc``, as on macOS and Windows.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no field {field}")
