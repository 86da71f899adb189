"""Build the assignments, and grade a folder of submissions, without a server.

    python -m tools.coursework release [NAME ...] [--out build/assignments] [--variants names.txt]
    python -m tools.coursework grade SUBMISSIONS [--assignment repair] [--out build/graded] [--roster
    names.txt]

A submission is ``SUBMISSIONS/<student>/<assignment>.ipynb`` or ``SUBMISSIONS/<student>.ipynb``; the names
that Canvas and Moodle export are understood. Each student gets a row, whatever was handed in: where nothing
could be graded, the row says why. The instructor's guide in the book has the rest.
"""

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.grading import collect, concept_test, course, engine, release, report, sandbox, tables, walls, who
from tools.grading.row import Kept, Row

BUILD = course.ROOT / "build"
OWN_MEMORY = 3 << 30  # bytes that the grader itself may take


@dataclass(frozen=True)
class Class:
    """What is known about a class besides its submissions.

    Attributes:
        roster: Students who must get a row even if they handed nothing in: name, or name and number.
        groups: Groups that hand in together, their members with semicolons between them.
        marks: A filled sheet of marks.
        worksheet: Moodle's grading worksheet, to be filled in.
        late_penalty: Percent of all points that lateness costs.
        again: Students who are graded again although nothing changed; empty for all, ``None`` for nobody.
        merge: Whether to keep the rows in the results of students who are not in the folder.
    """

    roster: Sequence[str] = ()
    groups: Sequence[str] = ()
    marks: Path | None = None
    worksheet: Path | None = None
    late_penalty: float = 0.0
    again: Sequence[str] | None = None
    merge: bool = False


def grade(
    name: str,
    folder: Path,
    out: Path,
    settings: engine.Settings | None = None,
    known: Class | None = None,
    say: bool = True,
) -> list[Row]:
    """Grades a folder of submissions of one assignment.

    Writes to ``out``, again after each student: ``grades.csv``, ``canvas.csv``, ``moodle.csv``,
    ``summary.html``, and a page a student in ``feedback/``; where something is marked by hand, also the
    empty sheet ``marks.csv``. A run that was interrupted goes on where it stopped: a row is kept while
    the file, the checks and the settings stay.

    Args:
        name: Of the assignment.
        folder: The submissions.
        out: Where the results go.
        settings: How to grade; by default with the instructor's secret.
        known: About the class.
        say: Whether to print a line a student.

    Returns:
        One row a student, sorted by name.

    Raises:
        CourseworkError: The submissions cannot be read, the release cannot be built, or there are no walls.
    """
    settings, known = settings or engine.Settings(course.secret()), known or Class()
    assignment = course.load(name)
    submissions = who.find(folder, assignment, known.roster, known.groups)
    warnings = _warnings(settings)
    with tempfile.TemporaryDirectory() as temporary:
        released = release.build([assignment], Path(temporary))[name]
    results = _Results(assignment, out, known, warnings)
    stamps = {one.key: engine.stamp_of(assignment, released, one, settings) for one in submissions}
    todo = []
    for one in submissions:
        kept = results.kept.get(one.key, stamps[one.key]) if not _again(one, known) else None
        if kept is None:
            todo.append(one)
        else:
            results.add(kept, one)
    if len(todo) < len(submissions) and say:
        print(
            f"{len(submissions) - len(todo)} of {len(submissions)} are as graded before "
            "(--again grades them anew)."
        )
    if known.merge:
        for row in results.kept.others({one.key for one in submissions}):
            results.add(row, None)
    by_key = {one.key: one for one in submissions}
    results.write(len(todo))
    for number, row in enumerate(engine.grade_all(assignment, released, todo, settings), start=1):
        results.kept.put(row, stamps[row.key])
        results.add(row, by_key[row.key])
        results.write(len(todo) - number)
        if say:
            result = f"{row.total:g} of {assignment.points:g}" if row.graded else "not graded"
            line = f"{number:3d}/{len(todo)} {row.student:30s} {result:>12s}  {row.reason}"
            # A file's name may hold what a terminal obeys.
            print("".join(c if c.isprintable() else "?" for c in line), flush=True)
    return results.rows()


class _Results:
    """The rows so far, and what is written of them."""

    def __init__(
        self, assignment: course.Assignment, out: Path, known: Class, warnings: Sequence[str]
    ) -> None:
        self.assignment, self.out, self.known, self.warnings = assignment, out, known, warnings
        self.kept = Kept(out / "rows")
        self._rows: dict[str, Row] = {}
        self._fresh: set[str] = set()

    def add(self, row: Row, submission: who.Submission | None) -> None:
        """Adds a student's row, and the same for the others of the group."""
        people = [(row.student, row.number), *(submission.members if submission else ())]
        for student, number in people:
            own = copy.deepcopy(row)
            own.student, own.number = student, number
            if own.late and own.graded:
                own.penalty = round(self.known.late_penalty / 100 * self.assignment.points, 2)
            self._rows[own.key] = own
            self._fresh.add(own.key)

    def rows(self) -> list[Row]:
        """Returns the rows, sorted by name."""
        return sorted(self._rows.values(), key=lambda row: (who.fold(row.student), row.number))

    def write(self, to_come: int) -> None:
        """Writes the tables, and the pages of the students who are new."""
        rows, out, assignment = self.rows(), self.out, self.assignment
        if any(item.by_hand for item in assignment.items):
            tables.write_marks(rows, assignment, out / "marks.csv")
            if self.known.marks is not None and not to_come:
                tables.read_marks(rows, assignment, self.known.marks)
                self._fresh |= set(self._rows)
        pages = report.page_names((row.student, row.number) for row in rows)
        tables.write_grades(rows, assignment, out / "grades.csv")
        tables.write_canvas(rows, assignment, out / "canvas.csv")
        tables.write_moodle(rows, assignment, out / "moodle.csv", self.known.worksheet)
        for row in rows:
            if row.key in self._fresh or not (out / pages[row.key]).is_file():
                report.write_feedback(row, assignment, out / pages[row.key])
        self._fresh.clear()
        unfinished = (
            [f"{to_come} submissions are still to come; this is what is there so far."] if to_come else []
        )
        report.write_summary(rows, assignment, out / "summary.html", [*self.warnings, *unfinished], pages)
        if not to_come:
            tables.write_feedback_zip(rows, pages, out)


