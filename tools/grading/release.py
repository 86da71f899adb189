"""The students' notebooks: nbgrader takes the solutions out, and each assignment becomes a zip file."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tools import repo_url
from tools.grading.course import (
    COURSE,
    Assignment,
    CourseworkError,
    Notebook,
    read_notebook,
    text_of,
    variant,
)

SEED = re.compile(r"^SEED = \d+", re.M)
COLAB = "https://colab.research.google.com/"


def warnings() -> list[str]:
    """Returns what an instructor should know before students get the release."""
    if repo_url.stored_url().split("/")[-2] == "OWNER":
        return [
            "The address of the course's repository still has OWNER in it: notebooks cannot install "
            "the package on Colab. Run make repo-url URL=..., with the address of the public course."
        ]
    return []


def build(assignments: Sequence[Assignment], out: Path, colab: str | None = None) -> dict[str, Notebook]:
    """Returns the released notebook of each assignment, and writes them to ``out/<name>/`` and
    ``out/<name>.zip``.

    Args:
        assignments: Which.
        out: Where the notebooks go.
        colab: Address behind the button "Open in Colab", with ``{name}`` for the assignment. Without one, the
            button leads to Colab, where students upload the file.

    Raises:
        CourseworkError: If nbgrader refuses a source.
    """
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder) / "course"
        course.mkdir()
        for path in COURSE.glob("*.py"):
            shutil.copy(path, course)
        for assignment in assignments:
            shutil.copytree(COURSE / "source" / assignment.name, course / "source" / assignment.name)
        log = _nbgrader(course, "generate_assignment", "*", "--create", "--force")  # one start for all
        released = {}
        for assignment in assignments:
            built = course / "release" / assignment.name / assignment.notebook
            if not built.is_file():
                raise CourseworkError(f"nbgrader could not build the release of {assignment.name}:\n{log}")
            notebook = read_notebook(built)
            _add_colab(notebook, assignment, colab)
            released[assignment.name] = notebook
            target = out / assignment.name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(built.parent, target)
            write(notebook, target / assignment.notebook)
            _zip(target, out / f"{assignment.name}.zip")
    return released


def build_variants(
    notebook: Notebook, assignment: Assignment, students: Sequence[str], secret: str, out: Path
) -> None:
    """Writes a notebook for each student, with numbers and data of its own, to ``out/<name>-variants/``."""
    folder = out / f"{assignment.name}-variants"
    shutil.rmtree(folder, ignore_errors=True)
    for student in students:
        own = with_seed(notebook, variant(secret, student))
        write(own, folder / student.replace("/", "_") / assignment.notebook)


def with_seed(notebook: Notebook, seed: int) -> Notebook:
    """Returns the notebook with another number in the line ``SEED = 0``."""
    own: Notebook = json.loads(json.dumps(notebook))
    for cell in own["cells"]:
        if cell["cell_type"] == "code" and SEED.search(text_of(cell)):
            cell["source"] = SEED.sub(f"SEED = {seed}", text_of(cell), count=1)
            return own
    raise CourseworkError("The notebook has no line `SEED = 0`, so it cannot be varied.")


def write(notebook: Notebook, path: Path) -> None:
    """Writes a notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _add_colab(notebook: Notebook, assignment: Assignment, colab: str | None) -> None:
    """Adds a button to the first cell, and the cell that installs the package on Colab behind it.

    The package comes from the public course. The notebook does not: the instructor may keep it private.
    """
    url = repo_url.stored_url()
    address = (colab or COLAB).replace("{name}", assignment.name)
    how = "" if colab else f" Then upload `{assignment.notebook}`, the file that you were given."
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    first = notebook["cells"][0]
    title, _, rest = text_of(first).partition("\n")
    first["source"] = f"{title}\n\n[![Open in Colab]({badge})]({address}){how}\n{rest}"
    mark = {"grade": False, "grade_id": "colab", "locked": True, "schema_version": 3, "solution": False}
    notebook["cells"].insert(
        1,
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "colab",
            "metadata": {"nbgrader": {**mark, "task": False}, "tags": [repo_url.TAG]},
            "outputs": [],
            "source": repo_url.cell_source(url),
        },
    )


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(folder.name) / file.relative_to(folder))


def _nbgrader(course: Path, *arguments: str) -> str:
    """Runs nbgrader in a course root, without the user's Jupyter settings, and returns its log."""
    # nbgrader calls alembic, which lies beside the Python that runs this.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {
        "PATH": path,
        "JUPYTER_CONFIG_DIR": str(course / "jupyter"),
        "IPYTHONDIR": str(course / "ipython"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.stdout
