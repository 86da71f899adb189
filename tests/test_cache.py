"""Behaviour of tlhelpers.cache: what is read is what was written, whatever happened in between."""

import datetime
import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tlhelpers import cache as disk
from tlhelpers.app import cache_folder

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of the arrays, in an empty cache."""
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def array(n: int = 6, d: int = 4, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, d)).astype(dtype)


def write(rows: np.ndarray, key: str = KEY, step: int = 4, about: str = "an array") -> np.ndarray:
    """Puts an array into the cache, in parts of ``step`` rows."""
    parts = disk.Parts(key, rows.shape[1:], rows.dtype)
    for start in range(0, len(rows), step):
        parts.append(rows[start : start + step])
    return parts.finish(about)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def flip(path: Path, place: int) -> None:
    """Alters one byte of a file, and leaves its length."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x11
    path.write_bytes(content)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


# --- Entries ---


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(6, 4), (5, 2, 3, 4)])
def test_what_was_written_is_read(folder, shape, dtype):
    rows = np.random.default_rng(0).normal(size=shape).astype(dtype)
    returned = write(rows)
    assert files(folder) == [f"{KEY}.json", f"{KEY}.npy"]  # the parts are gone
    for found in (returned, disk.load(KEY), np.load(folder / f"{KEY}.npy")):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, rows)
    assert disk.has(KEY)
    assert cache_folder.verify() == []


def test_a_key_without_an_entry(folder, caplog):
    assert disk.load(KEY) is None
    assert not disk.has(KEY)
    assert cache_folder.entries() == []
    assert cache_folder.verify() == []
    assert cache_folder.clear() == 0
    assert not caplog.records
    assert not folder.exists()  # looking makes nothing


def test_writing_to_an_array_does_not_change_the_file():
    rows = array()
    for found in (write(rows), disk.load(KEY)):
        found[0] = 7
        assert (found[0] == 7).all()
        np.testing.assert_array_equal(disk.load(KEY), rows)


def test_entries_say_what_they_are_and_the_largest_is_first(folder):
    write(array(3), "small", about="three rows")
    write(array(300), "large", about="many rows")
    found = cache_folder.entries()
    assert [(entry.key, entry.about) for entry in found] == [("large", "many rows"), ("small", "three rows")]
    assert found[1].path == folder / "small.npy"
    assert found[1].n_bytes == (folder / "small.npy").stat().st_size > array(3).nbytes
    assert abs(datetime.date.fromisoformat(found[0].made) - datetime.date.today()).days <= 1


def test_clearing_frees_everything_and_says_how_much(folder):
    write(array(), "one")
    disk.Parts("two", (4,), np.float32).append(array())
    graph = folder.parent / "onnx" / "net.onnx"
    graph.parent.mkdir()
    graph.write_bytes(bytes(1000))
    size = sum((folder / name).stat().st_size for name in files(folder)) + 1000
    other = folder.parent / "mine.txt"
    other.write_text("not ours")
    assert cache_folder.clear() == size
    assert files(folder.parent) == ["mine.txt"]
    assert disk.load("one") is None


# --- Damage ---

DAMAGES = {
    "a truncated file": lambda npy, note: npy.write_bytes(npy.read_bytes()[:-5]),
    "a file cut in its header": lambda npy, note: npy.write_bytes(npy.read_bytes()[:20]),
    "an empty file": lambda npy, note: npy.write_bytes(b""),
    "another file": lambda npy, note: npy.write_bytes(b"PK\x03\x04" + npy.read_bytes()[4:]),
    "an altered number": lambda npy, note: flip(npy, -1),
    "a lengthened file": lambda npy, note: np.save(npy, np.concatenate([np.load(npy)] * 2)),
    "an altered note": lambda npy, note: note.write_text(
        note.read_text().replace('sha256": "', 'sha256": "0')
    ),
    "a note cut short": lambda npy, note: note.write_bytes(note.read_bytes()[:-10]),
    "an empty note": lambda npy, note: note.write_bytes(b""),
    "a note of another kind": lambda npy, note: note.write_text("[1, 2]"),
    "a note without a checksum": lambda npy, note: note.write_text('{"made": "", "about": ""}'),
    "a note that is no text": lambda npy, note: note.write_bytes(b"\xff\xfe\xfd"),
    "no note": lambda npy, note: note.unlink(),
    "a note without an array": lambda npy, note: npy.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.fault("features on disk, damaged")
def test_a_damaged_entry_is_not_read_but_named_and_replaced(folder, caplog, damage):
    rows = array()
    write(rows)
    write(array(9), "whole")
    DAMAGES[damage](folder / f"{KEY}.npy", folder / f"{KEY}.json")
    with caplog.at_level(logging.WARNING):
        assert disk.load(KEY) is None
    assert len(caplog.records) == 1
    assert KEY in caplog.text
    assert "computed again" in caplog.text
    caplog.clear()
    problems = cache_folder.verify()
    assert len(problems) == 1
    assert problems[0].startswith(KEY)
    assert not caplog.records  # `verify` answers, it does not warn
    assert "whole" in [entry.key for entry in cache_folder.entries()]
    write(rows)
    np.testing.assert_array_equal(disk.load(KEY), rows)
    assert cache_folder.verify() == []


def test_no_byte_of_an_array_file_can_change_unseen(folder, caplog):
    """Its header counts: as one of another type or shape, the same bytes are other numbers."""
    rows = array(4, 4)
    write(rows)
    path = folder / f"{KEY}.npy"
    content = path.read_bytes()
    for place in range(len(content)):
        flip(path, place)
        found = disk.load(KEY)
        if found is not None:  # such as a space that became another blank
            assert found.dtype == rows.dtype
            np.testing.assert_array_equal(found, rows)
        path.write_bytes(content)
    for old, new in (
        (b"'<f4'", b"'<i4'"),
        (b"'<f4'", b"'>f4'"),
        (b"False", b"True "),
        (b"(4, 4)", b"(2, 8)"),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new))
        assert disk.load(KEY) is None
    path.write_bytes(content)
    np.testing.assert_array_equal(disk.load(KEY), rows)