def _again(one: who.Submission, known: Class) -> bool:
    names = {who.fold(name) for name in known.again or ()}
    return known.again is not None and (not names or bool(names & {who.fold(one.student), one.number}))


def _warnings(settings: engine.Settings) -> list[str]:
    """Returns what must be said loudly, and says it.

    Raises:
        CourseworkError: If there are no walls, although they are wanted.
    """
    warnings = []
    path, why = walls.bubblewrap()
    if settings.walls and path is None:
        raise course.CourseworkError(walls.REFUSAL.format(why=why))
    if not settings.walls:
        warnings.append(" ".join(walls.WARNING.replace("*", "").split()))
        print(walls.WARNING, file=sys.stderr)
    if settings.secret == course.DEMONSTRATION:
        warnings.append(
            "The secret is the public one: everybody can compute the inputs of the checks. "
            "Set COURSEWORK_SECRET, or write a line of your own into coursework/secret.txt."
        )
        print(warnings[-1], file=sys.stderr)
    return warnings


def _names(path: Path | None) -> list[str]:
    if path is None:
        return []
    text, _ = collect.decode(path.read_bytes())
    return [line.strip() for line in text.splitlines() if line.strip()]


def _guess(folder: Path) -> str:
    """Returns the assignment that most of the files in a folder are named after."""
    every = course.names()
    found = [name for path in folder.rglob("*.ipynb") for name in every if name in path.name.lower()]
    if not found:
        raise course.CourseworkError(
            f"No notebook in {folder} is named after an assignment ({', '.join(every)}). "
            "Say which: --assignment repair"
        )
    return max(every, key=found.count)


def _bound_itself() -> None:
    """Limits the grader's own memory, so that no submission can fill the machine through it."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (OWN_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("release", help="build the students' notebooks")
    one.add_argument("names", nargs="*", help="assignments; all by default")
    one.add_argument("--out", type=Path, default=BUILD / "assignments")
    one.add_argument("--variants", type=Path, help="text file with one student a line: a notebook for each")
    one.add_argument("--colab", help="address of the notebook on Colab; {name} stands for the assignment")
    two = commands.add_parser("grade", help="grade a folder of submissions")
    two.add_argument("submissions", type=Path)
    two.add_argument("--assignment", help="its name; by default the one that the files are named after")
    two.add_argument("--out", type=Path, help="where the results go; build/graded/<assignment>")
    two.add_argument(
        "--roster", type=Path, help="text file with one student a line: name, or name and number"
    )
    two.add_argument(
        "--groups", type=Path, help="text file with one group a line: names, with ; between them"
    )
    two.add_argument("--variants", action="store_true", help="each student has a notebook of its own")
    two.add_argument("--marks", type=Path, help="the filled sheet of what a person marks")
    two.add_argument("--worksheet", type=Path, help="Moodle's grading worksheet, to be filled in")
    two.add_argument("--late-penalty", type=float, default=0.0, help="percent of all points")
    two.add_argument(
        "--again", nargs="*", metavar="NAME", help="grade these, or all, again although nothing changed"
    )
    two.add_argument(
        "--merge", action="store_true", help="keep the results of students who are not in the folder"
    )
    two.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="submissions at a time")
    two.add_argument(
        "--cell-seconds",
        type=float,
        default=sandbox.Limits.cell_seconds,
        help="limit of a cell; of a check half of it, of a submission five times as much",
    )
    two.add_argument("--memory", type=float, default=sandbox.Limits.memory / 2**30, help="GB a submission")
    two.add_argument("--unsafe", action="store_true", help="grade without walls, with your rights")
    return parser


def _release(options: argparse.Namespace) -> None:
    assignments = [course.load(name) for name in options.names or course.names()]
    for warning in release.warnings():
        print(warning, file=sys.stderr)
    built = release.build(assignments, options.out, options.colab)
    students, secret = _names(options.variants), course.secret()
    for assignment in assignments:
        print(f"For students: {options.out / assignment.name}.zip")
        if students:
            release.build_variants(built[assignment.name], assignment, students, secret, options.out)
    if not options.names:
        print("Concept test:", *concept_test.write(options.out))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and does what it says."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "release":
            return _release(options)
        if not options.submissions.is_dir():
            raise course.CourseworkError(f"There is no folder {options.submissions}.")
        _bound_itself()
        start = time.perf_counter()
        name = options.assignment or _guess(options.submissions)
        out = options.out or BUILD / "graded" / name
        seconds = options.cell_seconds
        limits = sandbox.Limits(seconds, 5 * seconds, seconds / 2, int(options.memory * 2**30))
        settings = engine.Settings(
            course.secret(), limits, not options.unsafe, options.variants, max(1, options.jobs)
        )
        known = Class(
            _names(options.roster),
            _names(options.groups),
            options.marks,
            options.worksheet,
            options.late_penalty,
            options.again,
            options.merge,
        )
        rows = grade(name, options.submissions, out, settings, known)
    except (course.CourseworkError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. What is graded is written; the same command goes on from there.")
    print(f"{len(rows)} students in {time.perf_counter() - start:.0f} s: {out / 'summary.html'}")


if __name__ == "__main__":
    main()
