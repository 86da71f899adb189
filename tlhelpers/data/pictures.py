"""Pictures in files, folders and archives, without classes: what `tlhelpers predict` reads."""

from __future__ import annotations

import ast
import inspect
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlhelpers import data
from tlhelpers.data import _decoding
from tlhelpers.data._decoding import decode
from tlhelpers.data._file_kinds import left_out, readable
from tlhelpers.data._image_files import open_store
from tlhelpers.data._listing import pictures
from tlhelpers.data._scan import why_not
from tlhelpers.data._stores import MAX_BYTES
from tlhelpers.data._tar import TAR_SUFFIXES

__all__ = ["Pictures", "decoded_file", "decoder_source"]

_HEIC = """try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:  # then HEIC files are not read
    pass"""
_DECODE = """def decode(file, size, white=None):
    with Image.open(file) as opened:
        return pixels_of(opened, size, white)
"""


class Pictures:
    """The pictures of one file, folder, zip file or tar file, to be used in a `with` statement.

    Attributes:
        names: Paths inside, with slashes; of a single file its own name.
        notes: What is not read, one sentence each.

    Args:
        path: Of the file, folder or archive.

    Raises:
        DataError: There is no such file, or it is an archive that cannot be read.

    Example:
        >>> from PIL import Image
        >>> from tlhelpers.data.pictures import Pictures
        >>> Image.new("RGB", (20, 10), (250, 0, 0)).save("red.png")
        >>> with Pictures("red.png") as found:
        ...     print(found.names, found.decoded("red.png", size=8).shape)
        ['red.png'] (8, 8, 3)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        here = Path(path).expanduser()
        if not here.exists():
            raise data.DataError(f"There is no file or folder {here}. Check the path.")
        self.notes: list[str] = []
        self._single = here if here.is_file() and not _is_archive(here) else None
        if self._single:
            self.names = [here.name]
            return
        self._store = open_store(here)
        found = pictures(self._store.files, self._content)
        self.names = sorted(n for n in found if readable(n) or "." not in n.rpartition("/")[2])
        self.notes = left_out(sorted({*found} - {*self.names}))

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._single:
            self._store.close()

    def _content(self, name: str) -> bytes:
        if self._single:
            return self._single.read_bytes()
        with self._store.open(name) as stream:
            return stream.read()

    def decoded(self, name: str, size: int, white: int | None = None) -> NDArray[np.uint8] | str:
        """Decodes one picture as `tlhelpers.data.load` does; or returns why that cannot be.

        Args:
            name: One of `names`.
            size: Short side in pixels; the centre square is kept.
            white: What counts as white in a picture of 16 bits, at least.

        Returns:
            uint8 (size, size, 3), RGB; or the reason in words.

        Example:
            >>> from pathlib import Path
            >>> from tlhelpers.data.pictures import Pictures
            >>> n = Path("empty.png").write_bytes(b"")
            >>> with Pictures("empty.png") as found:
            ...     found.decoded("empty.png", size=8)
            'empty file'
        """
        content = b""
        try:
            content = self._content(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large or slightly odd files, which can be read
                return decode(io.BytesIO(content), size, white)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise a dozen kinds of error on broken files
            return why_not(error, content)

    def batch(
        self, names: Sequence[str], size: int, white: int | None = None
    ) -> tuple[NDArray[np.uint8], list[str], dict[str, str]]:
        """Decodes some pictures: an array (n, size, size, 3), whose they are, and the others with the reason.

        Example:
            >>> from PIL import Image
            >>> from tlhelpers.data.pictures import Pictures
            >>> Image.new("RGB", (20, 10), (250, 0, 0)).save("red.png")
            >>> with Pictures("red.png") as found:
            ...     x, names, unreadable = found.batch(found.names, size=8)
            >>> x.shape, names, unreadable
            ((1, 8, 8, 3), ['red.png'], {})
        """
        found = {name: self.decoded(name, size, white) for name in names}
        good = {name: pixels for name, pixels in found.items() if not isinstance(pixels, str)}
        x = np.stack([*good.values()]) if good else np.zeros((0, size, size, 3), np.uint8)
        return x, [*good], {name: why for name, why in found.items() if isinstance(why, str)}


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith((".zip", *TAR_SUFFIXES))


def decoded_file(path: str | os.PathLike[str], size: int) -> NDArray[np.uint8] | str:
    """Decodes a picture file as `tlhelpers.data.load` does; or returns why that cannot be.

    Args:
        path: Of the file.
        size: Short side in pixels; the centre square is kept.

    Returns:
        uint8 (size, size, 3), RGB; or the reason in words, where there is no file, too.

    Example:
        >>> from tlhelpers.data.pictures import decoded_file
        >>> decoded_file("nowhere.png", size=8)
        'no such file or directory'
    """
    try:
        if os.path.getsize(path) > MAX_BYTES:
            return f"more than {MAX_BYTES:,} bytes, the limit for one picture; save it smaller"
        with Pictures(path) as found:
            return found.decoded(os.path.basename(path), size)
    except (OSError, data.DataError) as error:
        return why_not(error, b"-")


def decoder_source() -> str:
    """Returns the code that decodes a picture, to be used where this package is not: ``decode(file, size)``.

    It is that of this package, without annotations and docstrings; it needs numpy and Pillow.

    Example:
        >>> from PIL import Image
        >>> from tlhelpers.data.pictures import decoder_source
        >>> Image.new("RGB", (20, 10), (250, 0, 0)).save("red.png")
        >>> exec(decoder_source(), names := {})
        >>> names["decode"]("red.png", 8).shape
        (8, 8, 3)
    """
    wanted = ("_may_be_turned", "white_of", "_to_rgb", "pixels_of")
    tree = ast.parse(inspect.getsource(_decoding))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    lines = ["import numpy as np", "from PIL import Image, ImageOps", "", _HEIC]
    for name in wanted:
        node = functions[name]
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        if ast.get_docstring(node) is not None:
            del node.body[0]
        lines += ["", "", ast.unparse(node)]
    return "\n".join([*lines, "", "", _DECODE])
