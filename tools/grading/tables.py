"""Tables of the results for people, Canvas and Moodle; and the sheet of marks that comes back.

Moodle's assignment imports a *grading worksheet*. Its importer (`importgradeslib.php` in
`mod/assign/feedback/offline`) refuses a file without the columns ``Identifier``, ``Grade`` and ``Last
modified (grade)``, reads the number behind the word ``Participant``, and skips a grade that was changed in
Moodle after the last modified date. Pages of feedback are imported from a zip file whose folders are called
``name_number_assignsubmission_file_`` (`importziplib.php` in `mod/assign/feedback/file`); the importer
splits at underscores, so the name must have none.
"""

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tlhelpers.paths import atomic_path
from tools.grading.collect import decode
from tools.grading.course import Assignment, CourseworkError
from tools.grading.row import Row

IDENTIFIER, GRADE, COMMENTS = "Identifier", "Grade", "Feedback comments"
MOODLE = (IDENTIFIER, "Full name", GRADE, "Maximum grade", "Last modified (grade)", COMMENTS)
SHEET = ("student", "number", "item", "criterion", "max_points", "points", "comment")


def status(row: Row, assignment: Assignment) -> str:
    """Returns how far a row is: "not graded", "to be marked", or "graded"."""
    if not row.graded:
        return "not graded"
    missing = any(f"{item.name}.{part}" not in row.points for item in assignment.items for part in item.parts)
    return "to be marked" if missing else "graded"


def write_grades(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes one line a student: points in all, of items and of parts, empty where none."""
    parts = [f"{item.name}.{part}" for item in assignment.items for part in item.parts]
    header = ["student", "number", "status", "late", "group", "points", "max_points", "penalty"]
    header += [item.name for item in assignment.items] + parts + ["reason"]
    lines = []
    for row in rows:
        items = [row.item_points(item) if row.graded else None for item in assignment.items]
        cells = [row.points.get(part) if row.graded else None for part in parts]
        first = [row.student, row.number, status(row, assignment), "late" if row.late else "", row.group]
        total = row.total if row.graded else None
        lines.append([*first, total, assignment.points, row.penalty or None, *items, *cells, row.reason])
    _table(path, header, lines)


def write_canvas(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes the columns that Canvas' gradebook imports; ID is the number that its file names carry.

    Who has no points yet is left out: an empty field would clear a grade that is in Canvas already.
    """
    header = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment.title]
    first: list[Any] = ["    Points Possible", "", "", "", "", assignment.points]
    points = [(row, _final(row, assignment)) for row in rows]
    lines = [[row.student, row.number, "", "", "", total] for row, total in points if total is not None]
    _table(path, header, [first, *lines])


def write_moodle(
    rows: Sequence[Row], assignment: Assignment, path: Path, worksheet: Path | None = None
) -> None:
    """Writes Moodle's grading worksheet: the one that Moodle gave, filled in, or else one of our own.

    Raises:
        CourseworkError: If the worksheet is not one.
    """
    if worksheet is None:
        # "-" is what Moodle writes where nothing was graded yet.
        lines = [
            [_participant(r), r.student, _final(r, assignment), assignment.points, "-", _said(r, assignment)]
            for r in rows
        ]
        _table(path, MOODLE, lines)
        return
    header, lines_there = read_table(worksheet, (IDENTIFIER, GRADE, "Last modified (grade)"))
    by_number = {_participant(row): row for row in rows if row.number}
    filled = []
    for line in lines_there:
        row = by_number.get(line[IDENTIFIER])
        if row is not None and (total := _final(row, assignment)) is not None:
            line = {**line, GRADE: f"{total:g}"}
            if COMMENTS in line:
                line[COMMENTS] = _said(row, assignment)
        filled.append([line[name] for name in header])
    _table(path, header, filled)


def write_feedback_zip(rows: Sequence[Row], pages: dict[str, str], out: Path) -> None:
    """Writes the pages under the names by which Moodle knows whose they are; only numbers tell it that."""
    with (
        atomic_path(out / "moodle_feedback.zip") as path,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped,
    ):
        for row in rows:
            page = out / pages[row.key]
            if row.number and page.is_file():
                name = re.sub(r"[_/\\\\:*?\"<>|\x00-\x1f]+", " ", row.student).strip(" .") or "student"
                zipped.write(page, f"{name}_{row.number}_assignsubmission_file_/feedback.html")


