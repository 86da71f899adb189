"""Tar files, whose members cannot be sought: they are laid into a folder of their own."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path

from tlhelpers.data._errors import DataError

__all__ = ["TAR_SUFFIXES", "unpacked"]

TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")


def unpacked(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Returns a new folder with the files of a tar file; links, pipes and devices stay out of it.

    Raises:
        DataError: It is broken, or there is no room for what is in it.
    """
    place = tempfile.TemporaryDirectory(prefix="tlhelpers-", ignore_cleanup_errors=True)
    try:
        with tarfile.open(path) as archive:
            members = (m for m in archive if m.isfile() or m.isdir())
            archive.extractall(place.name, members, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        place.cleanup()
        raise DataError(
            f"{path} cannot be unpacked ({error}). Fetch or pack it again; a download that was cut short "
            "looks like this."
        ) from error
    return place
