"""A disk that is really full, and one that can only be read: small file systems in memory, mounted here.

Whatever is refused is said in words, nothing half-written stays, and once there is room all goes on.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tlhelpers import cache, features, paths, resume
from tlhelpers.course import claims

pytestmark = pytest.mark.fault("a disk that is full or can only be read")

KEY = "0123456789abcdef"
SIZE = 4 << 20  # bytes of the whole disk


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, n_bytes: int) -> None:
        """Fills the disk up to so many bytes."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_bsize
        with open(filler, "wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - n_bytes))

    def empty(self) -> None:
        """Removes what fills the disk."""
        (self.folder / "filler").unlink()

    def forbid(self) -> None:
        """Makes the disk one that can only be read."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def files(self) -> list[str]:
        """Returns all files but what fills the disk, and locks, which hold nothing."""
        found = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        return sorted(name for name in found if name != "filler" and not name.startswith("locks/"))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """An empty disk of 4 MiB that holds the cache."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        refused = subprocess.run(command, capture_output=True, text=True).stderr.strip()
    except FileNotFoundError:
        refused = "there is no command mount"
    if refused:
        if os.environ.get("COURSE_CAN_MOUNT"):
            pytest.fail(f"a small disk cannot be mounted, though we are root: {refused}")
        pytest.skip(f"a small disk cannot be mounted here: {refused}")
    monkeypatch.setenv("TLHELPERS_CACHE", str(folder))
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def rows(n: int = 300) -> np.ndarray:
    """Returns 1 MiB and more of numbers, if ``n`` is 300."""
    return np.random.default_rng(n).normal(size=(n, 1024)).astype(np.float32)


def fill_cache() -> None:
    with cache.lock(KEY):
        parts = cache.Parts(KEY, (1024,), np.dtype(np.float32))
        for start in range(parts.done, 300, 60):
            parts.append(rows()[start : start + 60])
        parts.finish("rows")


def holds(call: Callable[[], object], what: str = "The disk is full") -> None:
    """Asserts that a call is refused in words that name the disk's folder and say what to do."""
    with pytest.raises(OSError, match=what) as refused:
        call()
    assert refused.value.errno in (errno.ENOSPC, errno.EROFS)
    assert "TLHELPERS_CACHE" in str(refused.value) or "another place" in str(refused.value)


@pytest.mark.parametrize("room", range(0, 2600, 130), ids=lambda k: f"a cache is filled: {k} KiB are free")
def test_a_cache_that_finds_no_room(disk: Disk, room: int) -> None:
    """An entry of 1.2 MB needs twice that while its parts are joined."""
    disk.leave(room << 10)
    said = ""
    try:
        fill_cache()
    except OSError as error:
        said = str(error)
    assert room < 2500 if said else room > 1200
    if said:
        assert "The disk is full" in said
        assert "TLHELPERS_CACHE" in said
        assert disk.files() == []
        assert cache.load(KEY) is None
        disk.empty()
        fill_cache()
    np.testing.assert_array_equal(cache.load(KEY), rows())


def test_a_full_disk_in_a_cache_keeps_other_entries(disk: Disk) -> None:
    with cache.lock("other"):
        parts = cache.Parts("other", (4,), np.dtype(np.float32))
        parts.append(np.ones((2, 4), np.float32))
        parts.finish("other rows")
    disk.leave(64 << 10)
    holds(fill_cache)
    np.testing.assert_array_equal(cache.load("other"), np.ones((2, 4), np.float32))


def backup(disk: Disk) -> resume.Backup:
    """Returns the backups of a training whose state takes about 100 kB."""
    keras.utils.set_random_seed(0)
    ds = tiny.make_dataset()
    model = keras.Sequential([keras.Input(ds.x_train.shape[1:]), keras.layers.Flatten()])
    model.add(keras.layers.Dense(50))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made = resume.Backup(disk.folder / "backups", model, ds, "adam", seed=0)
    made.set_model(model)
    return made


@pytest.mark.parametrize("room", [0, 8, 40], ids=lambda k: f"a backup of a training: {k} KiB are free")
def test_a_backup_that_finds_no_room_leaves_the_last_one(disk: Disk, room: int) -> None:
    made = backup(disk)
    made.on_epoch_end(0, {"loss": 1.0})
    before = disk.files()
    assert os.path.getsize(disk.folder / before[0]) > 40 << 10
    disk.leave(room << 10)
    holds(lambda: made.on_epoch_end(1, {"loss": 0.5}))
    assert disk.files() == before
    disk.empty()
    again = backup(disk)
    assert (again.epochs, again.history) == (1, {"loss": [1.0]})


@pytest.mark.parametrize("room", [0, 64, 400], ids=lambda k: f"a model is saved: {k} KiB are free")
def test_a_model_that_finds_no_room_leaves_the_old_one(disk: Disk, room: int) -> None:
    """HDF5 says of a full disk only that it could not write."""
    model = keras.Sequential([keras.Input((400,)), keras.layers.Dense(400)])

    def save() -> None:
        with paths.atomic_path(disk.folder / "saved" / "model.keras") as path:
            model.save(path)

    (disk.folder / "saved").mkdir()
    (disk.folder / "saved" / "model.keras").write_bytes(b"old")
    disk.leave(room << 10)
    holds(save)
    assert disk.files() == ["saved/model.keras"]
    assert (disk.folder / "saved" / "model.keras").read_bytes() == b"old"
    disk.empty()
    save()
    assert keras.saving.load_model(disk.folder / "saved" / "model.keras").count_params() == 160_400


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.bin", lambda path: path.write_bytes(bytes(500_000))),
        ("a.txt", lambda path: path.write_text("a" * 500_000)),
        ("a.npy", lambda path: np.save(path, np.zeros(500_000, np.uint8))),
        ("a.npz", lambda path: np.savez(path, a=np.zeros(500_000, np.uint8))),
        ("a.png", lambda path: Image.effect_noise((800, 800), 60).save(path)),
    ],
    ids=["bytes are written", "text is written", "numpy writes", "numpy writes a zip", "Pillow writes"],
)
def test_any_writer_that_finds_no_room(disk: Disk, name: str, write: Callable[[Path], object]) -> None:
    disk.leave(100 << 10)

    def attempt() -> None:
        with paths.atomic_path(disk.folder / "results" / name) as path:
            write(path)

    holds(attempt)
    assert disk.files() == []


