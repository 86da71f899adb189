"""Processes killed while they write: the old or the new is there, never a mix; what is left is cleared."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tlhelpers import paths, staging
from tlhelpers.app import cache_folder
from tools.numbers.provenance import ROOT

pytestmark = pytest.mark.fault("a process is killed")

NAMES = {"report": "report.html", "keras": "model.keras", "onnx": "model.onnx", "classes": "classes.txt"}
REPLACING = """
import sys
from pathlib import Path
from tlhelpers import staging
out, names = Path(sys.argv[1]), {names}
if sys.argv[2] == "renamed":
    staging._exchanged = lambda *_: False
print("begun", flush=True)
for i in range(100_000):
    with staging.staged({{key: out / name for key, name in names.items()}}, out) as staged:
        for path in staged.values():
            path.write_text(str(i) * 1000)
"""
WRITING = """
import sys, time
from tlhelpers.paths import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_bytes(bytes(1000))
    print("begun", flush=True)
    time.sleep(60)
"""


def killed(code: str, *arguments: object, after: float = 0.0) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(after)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "way", ["exchanged", "renamed"], ids="kills: 12 of a report that is replaced, {}".format
)
def test_a_kill_leaves_the_old_or_the_new_report(way, tmp_path, record_property):
    rng, out, seen = np.random.default_rng(0), tmp_path / "report", set()
    out.mkdir()
    (out / "my notes.txt").write_text("mine")
    (out / "mine").mkdir()
    (out / "mine" / "photo.jpg").write_text("mine")
    for name in NAMES.values():
        (out / name).write_text("old" * 1000)
    kills = 0
    while kills < 12 or len(seen) <= 3:  # until the kills came at different moments
        assert kills < 60, f"{kills} kills, and {len(seen)} reports"
        longest = 0.1 * 2 ** (kills // 12)  # a slow machine is given more time
        killed(REPLACING.format(names=NAMES), out, way, after=float(rng.uniform(0, longest)))
        kills += 1
        staging.recover(out)
        found = {(out / name).read_text() for name in NAMES.values()}
        assert len(found) == 1, found
        seen |= found
        assert (out / "my notes.txt").read_text() == (out / "mine" / "photo.jpg").read_text() == "mine"
    record_property("times", kills)
    record_property("saw", "the old report or the new one, with the reader's own files")


def test_files_that_belong_to_no_new_report_go(tmp_path):
    """A report without an ONNX file takes away the one of the report before."""
    out = tmp_path / "report"
    for keys in (list(NAMES), ["report", "keras", "classes"]):
        with staging.staged({key: out / name for key, name in NAMES.items()}, out) as staged:
            for key in keys:
                staged[key].write_text(key)
    assert sorted(path.name for path in out.iterdir()) == ["classes.txt", "model.keras", "report.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_link_to_the_folder_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "report.html").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with staging.staged({"report": tmp_path / "out" / "report.html"}, tmp_path / "out") as staged:
        staged["report"].write_text("new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "report.html").read_text() == "new"


def test_a_folder_beside_which_nothing_can_be_written(tmp_path, monkeypatch):
    """As a folder on a disk of its own: the files are put in their place one by one."""
    out = tmp_path / "report"
    out.mkdir()
    monkeypatch.setattr(staging, "_replaced", lambda *_: False)
    with staging.staged({"report": out / "report.html"}, out) as staged:
        staged["report"].write_text("new")
    assert [path.name for path in out.iterdir()] == ["report.html"]


@pytest.mark.parametrize("days", [0, 2], ids="kills: a write to the cache that ended {} days ago".format)
def test_what_a_killed_write_left_is_counted_and_cleared(days, tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    killed(WRITING, tmp_path / "features" / "a.npy")
    (left,) = (tmp_path / "features").iterdir()
    os.utime(left, (time.time() - days * 86_400 - 60,) * 2)
    assert cache_folder.left_behind() == ([left], 1000)
    with paths.atomic_path(tmp_path / "features" / "b.npy") as path:
        path.write_bytes(b"b")
    assert left.exists() == (days == 0)
    assert cache_folder.clear() == (1001 if days == 0 else 1)
    assert not left.exists()
    record_property("saw", "counted by cache list and doctor; cleared after a day, or by cache clear")


def old(path: Path) -> Path:
    path.write_text("x")
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize(
    "name",
    [
        lambda: f".a-{os.getpid()}-{'0' * 32}.tmp.npy",  # its process runs
        lambda: ".a.tmp",
        lambda: ".cache-1234.tmp",
        lambda: f"a-1-{'0' * 32}.tmp",
        lambda: f".a-1-{'0' * 32}.npy",
    ],
)
def test_what_is_not_left_behind_stays(name: Callable[[], str], tmp_path):
    path = old(tmp_path / name())
    paths.clear_leftovers(tmp_path)
    assert path.exists()
