"""Where `tlhelpers` keeps files between runs, and how it writes them safely."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

__all__ = ["atomic_path", "cache_dir"]

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

    Example:
        >>> import numpy as np
        >>> from tlhelpers.paths import atomic_path
        >>> with atomic_path("features.npy") as path:
        ...     np.save(path, np.zeros((2, 3)))
        >>> np.load("features.npy").shape
        (2, 3)
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem[:60]}-{uuid.uuid4().hex}.tmp{final.suffix}")
    try:
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
        temporary.unlink(missing_ok=True)
