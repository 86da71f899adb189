"""Where `tlhelpers` keeps files between runs, and how it writes them safely."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

__all__ = ["atomic_path", "cache_dir", "writing_to"]

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)

# Colab mounts Google Drive here. A cache on Drive survives the end of a Colab session.
DRIVE = Path("/content/drive/MyDrive")


def cache_dir() -> Path:
    """Returns the folder of the disk cache. It is not created here; `atomic_path` creates it when needed.

    Returns:
        The folder in the environment variable `TLHELPERS_CACHE`; else `tlhelpers-cache` on Google
        Drive where that is mounted (Colab); else the user's cache folder of the operating system.

    Example:
        >>> import os
        >>> from tlhelpers.paths import cache_dir
        >>> os.environ["TLHELPERS_CACHE"] = "my_cache"
        >>> cache_dir().name
        'my_cache'
    """
    chosen = os.environ.get("TLHELPERS_CACHE", "").strip()
    if chosen:
        return Path(chosen).expanduser()
    if DRIVE.is_dir():
        return DRIVE / "tlhelpers-cache"
    return Path(platformdirs.user_cache_dir("tlhelpers"))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Says of what the disk refuses in the block which folder it was, why, and what to do.

    Writers that count their bytes, such as numpy's and HDF5's, raise an `OSError` without a number where the
    disk is full. It is known by the room that is left.

    Args:
        folder: Where the block writes.

    Raises:
        OSError: As the block did; with `errno.ENOSPC` where there is no room, a `PermissionError` where
            writing is forbidden. Other errors pass.

    Example:
        >>> import errno
        >>> from pathlib import Path
        >>> from tlhelpers.paths import writing_to
        >>> with writing_to(Path("results")):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] The disk is full. Make room on it, or choose another place: 'results'
    """
    try:
        yield
    except OSError as error:
        full = error.errno in FULL or (error.errno is None and _room(folder) < 1 << 20)
        if not (full or error.errno in FORBIDDEN) or not _concerns(error.filename, folder):
            raise
        if full:
            number, said = errno.ENOSPC, "The disk is full. Make room on it"
        else:
            number, said = error.errno, "This folder cannot be written to. Allow it"
        if folder.absolute().is_relative_to(cache_dir().absolute()):
            said += " (`tlhelpers cache clear` frees what can be computed again)" if full else ""
            said += ", set TLHELPERS_CACHE to a folder elsewhere, or pass cache=False where a call takes it"
        else:
            said += ", or choose another place"
        raise OSError(number, said, str(folder)) from error


def _concerns(named: Any, folder: Path) -> bool:
    """Returns whether an error that names a file, or none, can be one of writing to the folder."""
    if not isinstance(named, str | bytes | os.PathLike):
        return True
    path, folder = Path(os.fsdecode(named)).absolute(), folder.absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _room(folder: Path) -> int:
    """Returns the free bytes of the disk that holds a folder, or would."""
    return shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Writes a file so that others see either all of it or nothing.

    The block writes to a temporary path in the same folder and with the same suffix (some writers
    choose their format by it). When the block ends well the file takes the name `final` in one step.
    When it fails the temporary file is removed and an existing `final` stays as it was.

    Args:
        final: Where the file belongs. Missing parent folders are created.

    Yields:
        The temporary path to write to.

    Raises:
        FileNotFoundError: The block wrote nothing to the temporary path.
        OSError: The disk is full, or the folder cannot be written to: see `writing_to`.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.paths import atomic_path
        >>> with atomic_path("features.npy") as path:
        ...     np.save(path, np.zeros((2, 3)))
        >>> np.load("features.npy").shape
        (2, 3)
    """
    final = Path(final)
    temporary = final.with_name(f".{final.stem[:60]}-{uuid.uuid4().hex}.tmp{final.suffix}")
    try:
        with writing_to(final.parent):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if not temporary.is_file():
                raise FileNotFoundError(
                    f"nothing was written to {temporary}: write to the path that atomic_path hands out"
                )
            # Without this a power cut after the rename can leave an empty file under the final name.
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, final)
    finally:
        with suppress(OSError):  # as where nothing can be written
            temporary.unlink(missing_ok=True)
