"""Build the website beside the last one, and put it in its place when it is whole.

A build that fails, or is stopped, leaves the website of the last one.

    python -m tools.build_book
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.numbers.provenance import ROOT

OPTIONS = ("-W", "-n", "--keep-going", "--quiet")  # a warning is an error, a dead reference is a warning


def run(root: Path, out: Path, wanted: Path, *options: str) -> str:
    """Runs jupyter-book once.

    Returns:
        What it wrote if it failed, else an empty text.
    """
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)]
    done = subprocess.run(
        [*command, "--path-output", str(out), *OPTIONS, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root,  # whose own package and extensions are used
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    if done.returncode == 0 and wanted.exists():
        return ""
    return done.stdout or f"jupyter-book ended with {done.returncode} and made no {wanted.name}"


def build(root: Path) -> str:
    """Builds ``_build/html`` of a book, and in it the learner's notebooks, for those who download them.

    Args:
        root: Folder with ``_config.yml`` and ``_toc.yml``.

    Returns:
        What the build wrote if it failed, else an empty text.
    """
    site, new, old = (root / "_build" / name for name in ("html", "new", "old"))
    if old.is_dir() and not site.is_dir():  # stopped between the two steps of a swap
        old.rename(site)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    made = new / "_build" / "html"
    wrong = run(root, new, made / "index.html")
    if not wrong and (root / "book" / "_ext" / "learner.py").is_file():
        learner = made.with_name("learner")
        wrong = run(root, new, learner, "--builder", "custom", "--custom-builder", "learner")
        if not wrong:  # the button "download" gives these; the diagrams in them lie with the website
            shutil.copytree(learner / "_images", made / "_images", dirs_exist_ok=True)
            for path in learner.glob("*.ipynb"):
                shutil.copy(path, made / "_sources" / "notebooks")
    if wrong:
        shutil.rmtree(new, ignore_errors=True)
        return wrong
    if site.is_dir():
        site.rename(old)
    made.rename(site)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    return ""


def main() -> None:
    """Build the book of this checkout."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    site = ROOT / "_build" / "html" / "index.html"
    if wrong := build(ROOT):
        kept = f"The website of the last build is still there: {site}" if site.is_file() else ""
        sys.exit(f"{wrong}\nThe book does not build: see the lines with WARNING and ERROR above. {kept}")
    print(f"The book is built. Open {site.as_uri()} in a browser, or run: make serve")


if __name__ == "__main__":
    main()
