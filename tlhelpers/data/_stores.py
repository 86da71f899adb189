"""A folder or a zip file, read safely: what is listed, and the content of one file, within a limit."""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import zipfile
from pathlib import Path
from typing import IO

from tlhelpers.data._errors import DataError

__all__ = ["MAX_BYTES", "FolderStore", "ZipStore"]

MAX_BYTES = 2**28  # of one file: the largest picture that Pillow opens without a warning takes as many, raw
# Compressed bytes that are inflated at a time. zipfile bounds what comes out of Deflate, but not of LZMA.
_PIECE = 1 << 12


class FolderStore:
    """Files below a folder on disk.

    Attributes:
        files: All files, paths with slashes.
        folders: All folders.
        notes: What is odd about it, one sentence each.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.folders: list[str] = []
        self.notes: tuple[str, ...] = ()
        seen: set[str] = set()  # a link that points upwards must not send us round in circles
        for parent, folders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            relative = Path(parent).relative_to(root)
            self.folders += [(relative / name).as_posix() for name in folders]
            self.files += [(relative / name).as_posix() for name in files]

    def open(self, name: str) -> IO[bytes]:
        """Opens a file, once it is known to be one: a named pipe would wait for ever.

        Raises:
            DataError: It is no ordinary file, or too large.
        """
        path = os.path.join(self.root, name)  # pathlib takes longer than the file system
        try:
            found = os.stat(path)
        except OSError:
            if os.path.islink(path):
                raise DataError("a link that leads nowhere") from None
            raise
        if not stat.S_ISREG(found.st_mode):
            kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
            raise DataError(f"{kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, and no file")
        if found.st_size > MAX_BYTES:
            raise _too_large()
        return open(path, "rb")

    def close(self) -> None:
        """Nothing to close."""


class ZipStore:
    """Members of a zip file. Nothing is extracted.

    Names are read as programs that unpack read them: a slash or a drive in front and steps upwards count for
    nothing, a backslash is a slash, and of two members of one name the last counts.

    Attributes:
        files: All files, paths with slashes.
        folders: All folders.
        notes: What is odd about it, one sentence each.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path} is neither a folder nor a zip file. Check the path.")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise DataError(
                f"{path} is not a readable zip file ({error}). Fetch or pack it again; "
                "a download that was cut short looks like this."
            ) from error
        members = self._zip.infolist()
        locked = next((m.filename for m in members if m.flag_bits & 0x1), None)
        if locked is not None:
            self._zip.close()
            raise DataError(f"{path} is encrypted ({locked} needs a password). Pack it again without one.")
        names = [_plain(m.filename) for m in members]
        is_folder = [m.is_dir() or m.filename.endswith("\\") for m in members]
        places = list(zip(names, members, is_folder, strict=True))
        self._members = {name: m for name, m, folder in places if not folder and name}
        self.files = list(self._members)
        # Plain strings: pathlib takes seconds for 60,000 names.
        found = {name if folder else name.rpartition("/")[0] for name, _, folder in places}
        self.folders = sorted(
            {"/".join(n.split("/")[: i + 1]) for n in found for i in range(n.count("/") + 1)}
        )
        twice = len(places) - sum(is_folder) - len(self.files)
        said = f"The zip file has {twice:,} names twice: the last file of each counts."
        self.notes = (said,) if twice else ()

    def open(self, name: str) -> IO[bytes]:
        """Inflates a member piece by piece, and stops at the limit, whatever its header says.

        Raises:
            DataError: It is too large.
        """
        if self._members[name].file_size > MAX_BYTES:
            raise _too_large()
        whole = io.BytesIO()
        with self._zip.open(self._members[name]) as member:
            while piece := member.read(_PIECE):
                if whole.tell() + len(piece) > MAX_BYTES:
                    raise _too_large()
                whole.write(piece)
        whole.seek(0)
        return whole

    def close(self) -> None:
        """Closes the zip file."""
        self._zip.close()


def _plain(name: str) -> str:
    """The path of a member below the folder that it would be unpacked into."""
    return posixpath.normpath("/" + re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/"))).lstrip("/")


def _too_large() -> DataError:
    return DataError(f"more than {MAX_BYTES:,} bytes, the limit for one picture; save it smaller")