def test_a_stopped_run_is_named(folder):
    disk.Parts(KEY, (4,), np.float32).append(array())
    (parts,) = cache_folder.stopped()
    assert parts.name == f"{KEY}.parts"
    assert cache_folder.verify() == []  # nothing is lost, so nothing is wrong
    assert cache_folder.entries() == []


# --- Parts ---


def test_a_stopped_run_goes_on_behind_its_parts(folder):
    rows = array(10)
    first = disk.Parts(KEY, (4,), np.float32)
    first.append(rows[:3])
    first.append(rows[3:7])
    second = disk.Parts(KEY, (4,), np.float32)
    assert second.done == 7
    second.append(rows[7:])
    np.testing.assert_array_equal(second.finish("done"), rows)
    assert files(folder) == [f"{KEY}.json", f"{KEY}.npy"]


def test_parts_beyond_the_tenth_stay_in_order():
    rows = array(1200)
    parts = disk.Parts(KEY, (4,), np.float32)
    for start in range(0, 1200, 100):
        parts.append(rows[start : start + 100])
    again = disk.Parts(KEY, (4,), np.float32)
    assert again.done == 1200
    np.testing.assert_array_equal(again.finish("done"), rows)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, -1),
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"'<f4'", b"'<i4'")),
        lambda path: path.unlink(),
        lambda path: np.save(path, array(3, 5)),
        lambda path: path.rename(path.with_name(path.name.replace("000000003", "000000002"))),
    ],
)
@pytest.mark.fault("features on disk, damaged")
def test_a_damaged_part_and_all_behind_it_are_dropped(folder, damage):
    rows = array(9)
    parts = disk.Parts(KEY, (4,), np.float32)
    for start in (0, 3, 6):
        parts.append(rows[start : start + 3])
    damage(parts.files[1])
    again = disk.Parts(KEY, (4,), np.float32)
    assert again.done == 3
    assert len(files(folder)) == 1  # the first part
    again.append(rows[3:])
    np.testing.assert_array_equal(again.finish("done"), rows)
    np.testing.assert_array_equal(disk.load(KEY), rows)


def test_what_a_killed_writer_left_is_swept_away(folder):
    parts = disk.Parts(KEY, (4,), np.float32)
    parts.append(array(3))
    (parts.folder / ".000000003-abc.tmp.npy").write_bytes(b"half")
    assert disk.Parts(KEY, (4,), np.float32).done == 3
    assert len(files(folder)) == 1


def test_a_part_altered_while_in_use_is_an_error(folder):
    parts = disk.Parts(KEY, (4,), np.float32)
    parts.append(array(3))
    flip(parts.files[0], -1)
    with pytest.raises(OSError, match="altered"):
        parts.finish("done")
    assert not disk.has(KEY)
    assert disk.Parts(KEY, (4,), np.float32).done == 0


# --- A full disk ---

FULL = r"disk is full.*tlhelpers cache clear.*TLHELPERS_CACHE.*cache=False"


def test_no_room_for_a_part(folder, monkeypatch):
    parts = disk.Parts(KEY, (4,), np.float32)
    parts.append(array(3))

    def half(file, rows):
        file.write(b"half of it")
        full_disk()

    monkeypatch.setattr(np, "save", half)
    with pytest.raises(OSError, match=FULL) as caught:
        parts.append(array(3))
    assert caught.value.errno == errno.ENOSPC
    assert not files(folder)


@pytest.mark.parametrize(
    ("owner", "function"),
    [(np.lib.format, "write_array_header_1_0"), (json, "dumps"), (Path, "write_text")],
)
def test_no_room_for_the_whole(folder, monkeypatch, owner, function):
    """Neither half an array stays, nor one without its note."""
    parts = disk.Parts(KEY, (4,), np.float32)
    parts.append(array(3))
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, full_disk)
        with pytest.raises(OSError, match=FULL):
            parts.finish("done")
    assert not files(folder)
    write(array())  # as soon as there is room
    assert cache_folder.verify() == []


def test_another_failure_keeps_the_parts(folder, monkeypatch):
    rows = array(6)
    parts = disk.Parts(KEY, (4,), np.float32)
    parts.append(rows[:3])

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", broken)
        with pytest.raises(OSError, match="Input/output error"):
            parts.append(rows[3:])
    assert disk.Parts(KEY, (4,), np.float32).done == 3


# --- The lock ---

HOLDER = """
import os, sys
from tlhelpers import cache
with cache.lock("key"):
    print("held", flush=True)
    if sys.stdin.readline() == "die\\n":
        os._exit(1)
"""


def try_lock(timeout: float = 0.05) -> bool:
    """Whether the key is free."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(disk.folder().parent / "locks" / "key.lock", timeout=timeout):
            return True
    except Timeout:
        return False


@pytest.mark.parametrize("last_words", ["end", "die"])
def test_a_lock_holds_until_its_block_or_its_process_ends(last_words):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    assert not try_lock()
    with disk.lock("another key"):
        pass
    process.communicate(f"{last_words}\n", timeout=60)
    assert try_lock()
