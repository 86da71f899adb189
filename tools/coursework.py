"""Build the assignments, and grade a folder of submissions, without a server.

    python -m tools.coursework release [NAME ...] [--out build/assignments] [--variants names.txt]
    python -m tools.coursework grade SUBMISSIONS [--assignment repair] [--out build/graded] [--roster
    names.txt]

A submission is ``SUBMISSIONS/<student>/<assignment>.ipynb`` or ``SUBMISSIONS/<student>.ipynb``; the names
that Canvas and Moodle export are understood. Each student gets a row, whatever was handed in: where nothing
could be graded, the row says why. The instructor's guide in the book has the rest.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.grading import collect, concept_test, course, engine, release, report, sandbox

BUILD = course.ROOT / "build"


def grade(
    name: str,
    folder: Path,
    out: Path,
    roster: Sequence[str] = (),
    settings: engine.Settings | None = None,
    marks: Path | None = None,
    say: bool = True,
) -> list[engine.Row]:
    """Grades a folder of submissions of one assignment.

    Writes to ``out``: ``grades.csv``, ``canvas.csv``, ``moodle.csv``, ``summary.html``, and a page a student
    in
    ``feedback/``; where something is marked by hand, also the empty sheet ``marks.csv``.

    Args:
        name: Of the assignment.
        folder: The submissions.
        out: Where the results go.
        roster: Students who must get a row even if they handed nothing in.
        settings: How to grade; by default with the instructor's secret.
        marks: A filled sheet of marks.
        say: Whether to print a line a student.

    Returns:
        One row a student, sorted by name.

    Raises:
        CourseworkError: The submissions cannot be read, or the release cannot be built.
    """
    settings = settings or engine.Settings(course.secret())
    assignment = course.load(name)
    submissions = collect.find(folder, assignment, roster)
    warnings = []
    if not (settings.walls and sandbox.bubblewrap()):
        warnings.append(" ".join(sandbox.warning.replace("*", "").split()))
        print(sandbox.warning, file=sys.stderr)
    if settings.secret == course.DEMONSTRATION:
        warnings.append(
            "The secret is the public one: everybody can compute the inputs of the checks. "
            "Set COURSEWORK_SECRET, or write a line of your own into coursework/secret.txt."
        )
        print(warnings[-1], file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        released = release.build([assignment], Path(temporary))[name]

    def tell(row: engine.Row) -> None:
        if say:
            result = f"{row.total:g} of {assignment.points:g}" if row.graded else "not graded"
            to_come = "marks by hand are still to come" if row.graded and by_hand and marks is None else ""
            print(f"{row.student:30s} {result:>12s}  {row.reason or to_come}", flush=True)

    by_hand = any(item.by_hand for item in assignment.items)
    rows = engine.grade_all(assignment, released, submissions, settings, tell)
    if by_hand:
        report.write_marks(rows, assignment, out / "marks.csv")
        if marks is not None:
            report.read_marks(rows, assignment, marks)
    report.write_grades(rows, assignment, out / "grades.csv")
    report.write_canvas(rows, assignment, out / "canvas.csv")
    report.write_moodle(rows, assignment, out / "moodle.csv")
    pages: dict[str, str] = {}
    for number, row in enumerate(rows):
        page = f"feedback/{report.file_name(row.student)}.html"
        if page.lower() in (used.lower() for used in pages.values()):
            page = f"feedback/{report.file_name(row.student)}-{number}.html"
        pages[row.student] = page
        report.write_feedback(row, assignment, out / page)
    report.write_summary(rows, assignment, out / "summary.html", warnings, pages)
    return rows


def _names(path: Path | None) -> list[str]:
    if path is None:
        return []
    text, _ = collect.decode(path.read_bytes())
    return [line.strip() for line in text.splitlines() if line.strip()]


def _guess(folder: Path) -> str:
    """Returns the assignment that most of the files in a folder are named after."""
    every = course.names()
    found = [name for path in folder.rglob("*.ipynb") for name in every if name in path.stem]
    if not found:
        raise course.CourseworkError(
            f"No notebook in {folder} is named after an assignment ({', '.join(every)}). "
            "Say which: --assignment repair"
        )
    return max(every, key=found.count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and does what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("release", help="build the students' notebooks")
    one.add_argument("names", nargs="*", help="assignments; all by default")
    one.add_argument("--out", type=Path, default=BUILD / "assignments")
    one.add_argument("--variants", type=Path, help="text file with one student a line: a notebook for each")
    two = commands.add_parser("grade", help="grade a folder of submissions")
    two.add_argument("submissions", type=Path)
    two.add_argument("--assignment", help="its name; by default the one that the files are named after")
    two.add_argument("--out", type=Path, help="where the results go; build/graded/<assignment>")
    two.add_argument("--roster", type=Path, help="text file with one student a line")
    two.add_argument("--variants", action="store_true", help="each student has a notebook of its own")
    two.add_argument("--marks", type=Path, help="the filled sheet of what a person marks")
    two.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="submissions at a time")
    two.add_argument("--cell-seconds", type=float, default=sandbox.Limits.cell_seconds)
    two.add_argument("--memory", type=float, default=sandbox.Limits.memory / 2**30, help="GB a submission")
    two.add_argument("--no-sandbox", action="store_true", help="do not use bubblewrap")
    options = parser.parse_args(arguments)
    try:
        if options.command == "release":
            assignments = [course.load(name) for name in options.names or course.names()]
            built = release.build(assignments, options.out)
            students, secret = _names(options.variants), course.secret()
            for assignment in assignments:
                print(f"For students: {options.out / assignment.name}.zip")
                if students:
                    release.build_variants(built[assignment.name], assignment, students, secret, options.out)
            if not options.names:
                print("Concept test:", *concept_test.write(options.out))
            return
        if not options.submissions.is_dir():
            raise course.CourseworkError(f"There is no folder {options.submissions}.")
        start = time.perf_counter()
        name = options.assignment or _guess(options.submissions)
        out = options.out or BUILD / "graded" / name
        limits = sandbox.Limits(cell_seconds=options.cell_seconds, memory=int(options.memory * 2**30))
        settings = engine.Settings(
            course.secret(), limits, not options.no_sandbox, options.variants, max(1, options.jobs)
        )
        rows = grade(name, options.submissions, out, _names(options.roster), settings, options.marks)
    except (course.CourseworkError, OSError) as error:
        sys.exit(str(error))
    print(f"{len(rows)} students in {time.perf_counter() - start:.0f} s: {out / 'summary.html'}")


if __name__ == "__main__":
    main()
