"""The coursework: sources, releases, outcomes, points of planted submissions, and what tries to break it."""

import ast
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile

import broken
import planted
import pytest

from tools import coursework
from tools.grading import collect, course, engine, release, report, sandbox
from tools.grading.box import wire

NAMES = course.names()
AUTOGRADED = [name for name in NAMES if course.load(name).checks is not None]
SECRET = "a secret of the tests"
JOBS = min(2, os.cpu_count() or 1)
# Graded in every run of the tests: one assignment without a network, one with evaluation. Weekly all of them.
ALWAYS = ("concepts", "tuning")
ALL = bool(os.environ.get("TLHELPERS_ALL_ASSIGNMENTS"))


class Releases(dict):
    """Name -> released notebook, built when it is asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, name):
        self.update(release.build([course.load(name)], self.folder))
        return self[name]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The releases."""
    return Releases(tmp_path_factory.mktemp("release"))


def settings(**changes):
    limits = sandbox.Limits(**{"seconds": 300.0, **changes})
    return engine.Settings(SECRET, limits, jobs=JOBS)


# The sources and the releases.


@pytest.mark.parametrize("name", NAMES)
def test_items_and_notebook_agree(name):
    assignment = course.load(name)
    cells = planted.cells_by_id(assignment.source())
    assert [c for c in cells if cells[c]["metadata"]["nbgrader"].get("solution")] == [
        item.name for item in assignment.items
    ]
    text = planted.text_of(cells["intro"])
    assert f"{assignment.points:g} points" in text, (
        f"the introduction must name the {assignment.points:g} points"
    )
    for item in assignment.items:
        assert all(points > 0 for points in item.parts.values())
        said = f"({item.points:g} points)"
        assert said in planted.text_of(cells[f"{item.name}_text"]), f"{item.name}: the text must say {said}"
        if item.by_hand:
            assert cells[item.name]["metadata"]["nbgrader"]["points"] == item.points
        else:
            assert f"{item.name}_visible" in cells
            for kind in ("probe", "check"):
                assert hasattr(assignment.checks, f"{kind}_{item.name}")


