"""Shared by the benchmarks: the machine in words, and results that are printed and written in one step."""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlhelpers.paths import atomic_path

RESULTS = Path(__file__).resolve().parent / "results"
sys.path.insert(0, str(RESULTS.parents[1]))

from tools.numbers import provenance

# Of the instruction sets those on which the speed of a network depends.
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")


def machine() -> dict[str, Any]:
    """Returns what a reader needs to compare times: processor, instructions, cores in use, versions, day."""
    model, sets = platform.processor() or platform.machine(), []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(line.partition(":")[::2] for line in info.read_text().splitlines())
        named = {name.strip(): text.split() for name, text in fields.items()}
        model = " ".join(named.get("model name", [])) or model
        sets = [name for name in TELLING if name in named.get("flags", named.get("Features", []))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "openvino", "scikit-learn", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    about = {"cpu": model, "instructions": sets, "cores": cores, "versions": versions}
    return about | {"date": datetime.date.today().isoformat()}


def write(name: str, table: dict[str, Any], content: dict[str, Any]) -> None:
    """Writes ``results/<name>.json`` atomically: the machine, the code's hash, the table, and all else.

    Args:
        name: Of the result.
        table: From `table`: the website shows it.
        content: What was measured.
    """
    path = RESULTS / f"{name}.json"
    script = Path(sys.argv[0]).resolve()
    about = {"script": f"benchmarks/{script.name}", "code": provenance.script_code(script)}
    with atomic_path(path) as part:
        text = json.dumps({"machine": machine()} | about | {"table": table} | content, indent=1)
        part.write_text(text + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Prints a table and returns it: ``columns``, and ``rows`` of texts."""
    texts = [[f"{v:.3g}" if isinstance(v, float) else f"{v}" for v in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
    for row in [list(columns), *texts]:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)), flush=True)
    return {"columns": list(columns), "rows": texts}


def memory_kb(field: str = "RssAnon") -> int:
    """Returns a field of this process's memory, in KiB: ``RssAnon``, or ``VmHWM``, the highest total so far.

    Raises:
        OSError: Where there is no ``/proc``, as on macOS and Windows.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no field {field}")
