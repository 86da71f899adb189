"""One image file to one array, whatever its mode: what `load` and `tlhelpers predict` see of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tlhelpers.data._damage import damage, ends_grey
from tlhelpers.extras import MissingExtraError, extra

with suppress(MissingExtraError), extra("app"):  # HEIC, the pictures of telephones
    import pillow_heif

    pillow_heif.register_heif_opener()

__all__ = ["decode", "deep_top", "oriented_size", "pixels_of", "white_of"]


def _may_be_turned(image: Image.Image) -> bool:
    keys = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
    return any(key in image.info for key in keys)


@contextmanager
def _opened(stream: IO[bytes]) -> Iterator[Image.Image]:
    """Opens a picture, unless it has more pixels than Pillow takes without a warning."""
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    try:
        image = Image.open(stream)
        too_large = image.width * image.height > limit
    except Image.DecompressionBombError:  # twice as many, or more
        too_large = True
    if too_large:
        raise ValueError(f"above the limit of {limit / 1e6:,.1f} million pixels; save it smaller")
    with image:
        yield image


def oriented_size(stream: IO[bytes]) -> tuple[int, int]:
    """(height, width) of an image as it is shown. Reads the header only."""
    with _opened(stream) as image:
        if image.format == "TIFF":
            image.load()  # Pillow turns TIFF files itself, while loading
        width, height = image.size
        turned = _may_be_turned(image) and image.getexif().get(0x0112, 1) >= 5
    return (width, height) if turned else (height, width)


def decode(stream: IO[bytes], size: int | None, white: int | None = None) -> NDArray[np.uint8]:
    """Decode one image to RGB.

    Args:
        stream: An open image file.
        size: Short side in pixels; the centre square is kept. None keeps the image as it is.
        white: What counts as white in a picture of 16 bits, at least; see `white_of`.

    Returns:
        uint8 (h, w, 3).

    Raises:
        ValueError: It has too many pixels, or its end is missing.
    """
    with _opened(stream) as opened:
        pixels = pixels_of(opened, size, white)
        if ends_grey(opened):
            stream.seek(0)
            if problem := damage(stream.read()):
                raise ValueError(problem)
        return pixels


def pixels_of(opened: Image.Image, size: int | None, white: int | None = None) -> NDArray[np.uint8]:
    """What `decode` makes of an opened picture: uint8 (h, w, 3). It changes the picture."""
    if size is not None:
        opened.draft(None, (2 * size, 2 * size))  # lets JPEG skip detail that resizing throws away
    opened.load()
    image = ImageOps.exif_transpose(opened) if _may_be_turned(opened) else opened
    image = _to_rgb(image, white)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(image)


def deep_top(stream: IO[bytes]) -> int | None:
    """The highest value of a picture of 16 bits; None for any other."""
    with _opened(stream) as image:
        top = np.nan_to_num(np.asarray(image)).max(initial=0) if image.mode[0] in "IF" else 0
        return int(top) if image.mode.startswith("I") or top > 255 else None


def white_of(tops: Sequence[int]) -> int:
    """What counts as white in pictures of 16 bits that hold 8, 10, 12, 14 or 16.

    Cameras and X-ray machines of 10 or 12 bits leave the upper bits empty.

    Args:
        tops: The highest value of each picture. Their median decides, so that a dark picture is no darker
            than the others, and a bright one no rule.
    """
    top = float(np.median(tops))
    return next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if top < 2**bits), int(top))


def _to_rgb(image: Image.Image, white: int | None = None) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    if image.mode[0] in "IF":  # 16 bits, or fewer in 16; 32 bits, with a sign or a point
        deep = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
        low, top = deep.min(initial=0.0), deep.max(initial=0.0)
        if low < 0:  # then there is no black to count from: from the darkest to the brightest
            deep, top = (deep - low) / (top - low or 1), 1.0
        if low < 0 or (image.mode == "F" and top <= 1):
            scale = 255.0
        elif image.mode == "F" and top <= 255:
            scale = 1.0
        else:
            scale = 255 / max(white or 0, white_of([int(top)]))
        return Image.fromarray(np.rint(deep * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