@pytest.mark.parametrize("name", NAMES)
def test_release_holds_no_solution(name, released):
    notebook = released[name]
    text = json.dumps(notebook)
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|BROKEN|def probe_|check_\w+\(given", text)
    before = planted.cells_by_id(course.load(name).source())
    after = planted.cells_by_id(notebook)
    assert set(after) == {*before, "colab"}
    for item in course.load(name).items:
        if item.by_hand:
            continue
        regions = planted.REGION.findall(planted.text_of(before[item.name]))
        assert regions
        for region in regions:
            solved = planted.BROKEN.sub("", region).strip()
            assert solved
            assert solved not in planted.text_of(after[item.name])
        ast.parse(planted.text_of(after[item.name]))
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    with zipfile.ZipFile(released.folder / f"{name}.zip") as archive:
        assert archive.namelist() == [f"{name}/{name}.ipynb"]
    assert "colab.research.google.com" in planted.text_of(after["intro"])


@pytest.mark.parametrize("name", AUTOGRADED)
def test_every_visible_check_has_a_message_that_teaches(name):
    cells = planted.cells_by_id(course.load(name).source())
    checks = 0
    for cell_id, cell in cells.items():
        if not cell_id.endswith("_visible"):
            continue
        for node in ast.walk(ast.parse(planted.text_of(cell))):
            if isinstance(node, ast.Assert):
                checks += 1
                assert node.msg is not None, f"{cell_id}: an assert without a message"
                assert len(ast.unparse(node.msg)) > 30, f"{cell_id}: too short to teach"
    assert checks >= len(course.load(name).items)


@pytest.mark.parametrize("name", NAMES)
def test_source_has_no_outputs(name):
    cells = course.load(name).source()["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("name", AUTOGRADED)
def test_probes_hold_all_that_they_need_and_nothing_that_is_right(name):
    """A probe is sent alone: it may use its arguments, what it imports and what is built in."""
    assignment = course.load(name)
    for item in [item for item in assignment.items if not item.by_hand]:
        function = ast.parse(assignment.probe(item)).body[0]
        assert isinstance(function, ast.FunctionDef)
        code = compile(assignment.probe(item), "probe", "exec").co_consts[0]
        unknown = set(code.co_names) & set(vars(assignment.checks)) - set(dir(__builtins__))
        assert not unknown - {"np"}, f"{item.name}: {unknown} lies outside of the probe"
        given = assignment.draw(item, SECRET, 0)
        again = assignment.draw(item, SECRET, 0)
        other = assignment.draw(item, "another secret", 0)
        same = [key for key in given if str(given[key]) != str(again[key])]
        assert not same, f"{item.name}: {same} differ for the same secret"
        if len(given) > 1:
            assert str(given) != str(other), f"{item.name}: the inputs do not depend on the secret"


# Outcomes.


def test_every_outcome_is_assessed():
    missing = sorted(set(course.outcomes_of_book()) - set(course.assessed()))
    assert not missing, (
        f"no graded item assesses {', '.join(missing)}: add them to items in coursework/items.toml"
    )


def test_items_assess_outcomes_that_exist():
    unknown = sorted(set(course.assessed()) - set(course.outcomes_of_book()))
    assert not unknown, f"coursework/items.toml names {', '.join(unknown)}, which no page promises"


# Points of planted submissions.


@pytest.mark.slow
@pytest.mark.parametrize("name", list(planted.SUBMISSIONS))
def test_planted_submissions_get_their_points(name, released, tmp_path):
    if name not in ALWAYS and not ALL:
        pytest.skip("takes minutes: runs weekly, and where TLHELPERS_ALL_ASSIGNMENTS is set")
    assignment = course.load(name)
    planted.plant(name, assignment.source(), released[name], tmp_path / "in")
    rows = coursework.grade(name, tmp_path / "in", tmp_path / "out", ["absent"], settings(), say=False)
    by_name = {row.student: row for row in rows}
    assert set(by_name) == {*planted.SUBMISSIONS[name], "absent"}
    assert by_name["absent"].reason == "nothing was handed in"
    look_at_points(by_name, assignment, planted.SUBMISSIONS[name])
    look_at_results(rows, assignment, tmp_path / "out")


def look_at_points(by_name, assignment, expected):
    """Each student has the points that were stated for what was planted."""
    for student, submission in expected.items():
        row = by_name[student]
        assert row.graded, f"{student}: {row.reason}"
        for item in assignment.items:
            if item.by_hand:
                continue
            lost = submission.lost.get(item.name, 0.0)
            right = item.points - (item.points if lost == planted.NONE else lost)
            assert row.item_points(item) == pytest.approx(right, abs=0.005), (
                student,
                item.name,
                row.messages,
            )


@pytest.mark.slow
def test_a_class_of_thirty_is_graded_within_fifteen_minutes(tmp_path):
    """Release, thirty submissions of the assignment with networks, points, tables and feedback pages."""
    if not ALL:
        pytest.skip("takes minutes: runs weekly, and where TLHELPERS_ALL_ASSIGNMENTS is set")
    assignment = course.load("repair")
    start = time.monotonic()
    notebook = release.build([assignment], tmp_path / "release")["repair"]
    planted.plant("repair", assignment.source(), notebook, tmp_path / "planted")
    students = {}
    for number, student in zip(range(30), itertools.cycle(planted.REPAIR), strict=False):
        students[f"student{number:02d}"] = planted.REPAIR[student]
        shutil.copytree(tmp_path / "planted" / student, tmp_path / "in" / f"student{number:02d}")
    rows = coursework.grade("repair", tmp_path / "in", tmp_path / "out", [], settings(), say=False)
    minutes = (time.monotonic() - start) / 60
    print(f"{len(rows)} submissions: {minutes:.1f} min")
    look_at_points({row.student: row for row in rows}, assignment, students)
    look_at_results(rows, assignment, tmp_path / "out")
    assert len(rows) == 30
    assert minutes < 15


def look_at_results(rows, assignment, out):
    """The tables have everybody, and the pages hold nothing of the checks and load nothing."""
    with open(out / "grades.csv", newline="", encoding="utf-8-sig") as file:
        lines = {line["student"]: line for line in csv.DictReader(file)}
    assert set(lines) == {row.student for row in rows}
    for student, line in lines.items():
        assert (line["status"] != "not graded") == bool(line["points"]), student
        assert line["status"] != "not graded" or line["reason"], f"{student} has neither points nor a reason"
    for table in ("canvas.csv", "moodle.csv"):
        with open(out / table, newline="", encoding="utf-8-sig") as file:
            assert len(list(csv.DictReader(file))) == len(rows) + (table == "canvas.csv")
    checks = (course.COURSE / "checks" / f"{assignment.name}.py").read_text(encoding="utf-8")
    secret_lines = {line.strip() for line in checks.split("\n") if len(line.strip()) > 40}
    messages = set(re.findall(r'"([^"]{20,})"', checks))
    own = json.dumps(assignment.source())
    secret_lines = {
        line for line in secret_lines if not line.startswith('"') and json.dumps(line)[1:-1] not in own
    }
    pages = [*(out / "feedback").glob("*.html"), out / "summary.html"]
    assert len(pages) == len(rows) + 1
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for line in secret_lines:
            if not any(message in line for message in messages):
                assert report.escape(line) not in text, f"{page.name} shows a line of the checks: {line}"
        assert not re.search(r"<(script|link|iframe|object)|(src|href)=[\"'](?!data:|feedback/)", text), (
            page.name
        )
        assert "default-src &#x27;none" in text or "default-src 'none'" in text


@pytest.mark.slow
def test_visible_messages_reach_the_student(released, tmp_path):
    """As released, the visible tests fail with their own messages, and these stand on the feedback page."""
    assignment = course.load("concepts")
    (tmp_path / "empty").mkdir()
    release.write(released["concepts"], tmp_path / "empty" / "concepts.ipynb")
    rows = coursework.grade("concepts", tmp_path, tmp_path / "out", settings=settings(), say=False)
    page = (tmp_path / "out" / "feedback" / "empty.html").read_text(encoding="utf-8")
    assert rows[0].total == 0
    assert "has no answer yet" in page
    assert "AssertionError" in page
    assert all(report.escape(item.title) in page for item in assignment.items)


# Submissions that break things.


@pytest.mark.slow
def test_no_submission_breaks_the_grader(released, tmp_path):
    source, notebook = course.load("concepts").source(), released["concepts"]
    broken.plant(source, notebook, tmp_path / "in")
    limits = settings(cell_seconds=6.0, probe_seconds=6.0, memory=3 << 29)
    rows = coursework.grade("concepts", tmp_path / "in", tmp_path / "out", ["absent"], limits, say=False)
    by_name = {row.student: row for row in rows}
    everybody = {*broken.RUNNING, *broken.FILES, *broken.ENCODINGS, "wrong name", "empty folder", "absent"}
    assert set(by_name) == everybody
    best = course.load("concepts").points
    for name, (_, lost, reason) in broken.RUNNING.items():
        row = by_name[name]
        assert row.graded, f"{name}: {row.reason}"
        assert row.total == pytest.approx(best - lost), f"{name}: {row.messages} {row.reason}"
        assert reason in row.reason, f"{name}: {row.reason}"
    for name in broken.ENCODINGS:
        assert by_name[name].total == pytest.approx(best), f"{name}: {by_name[name].reason}"
    for name, (_, reason) in broken.FILES.items():
        assert not by_name[name].graded
        assert reason in by_name[name].reason, f"{name}: {by_name[name].reason}"
    assert "Untitled.ipynb" in by_name["wrong name"].reason
    assert "the folder is empty" in by_name["empty folder"].reason
    look_at_results(rows, course.load("concepts"), tmp_path / "out")


FRAME_THEN_FORK = """
import subprocess, sys, time
from tools.grading.box import wire
wire.write(1, wire.pack({'event': 'begin', 'cell': 1}))
children = [subprocess.Popen(['sleep', '60']) for _ in range(60)]
open(sys.argv[1], 'w').close()
time.sleep(60)
"""


def test_the_cell_that_began_is_blamed_not_the_one_before(tmp_path):
    """On a busy machine the grader may look late: what was sent before is read before anything is blamed."""
    started = tmp_path / "started"
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME_THEN_FORK, str(started)],
        env={**os.environ, "PYTHONPATH": str(course.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    box = sandbox.Box(process, sandbox.Limits())
    try:
        while not started.is_file():
            assert process.poll() is None
            time.sleep(0.05)
        assert box.receive(30)[0] == {"event": "begin", "cell": 1}
        with pytest.raises(sandbox.Ended, match="processes"):
            box.receive(30)
    finally:
        box.close()


SPY = """
import os
import socket
seen = []
for path in {paths!r}:
    try:
        seen.append(open(path).read()[:200])
    except OSError as error:
        print('no', type(error).__name__)
try:
    socket.create_connection(('127.0.0.1', {port}), timeout=2).close()
    print('NETWORK')
except OSError as error:
    print('no network', type(error).__name__)
try:
    open({target!r}, 'w').write('I was here')
except OSError as error:
    print('no write', type(error).__name__)
print('SEEN', seen, sorted(os.environ))
"""


@pytest.mark.slow
def test_a_submission_sees_its_own_folder_alone(released, tmp_path, monkeypatch):
    """In bubblewrap: no checks, no solutions, no other submission, no network, no file outside."""
    if sandbox.bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or namespaces are forbidden here")
    import socket

    monkeypatch.setenv("COURSEWORK_SECRET", SECRET)
    server = socket.create_server(("127.0.0.1", 0))
    target = tmp_path / "outside.txt"
    paths = [
        str(course.COURSE / "checks" / "concepts.py"),
        str(course.COURSE / "source" / "concepts" / "concepts.ipynb"),
        str(tmp_path / "in" / "other" / "concepts.ipynb"),
        "/etc/passwd",
    ]
    spy = broken.own_cell(SPY.format(paths=paths, port=server.getsockname()[1], target=str(target)))
    solved = planted.solved(course.load("concepts").source(), released["concepts"])
    broken.write(tmp_path / "in" / "other", json.dumps(solved).encode())
    broken.write(tmp_path / "in" / "spy", json.dumps(spy(solved)).encode())
    rows = coursework.grade("concepts", tmp_path / "in", tmp_path / "out", settings=settings(), say=False)
    row = next(row for row in rows if row.student == "spy")
    said = "".join(cell["text"] for cell in row.cells)
    server.close()
    assert "SEEN []" in said, said
    assert "no network" in said
    assert SECRET not in said
    assert not target.exists()


def test_bubblewrap_is_called_with_walls(tmp_path):
    """What the command line must hold, whether or not bubblewrap works here."""
    line = sandbox.command("/usr/bin/bwrap", tmp_path)
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--clearenv"} <= set(line)
    assert "--share-net" not in line
    writable = [line[i + 1 : i + 3] for i, word in enumerate(line) if word == "--bind"]
    assert writable == [[str(tmp_path), "/box"]]
    readable = [line[i + 1] for i, word in enumerate(line) if word.startswith("--ro-bind")]
    for path in (course.COURSE, course.ROOT / "tools", course.ROOT / "tests", course.ROOT):
        assert not any(str(path) == bound or str(path).startswith(f"{bound}/") for bound in readable)
    assert not any(
        name.startswith(("COURSEWORK", "AWS", "HOME/")) for name in sandbox.environment("/box", "/c")
    )


def test_without_bubblewrap_there_is_a_loud_warning(released, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ada.ipynb").write_text("{}", encoding="utf-8")
    notebooks = {"concepts": released["concepts"]}
    monkeypatch.setattr(release, "build", lambda assignments, out: notebooks)
    coursework.grade("concepts", tmp_path / "in", tmp_path / "out", settings=settings(), say=False)
    assert "NO SANDBOX" in capsys.readouterr().err
    assert "NO SANDBOX" in (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")


def test_the_public_secret_is_named_loudly(released, tmp_path, monkeypatch, capsys):
    notebooks = {"concepts": released["concepts"]}
    monkeypatch.setattr(release, "build", lambda assignments, out: notebooks)
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    public = engine.Settings(course.DEMONSTRATION)
    coursework.grade("concepts", tmp_path, tmp_path / "out", settings=public, say=False)
    assert "COURSEWORK_SECRET" in capsys.readouterr().err


# Variants, marks by hand, names, frames.


@pytest.mark.slow
def test_a_variant_is_graded_by_its_own_numbers(released, tmp_path):
    assignment, notebook = course.load("concepts"), released["concepts"]
    release.build_variants(notebook, assignment, ["ada", "bob"], SECRET, tmp_path / "release")
    own = {}
    for student in ("ada", "bob"):
        path = tmp_path / "release" / "concepts-variants" / student / "concepts.ipynb"
        own[student] = course.read_notebook(path)
        solved = planted.solved(assignment.source(), own[student])
        broken.write(tmp_path / "in" / student, json.dumps(solved).encode())
    assert own["ada"] != own["bob"]
    ours = engine.Settings(SECRET, variants=True, jobs=JOBS)
    rows = coursework.grade("concepts", tmp_path / "in", tmp_path / "out", settings=ours, say=False)
    assert [row.total for row in rows] == [assignment.points] * 2


def imported(out):
    """Canvas' points, Moodle's points and Moodle's comments of the only student."""
    with open(out / "canvas.csv", newline="", encoding="utf-8-sig") as file:
        canvas = list(csv.reader(file))[2][5]
    with open(out / "moodle.csv", newline="", encoding="utf-8-sig") as file:
        line = next(csv.DictReader(file))
    return canvas, line["Grade"], line["Feedback comments"]


def test_marks_by_hand_go_into_a_sheet_and_come_back(released, tmp_path):
    assignment = course.load("project")
    (tmp_path / "in" / "ada").mkdir(parents=True)
    release.write(released["project"], tmp_path / "in" / "ada" / "project.ipynb")
    rows = coursework.grade("project", tmp_path / "in", tmp_path / "out", settings=settings(), say=False)
    assert rows[0].graded
    with open(tmp_path / "out" / "grades.csv", newline="", encoding="utf-8-sig") as file:
        assert next(csv.DictReader(file))["status"] == "to be marked"
    # Nobody gets a zero meanwhile.
    assert imported(tmp_path / "out") == ("", "", "some marks are still to come")
    sheet = tmp_path / "out" / "marks.csv"
    lines = sheet.read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 1 + sum(len(item.parts) for item in assignment.items)
    filled = [lines[0]] + [f"{','.join(line.split(',')[:4])},2.5,well done" for line in lines[1:]]
    marks = tmp_path / "marks.csv"
    marks.write_text("\n".join(filled), encoding="utf-8")
    arguments = ("project", tmp_path / "in", tmp_path / "out", (), settings(), marks, False)
    rows = coursework.grade(*arguments)
    assert rows[0].total == 2.5 * (len(lines) - 1)
    assert imported(tmp_path / "out") == (f"{rows[0].total:g}", f"{rows[0].total:g}", "")
    assert "well done" in (tmp_path / "out" / "feedback" / "ada.html").read_text(encoding="utf-8")
    marks.write_text(f"{lines[0]}\nada,data,data,6,7,\n", encoding="utf-8")
    with pytest.raises(course.CourseworkError, match="go from 0 to 6"):
        coursework.grade(*arguments)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("lovelaceada_12345_67890_repair", ("lovelaceada", "12345")),
        ("lovelaceada_LATE_12345_67890_repair-2", ("lovelaceada", "12345")),
        ("Ada Lovelace_4711_assignsubmission_file_", ("Ada Lovelace", "4711")),
        ("ada", ("ada", "")),
        ("ada_lovelace", ("ada_lovelace", "")),
    ],
)
def test_names_of_learning_platforms(file, expected):
    assert collect.identity(file) == expected


def test_a_folder_that_cannot_be_graded_is_named(tmp_path):
    assignment = course.load("repair")
    with pytest.raises(course.CourseworkError, match="There is no folder"):
        collect.find(tmp_path / "nowhere", assignment)
    with pytest.raises(course.CourseworkError, match="neither subfolders nor notebooks"):
        collect.find(tmp_path, assignment)
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    with pytest.raises(course.CourseworkError, match="two submissions of ada"):
        collect.find(tmp_path, assignment)


def test_a_spreadsheet_runs_no_formula_of_a_student(tmp_path):
    row = engine.Row("=1+1", reason="@evil")
    report.write_grades([row], course.load("repair"), tmp_path / "grades.csv")
    text = (tmp_path / "grades.csv").read_text(encoding="utf-8-sig")
    assert "'=1+1" in text
    assert "'@evil" in text


def test_frames_hold_numbers_and_nothing_else():
    meta, arrays = next(wire.Frames().feed(wire.pack({"a": 1}, {"x": [1.5, 2.0], "flag": True})))
    assert meta == {"a": 1}
    assert arrays["x"].tolist() == [1.5, 2.0]
    assert bool(arrays["flag"]) is True
    with pytest.raises(wire.WireError, match="only numbers"):
        wire.pack({}, {"x": object()})
    good = wire.pack({"a": 1}, {"x": [1.5]})[8:]
    for bad in (good[:-1], b"", good[:20], good.replace(b"<f8", b"|O8"), b"x" * 30):
        with pytest.raises(wire.WireError):
            wire.unpack(bad)


def test_the_command_says_what_is_missing(tmp_path):
    tool = [os.sys.executable, "-m", "tools.coursework", "grade"]
    done = subprocess.run([*tool, str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no folder" in done.stderr
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    done = subprocess.run([*tool, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "--assignment" in done.stderr
