"""Prepares a portrait file for the upload (needs Pillow)."""

import io
import warnings
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from visavis.client.media_error import MediaError

MAX_SIDE: Final = 1024
MIN_SIDE: Final = 64
MAX_PIXELS: Final = 100_000_000
JPEG_QUALITY: Final = 95
_GREY: Final = (128, 128, 128)


def read_portrait(path: Path, *, max_side: int = MAX_SIDE) -> bytes:
    """Reads a JPEG or PNG and returns it as a JPEG for `register_avatar`.

    Turned upright as its EXIF data say, transparency on grey, centre-cropped to a square, at most `max_side` pixels
    wide. Raises MediaError for a missing, empty or truncated file, another format, and a size outside 64 x 64 to
    100 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below decides
            return _read(path, max_side)
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{path} is not a JPEG or PNG picture") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} is larger than {MAX_PIXELS // 1_000_000} megapixels") from error
    except MediaError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"{path} cannot be read as a picture ({error})") from error


def _read(path: Path, max_side: int) -> bytes:
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise MediaError(f"{path} is larger than {MAX_PIXELS // 1_000_000} megapixels")
        if min(width, height) < MIN_SIDE:
            raise MediaError(f"{path} is only {width} x {height} pixels; a portrait needs {MIN_SIDE} x {MIN_SIDE}")
        image.draft("RGB", (max_side, max_side))
        upright = _on_grey(ImageOps.exif_transpose(image))
    side = min(*upright.size, max_side)
    square = ImageOps.fit(upright, (side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    square.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _on_grey(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    background = Image.new("RGBA", layers.size, (*_GREY, 255))
    return Image.alpha_composite(background, layers).convert("RGB")
