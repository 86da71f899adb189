"""What computes: the processor's name, its instruction sets, and the cores that this process may use."""

import platform
from pathlib import Path


def name() -> str:
    """Returns the processor's name."""
    return _listed("model name") or platform.processor() or platform.machine()


def instructions() -> set[str] | None:
    """Returns the instruction sets, as the system calls them; ``None`` where it does not list them."""
    found = _listed("flags") or _listed("Features")
    return set(found.split()) if found else None


def _listed(field: str) -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.split(":")[0].strip() == field:
            return line.partition(":")[2].strip()
    return ""
