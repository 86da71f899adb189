"""Arrays on disk, under a key made of all that they depend on, and trusted only after a look.

An entry is two files. ``<key>.npy`` holds the array. ``<key>.json`` says what it is and holds its checksum;
it is written last, so that an entry without it does not count. While a long array is computed, its finished
rows lie in ``<key>.parts/``; a run that was stopped goes on behind them.
"""

import datetime
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tlhelpers.paths import FULL, atomic_path, cache_dir, writing_to

_SLICE = 1 << 24  # bytes that are hashed or copied at a time: what is large stays on disk


def folder() -> Path:
    """Returns the folder with the arrays; it need not exist.

    Example:
        >>> from tlhelpers import cache
        >>> cache.folder().name
        'features'
    """
    return cache_dir() / "features"


def has(key: str) -> bool:
    """Tells whether there is an entry, without reading it.

    Example:
        >>> from tlhelpers import cache
        >>> cache.has("never-computed")
        False
    """
    return (folder() / f"{key}.json").is_file()


def load(key: str) -> np.ndarray | None:
    """Returns the array of a key, or ``None`` where there is none, or one that is not what was written.

    The array is mapped from its file, so that it takes memory only where it is read. Writing to it
    changes a copy in memory, never the file.

    Example:
        >>> from tlhelpers import cache
        >>> cache.load("never-computed") is None
        True
    """
    path = folder() / f"{key}.npy"
    note = path.with_suffix(".json")
    if not path.is_file() and not note.is_file():
        return None
    try:
        expected = json.loads(note.read_text(encoding="utf-8"))["sha256"]
        array = np.lib.format.open_memmap(path, mode="c")
    except Exception as error:  # damaged text, and a damaged header, fail in many ways
        logging.getLogger(__name__).warning("%s cannot be read (%s) and is computed again.", path, error)
        return None
    if _checksum(array) != expected:
        logging.getLogger(__name__).warning(
            "%s is not what was written: it was altered. It is computed again.", path
        )
        return None
    return np.asarray(array)


@contextmanager
def lock(key: str) -> Iterator[None]:
    """Holds a key for one process; another one waits until the block ends. It ends with the process, too.

    Example:
        >>> from tlhelpers import cache
        >>> with cache.lock("my-features"):
        ...     found = cache.load("my-features")  # and computes it where it is None
    """
    path = cache_dir() / "locks" / f"{key}.lock"
    held = FileLock(path)
    try:
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.acquire()
    except OSError:
        if not has(key):  # what is there can be read where nobody can write
            raise
    try:
        yield
    finally:
        held.release()


class Parts:
    """An array that is written row by row, and survives a stop.

    To be used under `lock`. Each part is written atomically and carries its checksum in its name.

    Args:
        key: The key of the array to be.
        row_shape: Shape of one row.
        dtype: Type of the numbers.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import cache
        >>> with cache.lock("squares"):
        ...     parts = cache.Parts("squares", (2,), np.dtype(np.float32))
        ...     parts.append(np.ones((3, 2), np.float32))
        ...     parts.finish("an example").shape
        (3, 2)
    """

    def __init__(self, key: str, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.key, self.row_shape, self.dtype = key, tuple(row_shape), np.dtype(dtype)
        self.folder = folder() / f"{key}.parts"
        self.files: list[Path] = []
        self.done = 0
        for path in sorted(self.folder.glob("[0-9]*.npy")):
            rows = self._read(path)
            if rows is None or int(path.name.split("-")[0]) != self.done:
                break
            self.files.append(path)
            self.done += len(rows)
        with writing_to(self.folder):
            for path in set(self.folder.glob("*")) - set(self.files):
                path.unlink()

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            with open(path, "rb") as file:
                rows = np.lib.format.read_array(file, allow_pickle=False)
        except Exception:  # a damaged header fails in many ways
            return None
        fits = rows.shape[1:] == self.row_shape and rows.dtype == self.dtype
        return rows if fits and path.stem.endswith(_checksum(rows)[:16]) else None

    def append(self, rows: np.ndarray) -> None:
        """Adds rows ``(m, *row_shape)``.

        Raises:
            OSError: If the disk is full; nothing is left behind.
        """
        path = self.folder / f"{self.done:09d}-{_checksum(rows)[:16]}.npy"
        with self._all_or_nothing(), atomic_path(path) as part, open(part, "wb") as file:
            np.save(file, rows)
        self.files.append(path)
        self.done += len(rows)

    def finish(self, about: str) -> np.ndarray:
        """Joins the parts to an entry and returns its array.

        Args:
            about: What the entry is, in words.
        """
        path = folder() / f"{self.key}.npy"
        digest = _begun_checksum(self.dtype, (self.done, *self.row_shape))
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        with self._all_or_nothing():
            with atomic_path(path) as part, open(part, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header | {"shape": (self.done, *self.row_shape)})
                for piece in self.files:
                    rows = self._read(piece)
                    if rows is None:
                        raise OSError(f"{piece} was altered while it was in use. Run again.")
                    digest.update(rows.data)
                    file.write(rows.data)
            with atomic_path(path.with_suffix(".json")) as part:
                note = {
                    "about": about,
                    "made": datetime.date.today().isoformat(),
                    "sha256": digest.hexdigest(),
                }
                part.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                shutil.rmtree(self.folder, ignore_errors=True)
                (folder() / f"{self.key}.npy").unlink(missing_ok=True)  # its note may be what found no room
            raise


def _begun_checksum(dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    """Returns a hash that knows how the bytes to come are to be read: a header can be altered, too."""
    return sha256(f"{dtype.str} {shape}".encode())


def _checksum(array: np.ndarray) -> str:
    digest = _begun_checksum(array.dtype, array.shape)
    step = max(1, _SLICE // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()
