"""One image file to one array, whatever its mode: the decoding under `image_folder`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tlhelpers.data._damage import damage, ends_grey

__all__ = ["decode", "oriented_size"]


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


def decode(stream: IO[bytes], size: int | None) -> NDArray[np.uint8]:
    """Decode one image to RGB.

    Args:
        stream: An open image file.
        size: Short side in pixels; the centre square is kept. None keeps the image as it is.

    Returns:
        uint8 (h, w, 3).

    Raises:
        ValueError: It has too many pixels, or its end is missing.
    """
    with _opened(stream) as opened:
        if size is not None:
            opened.draft(None, (2 * size, 2 * size))  # lets JPEG skip detail that resizing throws away
        opened.load()
        if ends_grey(opened):
            stream.seek(0)
            if problem := damage(stream.read()):
                raise ValueError(problem)
        image = ImageOps.exif_transpose(opened) if _may_be_turned(opened) else opened
        image = _to_rgb(image)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I"):  # 16 bit: the full range 0..65535 becomes 0..255
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray(np.rint(deep / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        deep = np.nan_to_num(np.asarray(image).astype(np.float64))
        deep = deep * 255 if deep.max(initial=0.0) <= 1 else deep
        return Image.fromarray(np.rint(deep.clip(0, 255)).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
