"""Points of planted submissions, the walls around them, variants, and what the command says."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import broken
import planted
import pytest
from classroom import ALL, JOBS, SECRET, look_at_results, need_walls, settings, weekly, write

from tools import coursework
from tools.grading import course, engine, release, walls

# Through the sandbox in every run of the tests; test_coursework_checks judges all others in one process.
ALWAYS = {"concepts": ("perfect", "mixed-up", "empty"), "tuning": ("perfect", "twins-apart")}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(planted.SUBMISSIONS))
def test_planted_submissions_get_their_points(name, released, graded, tmp_path):
    if name not in ALWAYS and not ALL:
        pytest.skip("takes minutes: runs weekly, and where TLHELPERS_ALL_ASSIGNMENTS is set")
    assignment = course.load(name)
    chosen = list(planted.SUBMISSIONS[name]) if ALL else list(ALWAYS[name])
    planted.plant(name, assignment.source(), released[name], tmp_path / "in", chosen)
    known = coursework.Class([*chosen, "absent"])
    rows = graded(name, tmp_path / "in", tmp_path / "out", settings(), known, say=False)
    by_name = {row.student: row for row in rows}
    assert set(by_name) == {*chosen, "absent"}
    assert by_name["absent"].reason == "nothing was handed in"
    look_at_points(by_name, assignment, {student: planted.SUBMISSIONS[name][student] for student in chosen})
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


@weekly
@pytest.mark.slow
def test_a_class_of_thirty_is_graded_within_fifteen_minutes(tmp_path):
    """Release, thirty submissions of the assignment with networks, points, tables and feedback pages."""
    assignment = course.load("repair")
    start = time.monotonic()
    notebook = release.build([assignment], tmp_path / "release")["repair"]
    every = list(planted.REPAIR)
    planted.plant("repair", assignment.source(), notebook, tmp_path / "planted", every)
    students = {}
    for number, student in zip(range(30), itertools.cycle(every), strict=False):
        students[f"student{number:02d}"] = planted.REPAIR[student]
        shutil.copytree(tmp_path / "planted" / student, tmp_path / "in" / f"student{number:02d}")
    rows = coursework.grade("repair", tmp_path / "in", tmp_path / "out", settings(), say=False)
    minutes = (time.monotonic() - start) / 60
    print(f"{len(rows)} submissions: {minutes:.1f} min")
    look_at_points({row.student: row for row in rows}, assignment, students)
    look_at_results(rows, assignment, tmp_path / "out")
    assert len(rows) == 30
    assert minutes < 15


@pytest.mark.slow
def test_the_best_of_several_notebooks_counts(released, graded, tmp_path):
    perfect = planted.solved(course.load("concepts").source(), released["concepts"])
    write(tmp_path / "in" / "ada", released["concepts"])
    write(tmp_path / "in" / "ada", perfect, "concepts (1)")
    (row,) = graded("concepts", tmp_path / "in", tmp_path / "out", settings(), say=False)
    assert row.total == course.load("concepts").points
    assert "2 notebooks were handed in" in row.reason


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
written = []
for folder in ('/', '/dev', '/course', '/usr', '/etc', '/proc/sys/kernel'):
    try:
        open(folder + '/x', 'w').close()
        written.append(folder)
    except OSError:
        pass
sizes = [os.statvfs(p).f_blocks * os.statvfs(p).f_frsize >> 20 for p in ('/box', '/tmp', '/dev/shm')]
capable = [line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')]
lines = [open(f'/proc/{{n}}/cmdline').read() for n in os.listdir('/proc') if n.isdigit()]
others = [line for line in lines if 'coursework' in line or 'pytest' in line]
print('SEEN', seen, written, sizes, set(capable), others, sorted(os.environ))
"""


@pytest.mark.slow
def test_a_submission_sees_its_own_folder_alone(released, graded, tmp_path, monkeypatch):
    """In bubblewrap: no checks, no neighbour, no network, no capability, all that it writes has a size."""
    need_walls()
    monkeypatch.setenv("COURSEWORK_SECRET", SECRET)
    server = socket.create_server(("127.0.0.1", 0))
    target = tmp_path / "outside.txt"
    paths = [
        str(course.COURSE / "checks" / "concepts.py"),
        str(course.COURSE / "source" / "concepts" / "concepts.ipynb"),
        str(tmp_path / "in" / "other" / "concepts.ipynb"),
        "/etc/passwd",
        f"/proc/{os.getpid()}/environ",
    ]
    spy = broken.own_cell(SPY.format(paths=paths, port=server.getsockname()[1], target=str(target)))
    solved = planted.solved(course.load("concepts").source(), released["concepts"])
    write(tmp_path / "in" / "spy", spy(json.loads(json.dumps(solved))))
    (tmp_path / "in" / "other").mkdir()
    (_, spied) = graded("concepts", tmp_path / "in", tmp_path / "out", settings(), say=False)
    said = "".join(cell["text"] for cell in spied.cells)
    server.close()
    assert "SEEN [] [] [256, 64, 64] {'0000000000000000'} []" in said, said
    assert "no network" in said
    assert SECRET not in said
    assert not target.exists()


