"""Reads hostile files in a process of its own, with little memory and little time.

So a crash, a hang or a full memory is a result, and not the end of the tests. Run as a script, it reads a
list of files from its standard input and prints a line before and after each.
"""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a file: ``kind`` is "read", the name of an error, "killed by SIGSEGV" and the like."""

    kind: str
    text: str
    seconds: float
    megabytes: float


def read_all(
    reader: str, paths: Sequence[Path], seconds: int = 5, megabytes: int = 200
) -> dict[Path, Outcome]:
    """Reads each file.

    Args:
        reader: A key of ``READERS``.
        paths: The files.
        seconds: What one file may take.
        megabytes: What all may take, above what the process has before the first.
    """
    found: dict[Path, Outcome] = {}
    left = list(paths)
    while left:
        order = json.dumps([str(path) for path in left])
        command = [sys.executable, __file__, reader, str(seconds), str(megabytes)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.run(command, input=order, capture_output=True, text=True, env=environment)
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        found |= {Path(line.pop("path")): Outcome(**line) for line in lines if "kind" in line}
        if child.returncode >= 0 and not lines:
            raise RuntimeError(f"the child could not begin: {child.stderr[-2000:]}")
        if child.returncode:
            last = Path(lines[-1]["path"])
            how = signal.Signals(-child.returncode).name if child.returncode < 0 else child.returncode
            found[last] = Outcome(f"killed by {how}", child.stderr[-500:], float(seconds), 0.0)
        left = [path for path in left if path not in found]
    return found


def _weights():  # type: ignore[no-untyped-def]
    # The module alone: its package would import Keras, which takes seconds.
    import importlib.util

    path = ROOT / "tlhelpers" / "backbones" / "_torch_weights.py"
    spec = importlib.util.spec_from_file_location("torch_weights", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch_weights"] = module
    spec.loader.exec_module(module)

    def read(path: Path) -> str:
        arrays = module.read_state_dict(path)
        assert sum(array.nbytes for array in arrays.values()) <= path.stat().st_size
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()

    return read


def _picture():  # type: ignore[no-untyped-def]
    from tlhelpers.data import _scan
    from tlhelpers.data._image_files import open_images

    opened = {}

    def read(path: Path) -> str:
        root = path.parents[1]
        files = opened.setdefault(root, opened.get(root) or open_images(root, "pictures/"))
        look = _scan._look(files, path.relative_to(root).as_posix())
        return look if isinstance(look, str) else ""

    return read


def _folder():  # type: ignore[no-untyped-def]
    from tlhelpers.data import folder_check

    def read(path: Path) -> str:
        return str(folder_check.load(path, 32)[1])

    return read


READERS = {"weights": _weights, "picture": _picture, "folder": _folder}


def main() -> None:
    import resource

    reader, seconds, megabytes = sys.argv[1:]
    paths = json.load(sys.stdin)
    read = READERS[reader]()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in paths:
        print(json.dumps({"path": path}), flush=True)
        before, started = _peak(), time.perf_counter()
        signal.alarm(int(seconds))  # ends the process, whatever it is doing
        try:
            kind, text = "read", read(Path(path))
        except BaseException as error:
            kind, text = type(error).__name__, str(error)
        signal.alarm(0)
        took = time.perf_counter() - started
        print(
            json.dumps(
                {"path": path, "kind": kind, "text": text, "seconds": took, "megabytes": _peak() - before}
            ),
            flush=True,
        )


def _peak() -> float:
    """Returns the most memory that the process has had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
