"""Runs a submission, asks it questions from outside, and counts the points.

The student's code runs in a box. When all cells have run and their outputs are here, probes go in: each
calls the student's functions on inputs that are drawn outside, and hands back numbers. They are compared
here, in a process that the student's code never enters. What is expected, and how it is compared, never
leaves this process.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.grading import collect, sandbox, who
from tools.grading.course import Assignment, Item, Notebook, text_of, variant
from tools.grading.release import with_seed
from tools.grading.row import Row, stamp
from tools.grading.run import Run

GRADER = Path(__file__).parent
MAX_REASON = 2000  # characters
MAX_STARTS = 4  # a cell or a probe that ends the process is left out in the next start
SYNTAX = ("SyntaxError", "IndentationError", "TabError")


@dataclass(frozen=True)
class Settings:
    """How to grade.

    Attributes:
        secret: From which inputs are drawn.
        limits: Of a submission.
        walls: Whether to use bubblewrap where it works.
        variants: Whether each student has a notebook with numbers of its own.
        jobs: Submissions at the same time.
    """

    secret: str
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)
    walls: bool = True
    variants: bool = False
    jobs: int = 1


def grade_all(
    assignment: Assignment,
    released: Notebook,
    submissions: Sequence[who.Submission],
    settings: Settings,
) -> Iterator[Row]:
    """Yields the row of each submission when it is done, whatever was handed in.

    When the machine ran out of memory, a neighbour may be the cause: that one is graded again, alone.
    """
    again = []
    with ThreadPoolExecutor(max(1, settings.jobs)) as pool:
        rows = {pool.submit(grade, assignment, released, one, settings): one for one in submissions}
        try:
            for done in as_completed(rows):
                if settings.jobs > 1 and sandbox.CROWDED in done.result().reason:
                    again.append(rows[done])
                else:
                    yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)
    for one in again:
        yield grade(assignment, released, one, settings)


def stamp_of(
    assignment: Assignment, released: Notebook, submission: who.Submission, settings: Settings
) -> str:
    """Returns the digest of all that a row depends on: file, assignment, checks, secret, and this grader."""
    return stamp(
        {
            "files": [collect.digest(path) for path in (submission.path, *submission.others) if path],
            "who": [submission.student, submission.number, submission.late, submission.group],
            "said": [submission.reason, submission.notes],
            "released": released,
            "items": [repr(item) for item in assignment.items],
            "checks": assignment.checks.source if assignment.checks else "",
            "grader": [path.read_text(encoding="utf-8") for path in sorted(GRADER.rglob("*.py"))],
            "settings": [settings.secret, settings.variants, settings.walls, repr(settings.limits)],
        }
    )


def grade(assignment: Assignment, released: Notebook, submission: who.Submission, settings: Settings) -> Row:
    """Returns the row of one submission, the best of several. Whatever goes wrong is the row's reason."""
    paths = [submission.path, *submission.others]
    rows = [_one(assignment, released, replace(submission, path=path), settings) for path in paths]
    best = max(rows, key=lambda row: (row.graded, row.total))
    if len(rows) > 1:
        best.reason = "; ".join(
            filter(None, [f"{len(rows)} notebooks were handed in, the best counts", best.reason])
        )
    best.reason = best.reason[:MAX_REASON]
    return best


def _one(assignment: Assignment, released: Notebook, submission: who.Submission, settings: Settings) -> Row:
    row = Row(submission.student, submission.number, submission.late, submission.group)
    try:
        _grade(row, assignment, released, submission, settings)
    except Exception as error:  # the class goes on
        row.points, row.messages, row.graded = {}, {}, False
        row.reason = f"the grader could not cope with it ({type(error).__name__}); look at the file yourself"
    return row


def _grade(
    row: Row, assignment: Assignment, released: Notebook, submission: who.Submission, settings: Settings
) -> None:
    notes = list(dict.fromkeys(submission.notes))
    if submission.path is None:
        row.reason = "; ".join([*notes, submission.reason])
        return
    seed = variant(settings.secret, submission.student) if settings.variants else 0
    released = with_seed(released, seed) if seed else released
    merged = collect.merge(submission.path, released)
    notes += dict.fromkeys(merged.notes)
    if merged.reason:
        row.reason = "; ".join([*notes, merged.reason])
        return
    if assignment.checks is None:  # what needs the student's own data is not run again
        row.cells = [{"text": "", "images": [], "error": None, **cell} for cell in merged.cells]
        row.graded, row.reason = True, "; ".join(notes)
        return
    untouched = _untouched(merged.cells, released)
    run, silent = _start(row, assignment, merged.cells, settings, seed, notes, untouched)
    row.cells = run.shown() if run else []
    if run is None or not row.graded:
        row.reason = "; ".join(notes)
        return
    for item in assignment.items:
        if not item.by_hand:
            said = "Not attempted: the cell is as it was handed out." if item.name in untouched else ""
            if item.name in silent:
                said = "Your code ended the whole process or ran too long when it was called."
            _count(row, assignment, item, run, said)
    for index in (i for i, record in run.records.items() if (record["error"] or {}).get("type") == "TooLong"):
        notes.append(f"the cell {_named(merged.cells, index)} ran too long and was stopped")
    row.reason = "; ".join(notes)


