"""Tables and pages of the results. A page holds its own style and pictures, and loads nothing."""

import base64
import binascii
import csv
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from tools.grading.course import Assignment, CourseworkError
from tools.grading.engine import Row

STYLE = """
:root { color-scheme: light dark; --line: #8886; --bad: #b3261e; --good: #1b6e3c; --own: #3b6fb6; }
@media (prefers-color-scheme: dark) { :root { --bad: #ffb4ab; --good: #8fd6a4; --own: #9cc2f5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border: 1px solid var(--line); padding: .3rem .6rem; }
th { text-align: left; } td.n { text-align: right; } .wide { overflow-x: auto; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--line); white-space: pre-wrap; }
pre.own { border-left: 4px solid var(--own); } .bad { color: var(--bad); } .good { color: var(--good); }
.loud { border: 3px solid var(--bad); padding: .6rem; font-weight: bold; }
img { max-width: 100%; background: #fff; }
"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def write_grades(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes one line a student: points in all, of items and of parts, empty where none."""
    parts = [f"{item.name}.{part}" for item in assignment.items for part in item.parts]
    header = ["student", "number", "status", "points", "max_points"]
    header += [item.name for item in assignment.items] + parts + ["reason"]
    lines = []
    for row in rows:
        items = [row.item_points(item) if row.graded else None for item in assignment.items]
        cells = [row.points.get(part) if row.graded else None for part in parts]
        status = _status(row, assignment)
        total = row.total if row.graded else None
        lines.append([row.student, row.number, status, total, assignment.points, *items, *cells, row.reason])
    _table(path, header, lines)


def write_canvas(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes the columns that Canvas' gradebook imports; ID is the number that its file names carry."""
    header = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment.title]
    first: list[Any] = ["    Points Possible", "", "", "", "", assignment.points]
    lines = [[row.student, row.number, "", "", "", _final(row, assignment)] for row in rows]
    _table(path, header, [first, *lines])


