"""Tar files, whose members cannot be sought: they are laid into a folder of their own. And other files."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path

from tlhelpers.data._errors import DataError
from tlhelpers.data._file_kinds import is_picture

__all__ = ["TAR_SUFFIXES", "is_archive", "is_tar", "not_read", "unpacked"]

TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")

_OTHERS = {b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"\x1f\x8b": "gzip"}
_OTHER_SUFFIXES = (".zip", ".7z", ".rar", ".zst", ".gz", *TAR_SUFFIXES)


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive, read here or not."""
    return name.lower().endswith(_OTHER_SUFFIXES)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar file, or is called like one."""
    return path.name.lower().endswith(TAR_SUFFIXES) or tarfile.is_tarfile(path)


def not_read(path: Path) -> str:
    """What to say of a file that is neither a zip nor a tar file."""
    expected = "Expected a folder with one folder a class, and the images of the class inside."
    with open(path, "rb") as stream:
        head = stream.read(4)
    if head in _OTHERS or head[:2] in _OTHERS:
        kind = _OTHERS.get(head) or _OTHERS[head[:2]]
        return f"{path} is a {kind} archive, which is not read here. Unpack it, or pack it again as zip."
    if path.name.lower().endswith((".csv", ".tsv", ".xlsx")):
        return f"{path} is a table. Name the folder of the images, and say --labels {path.name}."
    if is_picture(path.name):
        return f"{path} is a file with one picture. {expected}"
    return f"{path} is a file. {expected}"


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
        why = str(error).partition("\n")[0].rstrip(":")
        raise DataError(
            f"{path} cannot be unpacked ({why}). Fetch or pack it again; a download that was cut short "
            "looks like this."
        ) from error
    return place
