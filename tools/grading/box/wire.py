"""What crosses the border of the sandbox: JSON and plain arrays, and nothing that could hold code.

A frame is a length, a JSON header that names types and shapes, and the bytes of the arrays. Whoever reads it
checks every number in it, because the other side may be a submission that lies.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

MAX_FRAME = 8 << 20  # bytes
MAX_HEADER = 512 << 10  # bytes of JSON, which takes about 25 times as much once it is read
MAX_ARRAYS = 64  # of one frame
_LENGTH = 8
_KINDS = "biuf"  # booleans, whole numbers, floating point
_DTYPES = {"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8))}


class WireError(Exception):
    """A frame is not what it should be."""


def pack(meta: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> bytes:
    """Returns a frame.

    Args:
        meta: Anything that JSON holds.
        arrays: Arrays or numbers of kind bool, int or float, by name.

    Raises:
        WireError: If an array is of another kind, or all of it is too large.
    """
    found, parts = [], []
    for name, value in (arrays or {}).items():
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
            raise WireError(f"{name} is of type {array.dtype}; only numbers can be handed over.")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        found.append([str(name), array.dtype.str, list(array.shape)])
        parts.append(array.tobytes())
    header = json.dumps({"meta": meta, "arrays": found}).encode()
    body = len(header).to_bytes(_LENGTH, "little") + header + b"".join(parts)
    if len(body) > MAX_FRAME or len(header) > MAX_HEADER or len(found) > MAX_ARRAYS:
        raise WireError(f"a frame of {len(body):,} bytes is more than the {MAX_FRAME:,} that are allowed.")
    return len(body).to_bytes(_LENGTH, "little") + body


def unpack(body: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns what `pack` was given, of a frame without its length.

    Raises:
        WireError: If anything in the frame is not as it should be.
    """
    try:
        size = int.from_bytes(body[:_LENGTH], "little")
        if size > MAX_HEADER:
            raise WireError("the header of a frame is too long.")
        header = json.loads(body[_LENGTH : _LENGTH + size])
        start, arrays = _LENGTH + size, {}
        if len(header["arrays"]) > MAX_ARRAYS:
            raise WireError("a frame holds too many arrays.")
        for name, kind, shape in header["arrays"]:
            if not isinstance(name, str) or kind not in _DTYPES or not isinstance(shape, list):
                raise WireError("a frame holds something other than numbers.")
            if len(shape) > 8 or not all(type(n) is int and 0 <= n <= MAX_FRAME for n in shape):
                raise WireError("an array has a shape that none can have.")
            dtype = np.dtype(kind)
            stop = start + dtype.itemsize * math.prod(shape)
            if stop > len(body):
                raise WireError("a frame is shorter than it says.")
            arrays[name] = np.frombuffer(body[start:stop], dtype).reshape(shape)
            start = stop
        return header["meta"], arrays
    except WireError:
        raise
    except (
        Exception
    ) as error:  # whatever a forged frame makes json or numpy raise: it is the other side's fault
        raise WireError(f"a frame cannot be read ({type(error).__name__}).") from None


class Frames:
    """Cuts bytes that come in pieces into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        """Takes the next bytes and yields the frames that are complete now.

        Raises:
            WireError: If a frame is too long or cannot be read, after those before it.
        """
        self._held += piece
        while len(self._held) >= _LENGTH:
            size = int.from_bytes(self._held[:_LENGTH], "little")
            if size > MAX_FRAME:
                raise WireError("a frame is too long.")
            if len(self._held) < _LENGTH + size:
                break
            body = bytes(self._held[_LENGTH : _LENGTH + size])
            del self._held[: _LENGTH + size]
            yield unpack(body)


def write(descriptor: int, frame: bytes) -> None:
    """Writes a frame, all of it."""
    view = memoryview(frame)
    while view:
        view = view[os.write(descriptor, view) :]


def read(descriptor: int) -> tuple[Any, dict[str, np.ndarray]] | None:
    """Returns the next frame, or ``None`` where the other side has closed."""
    head = _exactly(descriptor, _LENGTH)
    body = _exactly(descriptor, int.from_bytes(head, "little")) if head else None
    return unpack(body) if body else None


def _exactly(descriptor: int, size: int) -> bytes | None:
    parts, missing = [], size
    while missing:
        piece = os.read(descriptor, min(missing, 1 << 20))
        if not piece:
            return None
        parts.append(piece)
        missing -= len(piece)
    return b"".join(parts)
