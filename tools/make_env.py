"""Make a virtual environment from a lock file, once.

The environment carries a stamp: a hash of everything that decided its contents. The stamp is written last, so
an interrupted installation is never trusted, and nothing is installed twice. Standard library only: this runs
before anything is installed.

    python -m tools.make_env --dir .venv --lock py --editable
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "course-stamp"
OURS = "course-made-by-make"


def lock_file(prefix: str) -> Path:
    """Return the lock for the running Python.

    Args:
        prefix: ``py`` for everything, ``book-py`` for the website, ``oldest-py`` for the oldest dependencies.

    Raises:
        SystemExit: there is no lock for this Python.
    """
    path = ROOT / "locks" / f"{prefix}{sys.version_info.major}.{sys.version_info.minor}.txt"
    if not path.is_file():
        there = ", ".join(p.name for p in sorted(path.parent.glob(f"{prefix}*.txt"))) or "none"
        sys.exit(
            f"No lock file {path.name} for this Python; there are: {there}. Use another Python (PYTHON=...)."
        )
    return path


def wanted_stamp(lock: Path, editable: bool) -> str:
    """Return the hash of what decides an environment: Python, the lock, the package's entry points."""
    digest = hashlib.sha256(f"{sys.version}\n{editable}\n{ROOT if editable else ''}\n".encode())
    digest.update(lock.read_bytes())
    if editable:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        digest.update(repr((project["build-system"], project["project"])).encode())
    return digest.hexdigest()


def venv_python(folder: Path) -> Path:
    """Return the path of the interpreter inside a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make(folder: Path, lock: Path, editable: bool) -> None:
    """Make the environment unless it is there and up to date.

    Raises:
        SystemExit: the folder exists and was made by somebody else, or an installation step failed.
    """
    stamp = folder / STAMP
    wanted = wanted_stamp(lock, editable)
    if stamp.is_file() and stamp.read_text() == wanted and venv_python(folder).exists():
        return
    if folder.exists() and not (folder / OURS).exists():
        sys.exit(
            f"{folder} exists, but make did not make it, so make will not replace it.\n"
            "Move it away, or name another folder: make VENV=.venv-make ... (the website's: BOOK_VENV=...)."
        )
    print(
        f"Making {folder.name} from {lock.relative_to(ROOT)} (a few minutes the first time) ...", flush=True
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / OURS).touch()
    pip = [
        str(venv_python(folder)),
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "--require-hashes", "-r", str(lock)],
    ]
    if editable:
        steps.append([*pip, "--no-deps", "-e", str(ROOT)])
    for step in steps:
        if subprocess.run(step, stdin=subprocess.DEVNULL).returncode:
            sys.exit(
                f"Making {folder.name} failed at: {' '.join(step)}\nRun the same make command again to retry."
            )
    if editable:  # many processes will import TensorFlow: compiled here, by all cores, each starts 8 s sooner
        compiled = [str(venv_python(folder)), "-m", "compileall", "-qq", "-j", "0", str(folder / "lib")]
        subprocess.run(compiled, stdin=subprocess.DEVNULL)  # some packages hold files that never compile
    stamp.write_text(wanted)


def main() -> None:
    """Read the command line and make the environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", required=True, type=Path, help="where the environment goes")
    parser.add_argument("--lock", default="py", help="which family of lock files: py, book-py, oldest-py")
    parser.add_argument("--editable", action="store_true", help="also install this project, editable")
    args = parser.parse_args()
    make(args.dir.resolve(), lock_file(args.lock), args.editable)


if __name__ == "__main__":
    main()
