"""Pages of the results. A page holds its own style and pictures, and loads nothing."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import mean

from tlhelpers.paths import atomic_path
from tools.grading.course import Assignment
from tools.grading.row import Row
from tools.grading.run import PNG
from tools.grading.tables import status

MAX_PAGE = 6 << 20  # characters of a student's page; pictures and long texts beyond are left out

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


def write_feedback(row: Row, assignment: Assignment, path: Path) -> None:
    """Writes a student's page: points and messages, then the own work with what it printed.

    The page has the cells that the student got and changed. The checks are not in it: neither their source,
    nor their inputs, nor what they expect.
    """
    body = [f"<h1>{escape(assignment.title)}</h1>", f"<p>{escape(row.student)}</p>"]
    if row.group:
        body.append(f"<p>Handed in by the group {escape(row.group)}.</p>")
    if row.graded:
        note = "" if status(row, assignment) == "graded" else " (some marks are still to come)"
        body.append(f"<p><strong>{row.total:g} of {assignment.points:g} points</strong>{note}</p>")
    else:
        body.append('<p class="bad"><strong>This could not be graded.</strong></p>')
    if row.penalty:
        body.append(f"<p>{row.penalty:g} points are taken off because it came late.</p>")
    if row.reason:
        body.append(f"<p>Note: {escape(row.reason)}</p>")
    if row.graded:
        body.append(_points_table(row, assignment))
    body.append("<h2>Your notebook, as it ran</h2>")
    left = MAX_PAGE - sum(map(len, body))
    for cell in row.cells:
        mark = ' class="own"' if cell["own"] else ""
        parts = [f"<pre{mark}>{escape(cell['source'])}</pre>"]
        if cell["text"].strip():
            parts.append(f"<pre>{escape(cell['text'])}</pre>")
        if cell["error"]:
            name, text = (str(cell["error"].get(key) or "") for key in ("type", "text"))
            said = f"{name}: {text}" if text else name
            parts.append(f'<pre class="bad">{escape(said[:2000])}</pre>')
        parts += [_image(image) for image in cell["images"] if _is_png(image)]
        for part in parts:
            left -= len(part)
            if left >= 0:
                body.append(part)
    if left < 0:
        body.append(f"<p>The page was longer than {MAX_PAGE >> 20} MB; some of it was left out.</p>")
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
        pages: Number or name -> address of the feedback page, relative to this one.
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
        address = pages.get(row.key)
        name = f'<a href="{escape(address)}">{escape(row.student)}</a>' if address else escape(row.student)
        cells = [_number(row.total if row.graded else None)]
        cells += [_number(row.item_points(item) if row.graded else None) for item in assignment.items]
        body.append(f"<tr><td>{name}</td>{''.join(cells)}<td>{escape(row.reason)}</td></tr>")
    body.append("</table></div>")
    body += _class_tables(graded, assignment)
    write_page(path, assignment.title, body)


def page_names(people: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns the file of each student's page, under number or name: all different on every file system."""
    names: dict[str, str] = {}
    for student, number in people:
        plain = "_".join(
            filter(None, (re.sub(r"[^\w.-]+", "_", student).strip("._")[:60] or "student", number))
        )
        if plain.casefold() in (used.casefold() for used in names.values()):
            plain = f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:8]}-{len(names)}"
        names[number or student] = plain
    return {key: f"feedback/{name}.html" for key, name in names.items()}


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
        return base64.b64decode(image, validate=True).startswith(PNG)
    except (binascii.Error, ValueError):
        return False


def _image(image: str) -> str:
    return f'<img alt="a figure that this cell showed" src="data:image/png;base64,{image}">'


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Writes a page that loads nothing."""
    page = PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