def _start(
    row: Row,
    assignment: Assignment,
    cells: list[dict[str, Any]],
    settings: Settings,
    seed: int,
    notes: list[str],
    untouched: set[str],
) -> tuple[Run | None, set[str]]:
    """Runs a submission, again without what ended it; returns the last run, and the items that ended one."""
    end = time.monotonic() + settings.limits.seconds
    skipped: set[int] = set()
    silent: set[str] = set()
    run = None
    for start in range(MAX_STARTS):
        if start == MAX_STARTS - 1:  # a cell of the student's own may have broken what came after it
            skipped, silent = {index for index, cell in enumerate(cells) if cell["id"] is None}, set()
            notes.append("at last the student's further cells were left out, and nothing else")
        run = Run(assignment, cells, settings.secret, seed)
        try:
            run.go(settings.limits, settings.walls, end, skipped, silent | untouched)
        except sandbox.Ended as ended:
            if run.probing is not None:
                silent.add(run.probing)
                notes.append(f"when the cell {run.probing} was checked, {ended}; its checks count as failed")
            elif run.at is not None:
                skipped.add(run.at)
                notes.append(f"in the cell {_named(cells, run.at)}, {ended}; the cell was left out")
            else:
                notes.append(f"the notebook did not start: {ended}")
                return run, silent
            if time.monotonic() > end:
                notes.append("its time was up")
                return run, silent
            continue
        row.graded = True
        return run, silent
    notes.append("it was not started again")
    return run, silent


def _untouched(cells: list[dict[str, Any]], released: Notebook) -> set[str]:
    """Returns the items whose cell is as it was handed out."""
    before = {c["metadata"]["nbgrader"]["grade_id"]: text_of(c).strip() for c in released["cells"]}
    return {c["id"] for c in cells if c["own"] and c["id"] and c["source"].strip() == before[c["id"]]}


def judge(
    assignment: Assignment, item: Item, given: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """Compares what an item's probe found with what is right.

    Returns:
        For each part the share that is right, and for each part that is not right what is wrong.
    """
    share = dict.fromkeys(item.parts, 1.0)
    wrong: dict[str, str] = {}
    reached: set[str] = set()
    try:
        for part, right, message in assignment.check(item)(given, found):
            reached.add(part)
            share[part] = min(share[part], float(right))
            if right < 1:
                wrong.setdefault(part, message)
    except Exception:  # what was found has a form that the check did not expect
        pass
    for part in set(item.parts) - reached:
        share[part] = 0.0
        wrong[part] = "What your code returned does not have the form that the task asks for."
    return share, wrong


def _count(row: Row, assignment: Assignment, item: Item, run: Run, said: str) -> None:
    """Writes an item's points and messages into the row.

    Args:
        row: Where to.
        assignment: With the checks.
        item: Which.
        run: With what the probe found.
        said: Why the item was not probed to the end; then it has no points.
    """
    found, error = run.found.get(item.name, ({}, None))
    if not said and error is not None:
        said = _stopped(error, item, run)
    share, wrong = dict.fromkeys(item.parts, 0.0), dict.fromkeys(item.parts, said)
    if not said:
        share, wrong = judge(assignment, item, run.given[item.name], found)
    for part, points in item.parts.items():
        row.points[f"{item.name}.{part}"] = round(points * share[part], 2)
        if part in wrong:
            row.messages[f"{item.name}.{part}"] = wrong[part]


def _stopped(error: dict[str, Any], item: Item, run: Run) -> str:
    """Says why a probe stopped. Neither the kind of an error nor its line: both could tell hidden inputs.

    What the item's own cell did before any hidden input was there may be told.
    """
    for index, cell in enumerate(run.cells):
        own = run.records.get(index, {}).get("error") if cell["id"] == item.name else None
        if own:
            kind, line, lines = str(own["type"]), own["line"], cell["source"].split("\n")
            there = isinstance(line, int) and own["cell"] == index and 0 < line <= len(lines)
            place = f" in line {line}, {lines[line - 1].strip()[:100]!r}," if there else ""
            if kind in SYNTAX:
                return f"The cell has a syntax error{place} so nothing in it ran."
            return (
                f"The cell itself stopped with {kind[:60]}{place} so what comes after that line is missing."
            )
    if error.get("type") == "TooLong":
        return "Your code ran too long when it was called with other inputs."
    return (
        "Your code stopped with an error when it was called with other inputs. Is every name defined that "
        "the task asks for? Does the code depend on the sizes or values of the visible tests?"
    )


def _named(cells: list[dict[str, Any]], index: int) -> str:
    return str(cells[index]["id"] or f"number {index + 1} (your own)")
