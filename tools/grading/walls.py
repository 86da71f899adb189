"""The walls around a submission: what bubblewrap lets it see, and how much of what it may write.

All that a submission can write to lies in memory and has a size. It has no capabilities and cannot make
namespaces, so it can mount nothing that has none.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from tools.grading.course import ROOT

LIBRARY = Path(__file__).resolve().parent / "box"
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt"),
    *(f"/etc/{name}" for name in ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime")),
)
WALLS = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
    *("--die-with-parent", "--new-session", "--clearenv"),
)
WARNING = """\
************************************************************************************************************
*  NO SANDBOX. Submissions run with YOUR rights. They can read and change your files, use the network, and *
*  read the checks, the answers and your secret (from the disk, and from /proc while the grader runs). The *
*  points can be forged: do not rely on them. Memory and disk are watched, not walled.                     *
************************************************************************************************************"""
REFUSAL = """\
Nothing was graded: bubblewrap, which walls submissions in, does not work here{why}.
- On Debian or Ubuntu: sudo apt-get install bubblewrap (0.8 or newer: Debian 12, Ubuntu 24.04).
- On macOS, Windows or an older Linux: use the container line in the instructor's guide.
- --unsafe grades without walls: submissions run with your rights and can read your files and the answers."""


@cache
def bubblewrap() -> tuple[str | None, str]:
    """Returns the path of bubblewrap if Python starts in it here, and why it does not."""
    path = shutil.which("bwrap")
    if not sys.platform.startswith("linux"):
        return None, "; it is for Linux"
    if path is None:
        return None, "; it is not installed"
    test = [*command(path, 1 << 20)[:-2], "-c", "import IPython, numpy, tlhelpers"]
    try:
        done = subprocess.run(test, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f" ({type(error).__name__})"
    said = done.stderr.strip().split("\n")[-1]
    return (path, "") if done.returncode == 0 else (None, f" ({said[:200]})")


def python_folders() -> list[str]:
    """Returns the folders that Python and its packages need, outermost first."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent)}
    found |= {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    folders = sorted({str(Path(folder).resolve()) for folder in found} | {sys.prefix})
    kept: list[str] = []
    for folder in folders:
        if folder != "/" and not any(folder == k or folder.startswith(f"{k}/") for k in [*kept, *SYSTEM]):
            kept.append(folder)
    return kept


def environment(home: str, library: str) -> dict[str, str]:
    """Returns the environment of a submission: nothing of the user's own."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": library,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTRAOP_THREADS": "1",  # small networks: one thread takes a quarter less of a core's time
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "IPYTHONDIR": f"{home}/ipython",
        "KERAS_HOME": f"{home}/keras",
        "TLHELPERS_CACHE": f"{home}/cache",
        "PIP_NO_INDEX": "1",  # `!pip install` fails at once, not after minutes without a network
    }


def command(bwrap: str, folder_size: int) -> list[str]:
    """Returns the command line that runs Python inside bubblewrap, in an empty folder in memory."""
    line = [bwrap, *WALLS]
    for name, value in environment("/box", "/course").items():
        line += ["--setenv", name, value]
    for path in SYSTEM:
        line += ["--ro-bind-try", path, path]
    line += ["--proc", "/proc", "--dev", "/dev"]
    for path, size in (("/box", 1), ("/tmp", 4), ("/dev/shm", 4)):
        line += ["--size", str(folder_size // size), "--tmpfs", path]
    for path in python_folders():  # these may lie in /tmp
        line += ["--ro-bind", path, path]
    line += ["--ro-bind", str(ROOT / "tlhelpers"), "/course/tlhelpers"]
    line += ["--ro-bind", str(LIBRARY), "/course/grading/box"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/box"]
    return [*line, sys.executable, "-m", "grading.box.runner"]
