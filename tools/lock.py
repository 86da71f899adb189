"""Write the lock files with uv: for each Python everything and the website; the oldest versions; Binder's.

    python -m tools.lock [--upgrade]

The locks install ``tensorflow-cpu`` where the package asks for ``tensorflow``: the same library without what
a GPU needs, for tests and CI. Without ``--upgrade`` versions that still fit are kept. Each file of a package
has its hash, and pip installs no other (``--require-hashes``).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
BINDER_PYTHON = "3.11"  # binder/runtime.txt
OLDEST_PYTHON = "3.11"  # TensorFlow 2.18 has no wheel for Python 3.13
TENSORFLOW = "2.18"


def uv() -> str:
    """Return the path of uv, from the PATH or from beside this interpreter.

    Raises:
        SystemExit: uv is not installed.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        sys.exit("uv is missing. Run `make lock`, which installs it, or `pip install uv`.")
    return found


def compile_lock(
    name: str, python: str, requirements: list[str], extras: list[str], options: list[str], upgrade: bool
) -> None:
    """Resolve requirements for one Python and write ``locks/<name>``.

    Raises:
        SystemExit: the requirements do not resolve.
    """
    target = LOCKS / name
    with tempfile.TemporaryDirectory() as tmp:
        inputs = Path(tmp) / "requirements.in"
        inputs.write_text("\n".join(requirements) + "\n")
        overrides = Path(tmp) / "overrides.txt"
        overrides.write_text("tensorflow ; sys_platform == 'never'\n")
        fresh = Path(tmp) / "lock.txt"
        if target.is_file() and not upgrade:
            shutil.copy(target, fresh)  # uv prefers the versions that it finds in its output file
        command = [
            uv(),
            "pip",
            "compile",
            str(inputs),
            "--python-version",
            python,
            "-o",
            str(fresh),
            "--quiet",
        ]
        command += ["--overrides", str(overrides), "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--only-binary", ":all:", "--no-python-downloads"]
        command += ["--generate-hashes", *options]
        if extras:
            command += [str(ROOT / "pyproject.toml")]
            for extra in extras:
                command += ["--extra", extra]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            sys.exit(f"locks/{name}: the requirements do not resolve (see above).")
        lines = [
            line for line in fresh.read_text().splitlines() if not line.startswith(("tlhelpers", "-e ", "#"))
        ]
    header = f"# Python {python}. Made by `make lock`; do not edit.\n"
    target.write_text(header + "\n".join(lines) + "\n")
    print(f"locks/{name}: {len(packages(target))} packages")


def packages(lock: Path) -> list[str]:
    """Return the packages of a lock with their versions, ``name==1.2``, without the hashes of their files."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line[:1].isalnum()]


def book_requirements() -> list[str]:
    """Return the requirements of the website alone: the extra ``book`` without the package's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"]["book"])


def main() -> None:
    """Write all lock files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade
    LOCKS.mkdir(exist_ok=True)
    cpu = [f"tensorflow-cpu>={TENSORFLOW}"]
    for python in PYTHONS:
        compile_lock(f"py{python}.txt", python, cpu, ["dev"], [], upgrade)
        compile_lock(f"book-py{python}.txt", python, book_requirements(), [], [], upgrade)
    oldest = ["--resolution", "lowest-direct"]
    # What a notebook needs where Jupyter itself is given, in the versions of the tests.
    tested = ["--constraint", str(LOCKS / f"py{BINDER_PYTHON}.txt")]
    compile_lock(f"binder-py{BINDER_PYTHON}.txt", BINDER_PYTHON, cpu, ["colab"], tested, upgrade)
    compile_lock(f"oldest-py{OLDEST_PYTHON}.txt", OLDEST_PYTHON, cpu, ["dev"], oldest, upgrade)


if __name__ == "__main__":
    main()
