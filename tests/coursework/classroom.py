"""What the tests of the coursework share: settings, walls, and a look at all results."""

import csv
import json
import os
import re

import pytest

from tools.grading import course, engine, report, sandbox, walls

SECRET = "a secret of the tests"
JOBS = min(2, os.cpu_count() or 1)
ALL = bool(os.environ.get("TLHELPERS_ALL_ASSIGNMENTS"))
NAMES = course.names()
AUTOGRADED = [name for name in NAMES if course.load(name).checks is not None]
weekly = pytest.mark.skipif(
    not ALL, reason="takes minutes: runs weekly, and where TLHELPERS_ALL_ASSIGNMENTS is set"
)


def settings(**changes):
    """Return settings of a quick run, inside bubblewrap where it works."""
    limits = sandbox.Limits(**{"seconds": 300.0, **changes})
    return engine.Settings(SECRET, limits, walls.bubblewrap()[0] is not None, jobs=JOBS)


def need_walls():
    """Skip a test that only bubblewrap makes safe; where it was promised (`.ci/run`) that is a failure."""
    path, why = walls.bubblewrap()
    if path is None:
        assert not os.environ.get("TLHELPERS_SANDBOX"), f"bubblewrap works here, but not for us{why}"
        pytest.skip(f"bubblewrap does not work here{why}")


def write(folder, content, name="concepts"):
    """Write a notebook, or any bytes, as a student's submission."""
    folder.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / f"{name}.ipynb").write_bytes(data)


def table(path):
    """Return the lines of a table."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def look_at_results(rows, assignment, out):
    """The tables have everybody, and the pages hold nothing of the checks and load nothing."""
    lines = {line["number"] or line["student"]: line for line in table(out / "grades.csv")}
    assert set(lines) == {row.key for row in rows}
    for key, line in lines.items():
        assert (line["status"] != "not graded") == bool(line["points"]), key
        assert line["status"] != "not graded" or line["reason"], f"{key} has neither points nor a reason"
    assert len(table(out / "moodle.csv")) == len(rows)
    assert len(table(out / "canvas.csv")) == 1 + sum(line["status"] == "graded" for line in lines.values())
    checks = assignment.checks.source
    secret_lines = {line.strip() for line in checks.split("\n") if len(line.strip()) > 40}
    messages = set(re.findall(r'"([^"]{20,})"', checks))
    own = json.dumps(assignment.source())
    secret_lines = {
        line for line in secret_lines if not line.startswith('"') and json.dumps(line)[1:-1] not in own
    }
    pages = [*(out / "feedback").glob("*.html"), out / "summary.html"]
    assert len(pages) == len(rows) + 1
    for page in pages:
        assert page.stat().st_size < 10 << 20
        text = page.read_text(encoding="utf-8")
        for line in secret_lines:
            if not any(message in line for message in messages):
                assert report.escape(line) not in text, f"{page.name} shows a line of the checks: {line}"
        assert not re.search(r"<(script|link|iframe|object)|(src|href)=[\"'](?!data:|feedback/)", text), (
            page.name
        )
        assert "default-src &#x27;none" in text or "default-src 'none'" in text
