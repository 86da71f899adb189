"""Pictures that decoders show although a part is missing: JPEG files with a hole.

Where the data of a JPEG file ends too early, decoders fill the rest with grey and say nothing that Pillow
passes on. So the decoder is asked again. In a sound file it needs all of the data and nothing more: bytes
that are added behind the data change no pixel, and without its last bytes pixels change.
"""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["damage", "ends_grey"]

_MARK = re.compile(rb"\xff+([^\x00\xff])")  # within the data, 0xff is followed by 0, but for marks
_RESTARTS = range(0xD0, 0xD8)
_BETWEEN_SCANS = {0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_PADDING = b"\x55\xaa" * 32
_ZEROS = bytes(64)
_LARGE = 1_000_000  # pixels: larger pictures are compared at an eighth of their size, which shows less
_CUT, _CUT_LARGE = 8, 64  # bytes: more than the last block of a picture needs, so that pixels change


def ends_grey(image: Image.Image) -> bool:
    """Whether the last pixel of a picture is the grey with which decoders of JPEG fill a gap.

    Args:
        image: A picture that is loaded.
    """
    return image.format in ("JPEG", "MPO") and _is_grey(image.getpixel((image.width - 1, image.height - 1)))


def _is_grey(pixel: Any) -> bool:
    return all(value in (127, 128) for value in np.ravel(pixel).tolist())


def damage(content: bytes) -> str | None:
    """Tells what is missing in a JPEG file that can be decoded.

    It finds data that was cut out, cut off or overwritten, as long as another number of blocks comes out of
    what is left. What stays undetected: a change after which the decoder finds its way back within the same
    number of blocks, such as most single bits; bytes overwritten in the middle of a file with restart marks,
    or in another than the last pass of a progressive one.

    Args:
        content: Of the file.

    Returns:
        What is wrong, in words; None for a sound file and for other formats.
    """
    spans, n_scans, problem = _spans_of_data(content)
    if problem or not spans:
        return problem
    start, end = spans[-1]
    content = content[: end + 2]
    if _ZEROS in content[spans[0][0] :] and not _zeros_can_be(content[: spans[0][0]]):
        return "a damaged JPEG file: a part of it was overwritten with zeros"
    with Image.open(io.BytesIO(content)) as image:
        large = image.width * image.height > _LARGE
    shown, cut = _pixels(content, large), _CUT_LARGE if large else _CUT
    pieces = [content[i:j] for i, j in itertools.pairwise([0, *(e for _, e in spans), len(content)])]
    if not np.array_equal(_pixels(_PADDING.join(pieces), large), shown):
        return "a damaged JPEG file: data is missing, and a part of the picture is grey or wrong"
    # The last pass of a progressive file refines little; and where the end is grey, the gap looks like it.
    comparable = n_scans == 1 and end - start > 2 * cut and not _is_grey(shown[-1, -1])
    if comparable and np.array_equal(_pixels(content[: end - cut] + content[end:], large), shown):
        return "a damaged JPEG file: more data than the picture has room for, so that a part of it is wrong"
    return None


def _spans_of_data(content: bytes) -> tuple[list[tuple[int, int]], int, str | None]:
    """Where the data of each restart interval of each scan lies; the number of scans; what is wrong."""
    spans: list[tuple[int, int]] = []
    n_scans, place = 0, 2
    while content.startswith(b"\xff\xd8") and content[place : place + 1] == b"\xff":
        code = content[place + 1]
        if code == 0xFF:  # marks may be preceded by more of the same
            place += 1
            continue
        if code == 0xD9:
            return spans, n_scans, None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if code != 0xDA:
            continue
        n_scans += 1
        for n, mark in enumerate(_MARK.finditer(content, place)):
            spans.append((place, mark.start()))
            place = mark.end()
            code = mark[1][0]
            if code in _RESTARTS:
                if code != 0xD0 + n % 8:
                    return spans, n_scans, "a damaged JPEG file: a part from the middle is missing"
                continue
            if code not in _BETWEEN_SCANS:
                return (
                    spans,
                    n_scans,
                    "a damaged JPEG file: a part in the middle is something else",
                )
            place = mark.start()
            break
        else:
            return spans, n_scans, "a damaged JPEG file: it ends too early"
    return [], n_scans, None  # no JPEG file, or one with a head that decoders refuse


def _zeros_can_be(head: bytes) -> bool:
    """Whether a long row of zeros can be blocks of one colour.

    It cannot where the shortest code of a block's detail is not the block's end: each block would then be
    full of the finest detail.
    """
    place, firsts = 2, []
    while place + 4 < len(head):
        code, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if code == 0xC2:  # of several blocks at a time, in progressive files
            return True
        tables = head[place + 4 : place + 2 + length] if code == 0xC4 else b""
        while len(tables) > 17:
            firsts += [tables[17]] if tables[0] >= 0x10 else []
            tables = tables[17 + sum(tables[1:17]) :]
        place += 2 + length
    return all(first == 0 for first in firsts)


def _pixels(content: bytes, large: bool) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        if large:
            image.draft(None, (1, 1))
        return np.asarray(image)
