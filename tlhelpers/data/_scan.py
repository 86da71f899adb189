"""What one reading of each image file tells: enough to compare pictures, or why a file is of no use."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image, UnidentifiedImageError

from tlhelpers.data._damage import damage
from tlhelpers.data._decoding import decode, deep_top, oriented_size
from tlhelpers.data._errors import DataError
from tlhelpers.data._file_kinds import is_heic
from tlhelpers.data._image_files import ImageFiles

__all__ = ["Look", "look_through", "why_not"]

_SIDE = 16  # of a thumbnail


@dataclass(frozen=True)
class Look:
    """What one reading of a file tells.

    Attributes:
        digest: Of the bytes.
        size: Height and width as it is shown, in pixels.
        hash: The difference hash, 64 bits.
        thumbnail: float32 (side, side, 3).
        top: The highest value of a picture of 16 bits; None for any other.
        several: Whether the file holds more pictures than the one that is used: pages, frames.
    """

    digest: bytes
    size: tuple[int, int]
    hash: int
    thumbnail: np.ndarray
    top: int | None
    several: bool


def look_through(
    files: ImageFiles, names: Sequence[str], advance: Callable[[int, int], None] | None
) -> tuple[dict[str, Look], dict[str, str]]:
    """Reads files, each once.

    Args:
        files: Where they lie.
        names: Which ones.
        advance: Is called with the number of files looked at, and the number of all.

    Returns:
        What was seen in each file that can be decoded; and the other files -> why they cannot.
    """
    looks: dict[str, Look] = {}
    unreadable: dict[str, str] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of large or slightly odd files, which can be read
        for name, look in zip(names, pool.map(lambda name: _look(files, name), names), strict=True):
            if isinstance(look, Look):
                looks[name] = look
            else:
                unreadable[name] = look
            if advance:
                advance(len(looks) + len(unreadable), len(names))
    return looks, unreadable


def _look(files: ImageFiles, name: str) -> Look | str:
    """Reads one file; where that fails, returns why."""
    content = b""
    try:
        content = files.read_bytes(name)
        size = oriented_size(io.BytesIO(content))
        if problem := damage(content):
            return problem
        pixels = decode(io.BytesIO(content), 4 * _SIDE)
        top, several = deep_top(io.BytesIO(content)), _holds_several(content)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise a dozen kinds of error on broken files
        return why_not(error, content)
    picture = Image.fromarray(pixels)
    thumbnail = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    # The difference hash: whether each pixel of a tiny grey picture is brighter than its neighbour.
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return Look(
        sha256(content).digest(), size, int.from_bytes(bits.tobytes(), "big"), thumbnail, top, several
    )


def _holds_several(content: bytes) -> bool:
    """Whether a file has pages or frames; what telephones put behind a photograph does not count."""
    with Image.open(io.BytesIO(content)) as image:
        return image.format in ("GIF", "TIFF", "WEBP", "PNG") and bool(getattr(image, "is_animated", False))


def why_not(error: Exception, content: bytes) -> str:
    """Why a file could not be read, from the error and what could be read of it, in words."""
    cause = error.__cause__ if isinstance(error, DataError) and error.__cause__ else error
    if isinstance(cause, PermissionError):
        return "no permission to read it"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if not content and not isinstance(cause, DataError):
        return "empty file"
    if isinstance(cause, UnidentifiedImageError):
        if is_heic(content) and "HEIF" in Image.OPEN:
            return "a HEIC file that is damaged, or of a kind that pillow-heif does not read. Save it as JPEG"
        if is_heic(content):
            return 'HEIC, which pillow-heif reads: pip install "tlhelpers[app]". Or save it as JPEG'
        return "not an image, whatever its name says"
    return str(cause) or type(cause).__name__
