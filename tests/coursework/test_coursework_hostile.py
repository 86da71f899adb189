"""Whatever is handed in, the class is graded: attackers, files that are none, a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time

import broken
import hostile
import numpy as np
import planted
import psutil
import pytest
from classroom import ALL, SECRET, look_at_results, need_walls, settings, table, weekly, write

from tools.grading import collect, course, engine, row, run, sandbox, who
from tools.grading.box import wire

BEST = course.load("concepts").points
HERE = list(hostile.HOSTILE) if ALL else list(hostile.ALWAYS)


def test_there_are_enough_of_them():
    assert len(hostile.HOSTILE) >= 40


@pytest.mark.slow
def test_no_hostile_submission_stops_the_class(released, graded, tmp_path, monkeypatch):
    """Each ends as a row: with its points and the reason, while the others get what is theirs."""
    need_walls()
    monkeypatch.setattr(run, "SLACK", 10.0)
    notebooks = hostile.plant(course.load("concepts").source(), released["concepts"], HERE)
    for name, notebook in notebooks.items():
        write(tmp_path / "in" / name, notebook)
    write(tmp_path / "in" / "honest", planted.solved(course.load("concepts").source(), released["concepts"]))
    before = psutil.Process().memory_info().rss
    # Who fills the machine is stopped long before that here: others use it too.
    memory = psutil.virtual_memory()
    monkeypatch.setattr(sandbox, "SPARE", max(sandbox.SPARE, (memory.available - (6 << 30)) / memory.total))
    limits = settings(cell_seconds=8.0, probe_seconds=6.0, memory=3 << 29)
    rows = {r.student: r for r in graded("concepts", tmp_path / "in", tmp_path / "out", limits, say=False)}
    assert psutil.Process().memory_info().rss - before < 1 << 30
    assert rows.pop("honest").total == BEST
    problems = []
    for name, one in rows.items():
        expected = hostile.HOSTILE[name]
        print(f"{name} | {f'{one.total:g}' if one.graded else 'not graded'} | {one.reason}")
        lost = BEST if expected.lost == hostile.EVERYTHING else expected.lost
        if not one.graded or expected.reason not in one.reason or abs(one.total - (BEST - lost)) > 0.01:
            problems.append(f"{name}: {one.total:g} of {BEST:g}, {one.reason!r}, {one.messages}")
    assert set(rows) == set(HERE)
    said = "".join(one["text"] for one in rows["looks for the key"].cells)
    assert "FOUND [] None" in said, said
    assert not problems, "\n".join(problems)
    left = [
        p.pid for p in psutil.process_iter(["cmdline"]) if hostile.DAEMON_SECONDS in (p.info["cmdline"] or ())
    ]
    assert not left, "a child of a submission is still there"
    look_at_results([*rows.values(), engine.Row("honest")], course.load("concepts"), tmp_path / "out")


@pytest.mark.slow
def test_no_broken_submission_stops_the_class(released, graded, tmp_path):
    """Accidents: loops, crashes, changed and missing cells. A few in every run, all of them weekly."""
    need_walls()
    chosen = broken.RUNNING if ALL else {name: broken.RUNNING[name] for name in broken.ALWAYS}
    broken.plant(course.load("concepts").source(), released["concepts"], tmp_path / "in", chosen)
    limits = settings(cell_seconds=6.0, probe_seconds=6.0, memory=3 << 29)
    rows = graded("concepts", tmp_path / "in", tmp_path / "out", limits, say=False)
    by_name = {row.student: row for row in rows}
    assert set(by_name) == {*chosen, *broken.ENCODINGS}
    for name, (_, lost, reason) in chosen.items():
        one = by_name[name]
        print(f"{name} | {one.total:g} | {one.reason}")
        assert one.graded, f"{name}: {one.reason}"
        assert one.total == pytest.approx(BEST - lost), f"{name}: {one.messages} {one.reason}"
        assert reason in one.reason, f"{name}: {one.reason}"
    for name in broken.ENCODINGS:
        assert by_name[name].total == pytest.approx(BEST), f"{name}: {by_name[name].reason}"
    look_at_results(rows, course.load("concepts"), tmp_path / "out")


def test_files_that_are_no_notebooks_get_a_reason(released, graded, tmp_path, capsys):
    """A pipe, links, 200 MB, and whatever else is not a notebook: nothing starts, and nobody waits."""
    folder = tmp_path / "in"
    for name, (content, _) in broken.FILES.items():
        write(folder / name, content)
    for name in ("pipe", "folder", "link", "large", "empty folder", "several"):
        (folder / name).mkdir()
    os.mkfifo(folder / "pipe" / "concepts.ipynb")
    os.mkfifo(folder / "pipe at the top.ipynb")
    (folder / "folder" / "concepts.ipynb").mkdir()
    (folder / "link" / "concepts.ipynb").symlink_to(folder / "cut off" / "concepts.ipynb")
    (folder / "link of a folder").symlink_to(folder / "cut off")
    with open(folder / "large" / "concepts.ipynb", "wb") as file:
        file.truncate(200 << 20)
    for other in ("a.ipynb", "b.ipynb"):
        (folder / "several" / other).write_text("{}", encoding="utf-8")
    expected = {
        **{name: reason for name, (_, reason) in broken.FILES.items()},
        "pipe": "a pipe",
        "pipe at the top": "a pipe",
        "folder": "the folder is empty",
        "link": "a link",
        "link of a folder": "a link",
        "large": "200 MB",
        "empty folder": "the folder is empty",
        "several": "a.ipynb, b.ipynb",
        "absent": "nothing was handed in",
    }
    from tools import coursework

    known = coursework.Class([*expected])
    start = time.monotonic()
    rows = graded("concepts", folder, tmp_path / "out", settings(), known)
    assert time.monotonic() - start < 60
    printed = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert len(printed) == len(rows)
    assert all(line.isprintable() for line in printed)
    said = {one.student: one.reason for one in rows}
    assert set(said) == set(expected)
    for name, reason in expected.items():
        assert reason in said[name], f"{name}: {said[name]}"
    assert not any(one.graded for one in rows)
    look_at_results(rows, course.load("concepts"), tmp_path / "out")


def test_whatever_goes_wrong_in_the_grader_is_a_reason(released, graded, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "merge", lambda *given: [][1])
    write(tmp_path / "in" / "ada", released["concepts"])
    rows = graded("concepts", tmp_path / "in", tmp_path / "out", settings(), say=False)
    assert "could not cope with it (IndexError)" in rows[0].reason
    assert table(tmp_path / "out" / "grades.csv")[0]["status"] == "not graded"


def test_where_memory_ran_out_a_submission_is_graded_again_alone(monkeypatch):
    """A neighbour may have taken it. Alone, the greedy one is stopped again, and the honest one is not."""
    tried = []

    def grade(assignment, released, one, given):
        tried.append(one)
        crowded = one == "greedy" or (one == "honest" and tried.count(one) == 1)
        return row.Row(one, reason=f"{sandbox.CROWDED} and it was stopped" if crowded else "")

    monkeypatch.setattr(engine, "grade", grade)
    rows = engine.grade_all(None, None, ["honest", "greedy", "quiet"], engine.Settings("", jobs=2))
    assert {one.student for one in rows if one.reason} == {"greedy"}
    assert sorted(tried) == ["greedy", "greedy", "honest", "honest", "quiet"]


GRADE = """
import sys
from pathlib import Path
from tools import coursework
from tools.grading import course, engine, release, sandbox, walls
import json
notebook = json.loads(Path(sys.argv[3]).read_text())
release.build = lambda assignments, out: {"concepts": notebook}
limits = sandbox.Limits(cell_seconds=8.0, probe_seconds=8.0, memory=3 << 29)
settings = engine.Settings("a secret of the tests", limits, walls.bubblewrap()[0] is not None, jobs=2)
coursework.grade("concepts", Path(sys.argv[1]), Path(sys.argv[2]), settings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("students", [6, pytest.param(30, marks=weekly)])
def test_a_class_that_is_killed_in_the_middle_goes_on(students, released, tmp_path):
    """SIGKILL when some rows are there; the same command keeps them and grades the rest."""
    need_walls()
    source, notebook = course.load("concepts").source(), released["concepts"]
    (tmp_path / "release.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    attackers = list(hostile.ALWAYS)[: 5 if students == 30 else 1]
    attacks = hostile.plant(source, notebook, attackers)
    for number in range(students):
        name = f"student{number:02d}"
        attack = attacks[attackers[number // 6]] if number % 6 == 2 and number // 6 < len(attackers) else None
        write(tmp_path / "in" / name, attack or planted.solved(source, notebook))
    command = [
        sys.executable,
        "-c",
        GRADE,
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        str(tmp_path / "release.ipynb"),
    ]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=course.ROOT)
    kept = tmp_path / "out" / "rows"
    while not kept.is_dir() or len(list(kept.glob("[!.]*.json"))) < students // 3:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() - start < 900
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = {path.name: path.stat().st_mtime_ns for path in kept.glob("[!.]*.json")}
    assert len(first) < students
    assert 0 < len([r for r in table(tmp_path / "out" / "grades.csv") if r["points"]]) < students
    done = subprocess.run(command, capture_output=True, text=True, cwd=course.ROOT, timeout=1800)
    assert f"{len(first)} of {students} are as graded before" in done.stdout, done.stdout + done.stderr
    rows = table(tmp_path / "out" / "grades.csv")
    print(f"{len(rows)} students, killed once: {(time.monotonic() - start) / 60:.1f} min")
    assert time.monotonic() - start < 1800
    assert len(rows) == students
    assert all(one["status"] == "graded" for one in rows)
    assert sum(float(one["points"]) == BEST for one in rows) >= students - len(attackers)
    assert all((kept / name).stat().st_mtime_ns == when for name, when in first.items())


def test_one_student_is_graded_again_and_merged(released, graded, tmp_path):
    """A new file, or --again; --merge keeps those who are not in the folder."""
    from tools import coursework

    for name in ("ada", "bob", "cleo"):
        write(tmp_path / "in" / name, b"{}")
    arguments = ("concepts", tmp_path / "in", tmp_path / "out", settings())
    graded(*arguments, say=False)
    rows = tmp_path / "out" / "rows"
    when = {path.name: path.stat().st_mtime_ns for path in rows.iterdir()}

    def touched():
        now = {path.name: path.stat().st_mtime_ns for path in rows.iterdir()}
        found = {name for name in now if now[name] != when.get(name)}
        when.update(now)
        return found

    graded(*arguments, say=False)
    assert touched() == set()
    write(tmp_path / "in" / "bob", b"[]")
    graded(*arguments, say=False)
    kept = row.Kept(rows)
    assert touched() == {kept.path("bob").name}
    graded(*arguments, coursework.Class(again=["Cleo"]), say=False)
    assert touched() == {kept.path("cleo").name}
    graded(*arguments, coursework.Class(again=[]), say=False)
    assert len(touched()) == 3
    write(tmp_path / "late" / "dora", b"{}")
    merged = graded(
        "concepts", tmp_path / "late", tmp_path / "out", settings(), coursework.Class(merge=True), say=False
    )
    assert [one.student for one in merged] == ["ada", "bob", "cleo", "dora"]
    other = engine.Settings("another secret", walls=settings().walls)
    graded("concepts", tmp_path / "in", tmp_path / "out", other, say=False)
    assert len(touched()) >= 3


def test_a_row_that_was_cut_off_is_not_trusted(tmp_path):
    kept = row.Kept(tmp_path)
    kept.put(row.Row("ada", points={"a.b": 1.0}), "stamp")
    assert kept.get("ada", "stamp").points == {"a.b": 1.0}
    assert kept.get("ada", "other") is None
    path = kept.path("ada")
    path.write_bytes(path.read_bytes()[:-20])
    assert kept.get("ada", "stamp") is None


FRAME_THEN_FORK = """
import subprocess, sys, time
from tools.grading.box import wire
wire.write(1, wire.pack({'event': 'begin', 'cell': 1}))
children = [subprocess.Popen(['sleep', '60']) for _ in range(60)]
open(sys.argv[1], 'w').close()
time.sleep(60)
"""


def started(code, *arguments):
    """Start a program that plays a submission."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(course.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def test_the_cell_that_began_is_blamed_not_the_one_before(tmp_path):
    """On a busy machine the grader may look late: what was sent before is read before anything is blamed."""
    ready = tmp_path / "started"
    process = started(FRAME_THEN_FORK, str(ready))
    box = sandbox.Box(process, sandbox.Limits())
    try:
        while not ready.is_file():
            assert process.poll() is None
            time.sleep(0.05)
        assert box.receive(30)[0] == {"event": "begin", "cell": 1}
        with pytest.raises(sandbox.Ended, match="processes"):
            box.receive(30)
    finally:
        box.close()


def test_a_submission_that_does_not_listen_is_not_waited_for(monkeypatch):
    """Writing has a deadline too: a pipe that nobody empties is full after 64 kB."""
    monkeypatch.setattr(sandbox, "SEND_SECONDS", 1.0)
    box = sandbox.Box(started("import time\ntime.sleep(60)"), sandbox.Limits())
    start = time.monotonic()
    try:
        with pytest.raises(sandbox.Ended, match="did not listen"):
            box.send(bytes(1 << 20))
    finally:
        box.close()
    assert time.monotonic() - start < 20


def test_frames_hold_numbers_and_nothing_else():
    meta, arrays = next(wire.Frames().feed(wire.pack({"a": 1}, {"x": [1.5, 2.0], "flag": True})))
    assert meta == {"a": 1}
    assert arrays["x"].tolist() == [1.5, 2.0]
    assert bool(arrays["flag"]) is True
    with pytest.raises(wire.WireError, match="only numbers"):
        wire.pack({}, {"x": object()})
    good = wire.pack({"a": 1}, {"x": [1.5]})[8:]
    for bad in (
        good[:-1],
        b"",
        good[:20],
        good.replace(b"<f8", b"|O8"),
        good.replace(b"<f8", b"(2,"),
        b"x" * 30,
    ):
        with pytest.raises(wire.WireError):
            wire.unpack(bad)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux has files without a name, others do not")
def test_files_without_a_name_are_counted():
    before = sandbox._in_memory(os.getpid())
    descriptor = os.memfd_create("mine")
    os.write(descriptor, bytes(3 << 20))
    counted = sandbox._in_memory(os.getpid()) - before
    os.close(descriptor)
    assert counted >= 3 << 20


def test_all_outputs_together_have_a_size():
    """A cell may show pictures; a thousand cells may not show a thousand times as many."""
    one = run.Run(course.load("concepts"), [], SECRET, 0)
    picture = np.frombuffer(run.PNG + bytes(1 << 20), "uint8")
    for index in range(100):
        one.keep(index, {"text": "x" * 10**6, "error": {"text": "x" * 10**6}}, {"0": picture})
    kept = len(json.dumps(one.records))
    assert run.MAX_SHOWN / 2 < kept < 2 * run.MAX_SHOWN
    assert one.records[0]["images"]
    assert not one.records[99]["images"]


def test_a_notebook_that_is_not_one_costs_no_memory(tmp_path):
    assignment = course.load("concepts")
    assert SECRET
    (tmp_path / "many parts").mkdir()
    write(tmp_path / "many parts", b'{"cells": [' + b"[]," * 5_000_000 + b"[]]}")
    one = who.find(tmp_path, assignment)[0]
    assert "more parts" in collect.read(one.path)[2]
    write(tmp_path / "many parts", {"cells": [{"cell_type": "code", "source": "x" * 400_000}]})
    assert "characters" in collect.read(one.path)[2]