def test_bubblewrap_is_called_with_walls():
    """What the command line must hold, whether or not bubblewrap works here."""
    line = walls.command("/usr/bin/bwrap", 1 << 20)
    assert {"--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"} <= set(
        line
    )
    assert line[line.index("--cap-drop") + 1] == "ALL"
    assert "--share-net" not in line
    assert "--bind" not in line  # nothing of ours can be written to
    sized = [i for i, word in enumerate(line) if word == "--tmpfs"]
    assert [line[i + 1] for i in sized] == ["/box", "/tmp", "/dev/shm"]
    assert all(line[i - 2] == "--size" for i in sized)
    # a checkout may lie in /tmp
    assert all(max(sized) < line.index(folder) for folder in walls.python_folders())
    assert [line[i + 1] for i, word in enumerate(line) if word == "--remount-ro"] == ["/dev", "/"]
    readable = [line[i + 1] for i, word in enumerate(line) if word.startswith("--ro-bind")]
    for path in (course.COURSE, course.ROOT / "tools", course.ROOT / "tests", course.ROOT):
        assert not any(str(path) == bound or str(path).startswith(f"{bound}/") for bound in readable)
    assert not any(
        name.startswith(("COURSEWORK", "AWS", "HOME/")) for name in walls.environment("/box", "/c")
    )


def test_without_bubblewrap_nothing_is_graded(released, graded, tmp_path, monkeypatch):
    monkeypatch.setattr(walls, "bubblewrap", lambda: (None, "; it is not installed"))
    write(tmp_path / "in" / "ada", b"{}")
    with pytest.raises(course.CourseworkError, match="it is not installed") as refused:
        graded("concepts", tmp_path / "in", tmp_path / "out", engine.Settings(SECRET), say=False)
    assert "--unsafe" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_unsafe_is_loud_and_true(released, graded, tmp_path, capsys):
    """Without walls a submission reads the grader's environment, as the warning says."""
    code = "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())"
    perfect = planted.solved(course.load("concepts").source(), released["concepts"])
    write(tmp_path / "in" / "ada", broken.own_cell(code)(perfect))
    unsafe = engine.Settings(SECRET, settings().limits, walls=False)
    (row,) = graded("concepts", tmp_path / "in", tmp_path / "out", unsafe, say=False)
    assert row.total == course.load("concepts").points
    said = capsys.readouterr().err
    summary = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    for text in (" ".join(said.replace("*", "").split()), summary):
        assert "NO SANDBOX" in text
        assert "answers and your secret" in text
    if sys.platform.startswith("linux"):
        assert "PATH=" in "".join(cell["text"] for cell in row.cells)


def test_the_public_secret_is_named_loudly(released, graded, tmp_path, capsys):
    write(tmp_path / "in" / "ada", b"{}")
    public = engine.Settings(course.DEMONSTRATION, walls=settings().walls)
    graded("concepts", tmp_path / "in", tmp_path / "out", public, say=False)
    assert "COURSEWORK_SECRET" in capsys.readouterr().err


@pytest.mark.slow
def test_a_variant_is_graded_by_its_own_numbers(released, graded, tmp_path):
    assignment, notebook = course.load("concepts"), released["concepts"]
    release.build_variants(notebook, assignment, ["ada", "bob"], SECRET, tmp_path / "release")
    own = {}
    for student in ("ada", "bob"):
        path = tmp_path / "release" / "concepts-variants" / student / "concepts.ipynb"
        own[student] = course.read_notebook(path)
        write(tmp_path / "in" / student, planted.solved(assignment.source(), own[student]))
    assert own["ada"] != own["bob"]
    ours = engine.Settings(SECRET, walls=settings().walls, variants=True, jobs=JOBS)
    rows = graded("concepts", tmp_path / "in", tmp_path / "out", ours, say=False)
    assert [row.total for row in rows] == [assignment.points] * 2


def test_the_command_says_what_is_missing(tmp_path):
    tool = [sys.executable, "-m", "tools.coursework", "grade"]
    done = subprocess.run([*tool, str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no folder" in done.stderr
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    done = subprocess.run([*tool, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "--assignment" in done.stderr
