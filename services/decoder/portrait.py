"""Reads a portrait file that a stranger sent: every limit is checked on the header, before a pixel is decoded."""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from visavis.contract import MAX_PORTRAIT_PIXELS
from visavis.runtime.errors import InvalidInput

FIELD: Final = "portrait"
MIN_SIDE: Final = 32
_BACKGROUND: Final = (128, 128, 128)
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


def read_portrait(data: bytes, size: int) -> Image.Image:
    """Returns the portrait as an RGB picture of `size` x `size`: upright, centre-cropped, on grey where transparent.

    Raises:
        InvalidInput: not a JPEG or PNG, over 32 megapixels, a side under 32 pixels, damaged or cut off.
    """
    if not data:
        raise InvalidInput("the portrait is empty (0 bytes): send a JPEG or PNG file", FIELD)
    if not data.startswith((_JPEG_MAGIC, _PNG_MAGIC)):
        raise InvalidInput("the portrait is neither JPEG nor PNG: convert it to one of them", FIELD)
    # Pillow's parsers raise nearly anything on a crafted file; whatever it is, the file is at fault.
    try:
        image = _open(data)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput("the portrait's header is damaged: send the file again", FIELD) from error
    _check_size(image.width, image.height)
    try:
        return _prepare(image, size)
    except Exception as error:
        raise InvalidInput("the portrait is cut off or damaged: send the whole file again", FIELD) from error


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Our own limit is lower than the one this warns about.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        except Image.DecompressionBombError as error:
            raise InvalidInput(_too_large("far more"), FIELD) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PORTRAIT_PIXELS:
        raise InvalidInput(_too_large(f"{width} x {height} = {width * height / 1e6:.1f}"), FIELD)
    if min(width, height) < MIN_SIDE:
        raise InvalidInput(f"the portrait is {width} x {height} pixels; each side needs at least {MIN_SIDE}", FIELD)


def _too_large(megapixels: str) -> str:
    most = MAX_PORTRAIT_PIXELS // 1_000_000
    return f"the portrait has {megapixels} megapixels; at most {most} are allowed: scale it down"


def _prepare(image: Image.Image, size: int) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    # A wide-to-small resize needs a filter that averages every source pixel; Lanczos in Pillow does.
    return _to_rgb(square).resize((size, size), Image.Resampling.LANCZOS)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
