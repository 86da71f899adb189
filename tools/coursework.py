"""Build the assignment's release, and grade a folder of submissions, with nbgrader and without a server.

    python tools/coursework.py release [--out build/assignments]
    python tools/coursework.py grade SUBMISSIONS [--csv build/grades.csv] [--roster names.txt] [--jobs 2]

A submission is ``SUBMISSIONS/<student>/repair.ipynb`` or ``SUBMISSIONS/<student>.ipynb``. Each student gets
a row, whatever was handed in: where nothing could be graded, the row says why and the points stay empty.
Submissions run with the rights of the user who calls this; the instructor's guide says what follows.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "coursework"
ASSIGNMENT = "repair"
NOTEBOOK = f"{ASSIGNMENT}.ipynb"
PARTS = ("visible", "hidden")  # a graded cell is called <task>_<part>
# Of a failure, nbgrader's log has a line for a person and many for a programmer; these are the former.
REASONS = (
    (re.compile(r"DeadKernelError|Kernel died", re.I), "the kernel died while the notebook ran"),
    (re.compile(r"UnresponsiveKernelError|became unresponsive", re.I), "the kernel did not answer any more"),
    (re.compile(r"NotJSONError|ValidationError|JSONDecodeError", re.I), "the file is not a valid notebook"),
)


class CourseworkError(Exception):
    """The release could not be built or the submissions could not be read; the message says why."""


@dataclass
class Row:
    """One student: points by graded cell (empty: nothing could be graded), and why, or what else to know."""

    student: str
    points: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def graded(self) -> bool:
        """Whether points could be given."""
        return bool(self.points)

    def task_points(self, task: str) -> float:
        """Return the points of one task, visible and hidden tests together."""
        return sum(self.points[f"{task}_{part}"] for part in PARTS)


def max_points(course: Path = COURSE) -> dict[str, float]:
    """Return the points that each graded cell is worth, in the order of the notebook."""
    cells = json.loads((course / "source" / ASSIGNMENT / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    marks = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    return {mark["grade_id"]: float(mark["points"]) for mark in marks if mark.get("grade")}


def tasks(course: Path = COURSE) -> list[str]:
    """Return the names of the tasks, in the order of the notebook."""
    return list(dict.fromkeys(cell.rsplit("_", 1)[0] for cell in max_points(course)))


def environment(home: Path) -> dict[str, str]:
    """Return the environment of nbgrader and its kernels: quiet, without the user's Jupyter settings."""
    # nbgrader calls alembic, which lies beside the Python that runs this.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {
        "PATH": path,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTRAOP_THREADS": "1",  # small networks: one thread takes a quarter less of a core's time
        "TF_NUM_INTEROP_THREADS": "1",
        "MPLBACKEND": "agg",
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def nbgrader(course: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nbgrader in a course root and return its exit status and its log."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    with open(os.devnull) as nothing:
        return subprocess.run(
            command, cwd=course, env=environment(course), stdin=nothing, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace"
        )  # fmt: skip


def build(course: Path) -> Path:
    """Make a course root with a gradebook and the release in it; return the released folder."""
    course.mkdir(parents=True, exist_ok=True)
    for path in COURSE.glob("*.py"):
        shutil.copy(path, course)
    shutil.copytree(COURSE / "source", course / "source", dirs_exist_ok=True)
    done = nbgrader(course, "generate_assignment", ASSIGNMENT, "--create", "--force")
    if done.returncode or not (course / "release" / ASSIGNMENT / NOTEBOOK).is_file():
        raise CourseworkError(f"nbgrader could not build the release:\n{done.stdout}")
    return course / "release" / ASSIGNMENT


def release(out: Path) -> Path:
    """Write the students' notebook to ``out/repair/`` and return that folder."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "course")
        shutil.rmtree(out / ASSIGNMENT, ignore_errors=True)
        return Path(shutil.copytree(built, out / ASSIGNMENT))


def find_submissions(folder: Path, roster: Sequence[str] = ()) -> dict[str, Path | str]:
    """Return for each student the notebook, or the reason why there is none."""
    if not folder.is_dir():
        raise CourseworkError(f"There is no folder {folder}. Give one with a subfolder for each student.")
    found: dict[str, Path | str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            student, options = path.name, [path / NOTEBOOK, path / ASSIGNMENT / NOTEBOOK]
        elif path.suffix == ".ipynb":
            student, options = path.stem, [path]
        else:
            continue
        if student in found:
            raise CourseworkError(f"There are two submissions of {student}: a folder and a file. Remove one.")
        others = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        there = f"there is: {', '.join(others[:5])}" if others else "the folder is empty"
        found[student] = next((p for p in options if p.is_file()), f"no {NOTEBOOK}; {there}")
    for student in roster:
        found.setdefault(student, "nothing was handed in")
    if not found:
        raise CourseworkError(f"{folder} has neither subfolders nor notebooks in it.")
    return found


def unreadable(path: Path) -> str:
    """Return why a file cannot be a notebook, or an empty string."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        ids = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"the file is not a valid notebook ({type(error).__name__})"
    missing = set(max_points()) - set(ids)
    return f"{len(missing)} test cells are missing; grade by hand" if missing else ""


def autograde(course: Path, submissions: dict[str, Path]) -> dict[str, Row]:
    """Grade submissions in one nbgrader process, in a course root that has a gradebook."""
    # Students' names may hold what nbgrader's patterns or a file system do not like; numbers are safe.
    numbers = {student: f"s{i:04d}" for i, student in enumerate(submissions)}
    for student, path in submissions.items():
        target = course / "submitted" / numbers[student] / ASSIGNMENT
        target.mkdir(parents=True)
        shutil.copy(path, target / NOTEBOOK)
    log = nbgrader(course, "autograde", ASSIGNMENT, "--create", "--force").stdout
    sections = re.split(r"Copying \S*?submitted/(s\d{4})/|Converting notebook \S*?submitted/(s\d{4})/", log)
    logs: dict[str, str] = {}
    for first, second, text in zip(sections[1::3], sections[2::3], sections[3::3], strict=True):
        logs[first or second] = logs.get(first or second, "") + text
    scores = read_scores(course, list(numbers.values()))
    rows = {}
    for student, number in numbers.items():
        graded = course / "autograded" / number / ASSIGNMENT / NOTEBOOK
        row = rows[student] = Row(student)
        if graded.is_file() and scores.get(number):
            row.points = scores[number]
            if "CellTimeoutError" in graded.read_text(encoding="utf-8"):
                row.reason = "a cell was stopped because it ran too long"
        else:
            text = logs.get(number, log)
            errors = re.findall(r"\| ERROR\] (.*)", text)
            known = (reason for pattern, reason in REASONS if pattern.search(text))
            row.reason = next(known, errors[0][:200] if errors else "nbgrader gave no points and no reason")
    return rows


def read_scores(course: Path, numbers: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the points in a course's gradebook: student's number to graded cell to points."""
    from nbgrader.api import Gradebook, MissingEntry  # type: ignore[import-untyped]

    scores: dict[str, dict[str, float]] = {}
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for number in numbers:
            try:
                notebook = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, number)
            except MissingEntry:
                continue
            scores[number] = {grade.name: float(grade.score) for grade in notebook.grades}
    return scores


def grade(
    folder: Path,
    roster: Sequence[str] = (),
    jobs: int = 1,
    keep: Path | None = None,
    course: Path | None = None,
) -> list[Row]:
    """Grade a folder of submissions; one row a student, sorted by name.

    Args:
        folder: Submissions, see the top of this file.
        roster: Students who must get a row even if they handed nothing in.
        jobs: nbgrader processes at the same time; each needs a core and about 1 GB.
        keep: Where to keep the executed notebooks, one folder a student.
        course: A course root made by `build`; by default one is made and removed again.

    Raises:
        CourseworkError: The submissions cannot be read or the release cannot be built.
    """
    found = find_submissions(folder, roster)
    rows, ready = {}, {}
    for student, path in found.items():
        reason = path if isinstance(path, str) else unreadable(path)
        if reason or isinstance(path, str):
            rows[student] = Row(student, reason=reason)
        else:
            ready[student] = path
    with tempfile.TemporaryDirectory() as temporary:
        if course is None:
            build(course := Path(temporary) / "course")
        parts = [dict(list(ready.items())[i::jobs]) for i in range(jobs)]
        courses = [Path(temporary) / f"job{i}" for i in range(jobs)]
        for path in courses:
            shutil.copytree(
                course, path
            )  # its path is not in the gradebook, so a copy is a course of its own
        with ThreadPoolExecutor(jobs) as pool:
            for part_rows in pool.map(autograde, courses, parts):
                rows |= part_rows
        for path, part in zip(courses, parts, strict=True):
            for i, student in enumerate(part):
                done = path / "autograded" / f"s{i:04d}" / ASSIGNMENT / NOTEBOOK
                if keep and done.is_file():
                    (keep / student).mkdir(parents=True, exist_ok=True)
                    shutil.copy(done, keep / student)
    return [rows[student] for student in sorted(rows)]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line a student: points in all, by task and by graded cell (empty if not graded), reason."""
    best, names = max_points(), tasks()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The byte order mark makes spreadsheets read names outside ASCII right.
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "status", "points", "max_points", *names, *best, "reason"])
        for row in rows:
            by_task = [f"{row.task_points(name):g}" if row.graded else "" for name in names]
            by_cell = [f"{row.points[cell]:g}" if row.graded else "" for cell in best]
            total = f"{sum(row.points.values()):g}" if row.graded else ""
            status = "graded" if row.graded else "not graded"
            maximum = f"{sum(best.values()):g}"
            writer.writerow([row.student, status, total, maximum, *by_task, *by_cell, row.reason])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("release", help="build the students' notebook")
    one.add_argument("--out", type=Path, default=ROOT / "build" / "assignments")
    two = commands.add_parser("grade", help="grade a folder of submissions")
    two.add_argument("submissions", type=Path)
    two.add_argument("--csv", type=Path, default=ROOT / "build" / "grades.csv")
    two.add_argument("--executed", type=Path, default=ROOT / "build" / "graded", help="executed notebooks")
    two.add_argument("--roster", type=Path, help="text file with one student a line")
    two.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    try:
        if options.command == "release":
            print(f"For students: {release(options.out) / NOTEBOOK}")
            return
        start = time.perf_counter()
        names = options.roster.read_text(encoding="utf-8").split("\n") if options.roster else []
        roster = [name.strip() for name in names if name.strip()]
        rows = grade(options.submissions, roster, max(1, options.jobs), options.executed)
        write_csv(rows, options.csv)
    except (CourseworkError, OSError) as error:
        sys.exit(str(error))
    best = sum(max_points().values())
    for row in rows:
        result = f"{sum(row.points.values()):g} of {best:g}" if row.graded else "not graded"
        print(f"{row.student:30s} {result:>10s}  {row.reason}")
    print(f"{len(rows)} students in {time.perf_counter() - start:.0f} s: {options.csv}")


if __name__ == "__main__":
    main()