def write_marks(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes the sheet for what a person marks: one line a student, item and criterion, points left empty."""
    lines = [
        [row.student, row.number, item.name, part, points, None, ""]
        for row in rows
        if row.graded
        for item in assignment.items
        if item.by_hand
        for part, points in item.parts.items()
    ]
    _table(path, SHEET, lines)


def read_marks(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Puts the marks of a filled sheet into the rows.

    Raises:
        CourseworkError: If the sheet has no marks, or lines name something unknown or give too many points.
    """
    by_key = {row.key: row for row in rows}
    items = {item.name: item for item in assignment.items if item.by_hand}
    _, lines = read_table(path, ("student", "item", "criterion", "points"))
    problems, marks = [], 0
    for number, line in enumerate(lines, start=2):
        said = line["points"].strip()
        if not said:
            continue
        key = (line.get("number") or line["student"]).removeprefix("'")
        row, item, part = by_key.get(key), items.get(line["item"]), line["criterion"]
        if row is None or item is None or part not in item.parts:
            problems.append(f"line {number}: no such student, item or criterion")
            continue
        try:
            points = float(said.replace(",", "."))
        except ValueError:
            problems.append(f"line {number}: {said!r} is no number")
            continue
        if not 0 <= points <= item.parts[part]:
            problems.append(f"line {number}: {points:g} points, but they go from 0 to {item.parts[part]:g}")
            continue
        marks += 1
        row.points[f"{item.name}.{part}"] = points
        if comment := (line.get("comment") or "").strip():
            row.comments[f"{item.name}.{part}"] = comment.removeprefix("'")
    if not marks and not problems:
        problems = ["no line has points"]
    if problems:
        raise CourseworkError(f"{path}: {'; '.join(problems[:10])}.")


def read_table(path: Path, wanted: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns and the lines of a table that a spreadsheet or a platform wrote.

    Commas, semicolons and tabs are understood, and UTF-8, UTF-16 and the encoding of Windows.

    Raises:
        CourseworkError: If a wanted column is not there, or a line has another number of fields.
    """
    text, _ = decode(path.read_bytes())
    for delimiter in ",;\t":
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        header = [name.strip() for name in table[0]] if table else []
        if set(wanted) <= set(header):
            break
    else:
        first = text.split("\n")[0][:200].strip()
        raise CourseworkError(f"{path} must have the columns {', '.join(wanted)}. Its first line is: {first}")
    lines = [line for line in table[1:] if any(field.strip() for field in line)]
    odd = [str(n) for n, line in enumerate(lines, start=2) if len(line) != len(header)]
    if odd:
        raise CourseworkError(
            f"{path}: lines {', '.join(odd[:10])} have another number of fields than the first line."
        )
    return header, [dict(zip(header, line, strict=True)) for line in lines]


def _participant(row: Row) -> str:
    return f"Participant {row.number}" if row.number else ""


def _said(row: Row, assignment: Assignment) -> str:
    """Returns what is wrong, in one field of HTML: that is how Moodle reads it."""
    said = [f"{part}: {message}" for part, message in row.messages.items()]
    to_come = "some marks are still to come" if row.graded and _final(row, assignment) is None else ""
    late = f"{row.penalty:g} points off because it came late" if row.penalty else ""
    return escape(" | ".join(filter(None, [*said, late, to_come, row.reason])), quote=False)


def _final(row: Row, assignment: Assignment) -> float | None:
    """Points for an import; none while marks by hand are missing, so that nobody gets a zero meanwhile."""
    return row.total if status(row, assignment) == "graded" else None


def _table(path: Path, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    # The byte order mark makes spreadsheets read names outside ASCII right.
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8-sig", errors="replace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[_cell(value) for value in line] for line in lines])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    # A spreadsheet would run it as a formula. A lone dash is none.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and text != "-" else text