def test_a_record_of_seeds_that_finds_no_room_keeps_what_it_holds(disk: Disk, monkeypatch) -> None:
    """The seeds that were measured before stay, and the run goes on with the one that found no room."""
    monkeypatch.setenv("TLHELPERS_RESULTS", str(disk.folder))
    full = {2}

    def measure(seed: int) -> dict[str, float]:
        if seed in full:
            disk.leave(0)
        return {"gain": float(seed)}

    def measured() -> list[float]:
        return claims.over_seeds("my", "smoke", measure, (1, 2, 3), measure_missing=True)["gain"].tolist()

    holds(measured)
    assert list(claims.read_records(disk.folder / "my.smoke.json")) == ["1"]
    disk.empty()
    full.clear()
    assert measured() == [1, 2, 3]


# --- A disk that can only be read ---


def test_an_entry_is_read_where_nothing_can_be_written(disk: Disk) -> None:
    fill_cache()
    disk.forbid()
    with cache.lock(KEY):
        np.testing.assert_array_equal(cache.load(KEY), rows())


def test_a_new_entry_is_refused_where_nothing_can_be_written(disk: Disk) -> None:
    disk.forbid()
    holds(fill_cache, "cannot be written to")


def test_features_where_nothing_can_be_written(disk: Disk) -> None:
    """What is there is read; what is not is refused in words, and computed with ``cache=False``."""
    backbone = tiny.make_backbone()
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    other = 255 - x
    expected = features.extract(backbone, x, engine="keras")
    disk.forbid()
    np.testing.assert_array_equal(features.extract(backbone, x, engine="keras"), expected)
    holds(lambda: features.extract(backbone, other, engine="keras"), "cannot be written to")
    assert features.extract(backbone, other, engine="keras", cache=False).shape == expected.shape


def test_features_on_a_full_disk_with_cache_false(disk: Disk) -> None:
    backbone = tiny.make_backbone()
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    disk.leave(0)
    assert len(features.extract(backbone, x, engine="keras", cache=False)) == 6
    assert disk.files() == []


def test_a_folder_that_another_user_owns(tmp_path: Path) -> None:
    """Root may write everywhere, so this is tried by a process of nobody."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o755)
    code = (
        "import os, sys\nsys.path.insert(0, sys.argv[2])\nfrom tlhelpers import paths\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n with paths.atomic_path(sys.argv[1] + '/file') as p: p.write_text('x')\n"
        "except PermissionError as error: print(error)\n"
    )
    root = str(Path(paths.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), root], capture_output=True, text=True)
    assert "cannot be written to" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