def write_moodle(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes the columns that Moodle's grading worksheet has; the names can be mapped at the import."""
    header = ["Identifier", "Full name", "Grade", "Maximum grade", "Feedback comments"]
    lines = []
    for row in rows:
        said = [f"{part}: {message}" for part, message in row.messages.items()]
        number = f"Participant {row.number}" if row.number else ""
        total = _final(row, assignment)
        open_marks = "some marks are still to come" if row.graded and total is None else ""
        comments = " | ".join(filter(None, [*said, open_marks, row.reason]))
        lines.append([number, row.student, total, assignment.points, comments])
    _table(path, header, lines)


def write_marks(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Writes the sheet for what a person marks: one line a student, item and criterion, points left empty."""
    lines = [
        [row.student, item.name, part, points, None, ""]
        for row in rows
        if row.graded
        for item in assignment.items
        if item.by_hand
        for part, points in item.parts.items()
    ]
    _table(path, ["student", "item", "criterion", "max_points", "points", "comment"], lines)


def read_marks(rows: Sequence[Row], assignment: Assignment, path: Path) -> None:
    """Puts the marks of a filled sheet into the rows.

    Raises:
        CourseworkError: If a line names something unknown, or gives more points than there are.
    """
    by_name = {row.student: row for row in rows}
    items = {item.name: item for item in assignment.items if item.by_hand}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            if not (line.get("points") or "").strip():
                continue
            student = (line.get("student") or "").removeprefix("'")
            item, part = items.get(line.get("item") or ""), line.get("criterion") or ""
            if student not in by_name or item is None or part not in item.parts:
                raise CourseworkError(f"{path}, line {number}: no such student, item or criterion.")
            try:
                points = float(line["points"].replace(",", "."))
            except ValueError:
                raise CourseworkError(f"{path}, line {number}: {line['points']!r} is no number.") from None
            if not 0 <= points <= item.parts[part]:
                raise CourseworkError(
                    f"{path}, line {number}: {points:g} points, but they go from 0 to {item.parts[part]:g}."
                )
            row = by_name[student]
            row.points[f"{item.name}.{part}"] = points
            if comment := (line.get("comment") or "").strip():
                row.comments[f"{item.name}.{part}"] = comment


def write_feedback(row: Row, assignment: Assignment, path: Path) -> None:
    """Writes a student's page: points and messages, then the own work with what it printed.

    The page has the cells that the student got and changed. The checks are not in it: neither their source,
    nor their inputs, nor what they expect.
    """
    body = [f"<h1>{escape(assignment.title)}</h1>", f"<p>{escape(row.student)}</p>"]
    if row.graded:
        note = "" if _status(row, assignment) == "graded" else " (some marks are still to come)"
        body.append(f"<p><strong>{row.total:g} of {assignment.points:g} points</strong>{note}</p>")
    else:
        body.append('<p class="bad"><strong>This could not be graded.</strong></p>')
    if row.reason:
        body.append(f"<p>Note: {escape(row.reason)}</p>")
    if row.graded:
        body.append(_points_table(row, assignment))
    body.append("<h2>Your notebook, as it ran</h2>")
    for cell in row.cells:
        mark = ' class="own"' if cell["own"] else ""
        body.append(f"<pre{mark}>{escape(cell['source'])}</pre>")
        if cell["text"].strip():
            body.append(f"<pre>{escape(cell['text'])}</pre>")
        body += [_image(image) for image in cell["images"] if _is_png(image)]
        if cell["error"]:
            name, text = (str(cell["error"].get(key, "")) for key in ("type", "text"))
            said = f"{name}: {text}" if text else name
            body.append(f'<pre class="bad">{escape(said[:2000])}</pre>')
    write_page(path, f"{assignment.title}: {row.student}", body)


def write_summary(
    rows: Sequence[Row], assignment: Assignment, path: Path, warnings: Sequence[str], pages: dict[str, str]
) -> None:
    """Writes the class on one page: each student, each item's mean, each outcome's share of points.

    Args:
        rows: The results.
        assignment: What was graded.
        path: The page.
        warnings: To be printed loudly at the top.
        pages: Student -> address of the feedback page, relative to this one.
    """
    graded = [row for row in rows if row.graded]
    body = [f"<h1>{escape(assignment.title)}</h1>"]
    body += [f'<p class="loud">{escape(text)}</p>' for text in warnings]
    body.append(f"<p>{len(rows)} students, {len(graded)} graded.")
    if graded:
        body.append(f" Mean: {mean(row.total for row in graded):.1f} of {assignment.points:g} points.")
    body.append("</p>")
    head = "".join(f"<th>{escape(item.name)} ({item.points:g})</th>" for item in assignment.items)
    body.append('<div class="wide"><table><tr><th>student</th><th>points</th>' + head + "<th>note</th></tr>")
    for row in rows:
        address = pages.get(row.student)
        name = f'<a href="{escape(address)}">{escape(row.student)}</a>' if address else escape(row.student)
        cells = [_number(row.total if row.graded else None)]
        cells += [_number(row.item_points(item) if row.graded else None) for item in assignment.items]
        body.append(f"<tr><td>{name}</td>{''.join(cells)}<td>{escape(row.reason)}</td></tr>")
    body.append("</table></div>")
    body += _class_tables(graded, assignment)
    write_page(path, assignment.title, body)


def file_name(student: str) -> str:
    """Returns a name for a student's files that every file system takes."""
    plain = re.sub(r"[^\w.-]+", "_", student).strip("._")[:80]
    return plain or "student"


def _final(row: Row, assignment: Assignment) -> float | None:
    """Points for an import; none while marks by hand are missing, so that nobody gets a zero meanwhile."""
    return row.total if _status(row, assignment) == "graded" else None


def _status(row: Row, assignment: Assignment) -> str:
    if not row.graded:
        return "not graded"
    missing = any(f"{item.name}.{part}" not in row.points for item in assignment.items for part in item.parts)
    return "to be marked" if missing else "graded"


def _points_table(row: Row, assignment: Assignment) -> str:
    lines = ["<table><tr><th>task</th><th>part</th><th>points</th><th>what is wrong</th></tr>"]
    for item in assignment.items:
        for part, most in item.parts.items():
            key = f"{item.name}.{part}"
            got = row.points.get(key)
            kind = "" if got is None else "good" if got == most else "bad"
            said = row.messages.get(key) or row.comments.get(key, "")
            points = "to be marked" if got is None else f"{got:g} of {most:g}"
            lines.append(
                f"<tr><td>{escape(item.title)}</td><td>{escape(part)}</td>"
                f'<td class="{kind}">{points}</td><td>{escape(said)}</td></tr>'
            )
    return "".join([*lines, "</table>"])


def _class_tables(graded: Sequence[Row], assignment: Assignment) -> list[str]:
    if not graded:
        return []
    body = [
        "<h2>By task and part</h2><table><tr><th>part</th><th>right</th><th>most frequent message</th></tr>"
    ]
    outcomes: dict[str, list[float]] = {}
    for item in assignment.items:
        got = [points for row in graded if (points := row.item_points(item)) is not None]
        for outcome in item.outcomes:
            outcomes.setdefault(outcome, []).extend(points / item.points for points in got)
        for part, most in item.parts.items():
            key = f"{item.name}.{part}"
            full = sum(row.points.get(key) == most for row in graded)
            said = [row.messages[key] for row in graded if key in row.messages]
            common = max(said, key=said.count) if said else ""
            body.append(f'<tr><td>{key}</td><td class="n">{full}</td><td>{escape(common)}</td></tr>')
    body.append("</table><h2>By outcome</h2><table><tr><th>outcome</th><th>share of points</th></tr>")
    for outcome, shares in sorted(outcomes.items()):
        body.append(f'<tr><td>{outcome}</td><td class="n">{mean(shares):.0%}</td></tr>' if shares else "")
    return [*body, "</table>"]


def _number(value: float | None) -> str:
    return '<td class="n"></td>' if value is None else f'<td class="n">{value:g}</td>'


def _is_png(image: str) -> bool:
    try:
        return base64.b64decode(image, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    except (binascii.Error, ValueError):
        return False


def _image(image: str) -> str:
    return f'<img alt="a figure that this cell showed" src="data:image/png;base64,{image}">'


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Writes a page that loads nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))
    path.write_text(page, encoding="utf-8", errors="replace")


def _table(path: Path, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The byte order mark makes spreadsheets read names outside ASCII right.
    with open(path, "w", newline="", encoding="utf-8-sig", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[_cell(value) for value in line] for line in lines])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    # A spreadsheet would run it as a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
