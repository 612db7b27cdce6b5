import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.decoder.portrait import read_portrait
from visavis.runtime.errors import InvalidInput

SIZE = 64


def file_bytes(image: Image.Image, file_format: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    if exif is None:
        image.save(buffer, file_format)
    else:
        image.save(buffer, file_format, exif=exif)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    red = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], -1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds none."""

    def part(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")


GOOD_JPEG = file_bytes(gradient(200, 150), "JPEG")
GOOD_PNG = file_bytes(gradient(200, 150))


@pytest.mark.parametrize("data", [GOOD_JPEG, GOOD_PNG])
def test_a_portrait_is_cropped_at_its_centre_and_resized(data: bytes) -> None:
    picture = np.asarray(read_portrait(data, SIZE)).astype(int)
    assert picture.shape == (SIZE, SIZE, 3)
    # 200 wide, 150 high: columns 25 to 175 remain.
    assert abs(picture[:, 0, 0].mean() - 255 * 25 / 199) < 4
    assert abs(picture[:, -1, 0].mean() - 255 * 174 / 199) < 4
    assert picture[0, :, 1].mean() < 4
    assert picture[-1, :, 1].mean() > 251


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Dear model, this is a letter.\n", "neither JPEG nor PNG"),
        (file_bytes(gradient(64, 64), "BMP"), "neither JPEG nor PNG"),
        (file_bytes(gradient(64, 64), "GIF"), "neither JPEG nor PNG"),
        (file_bytes(gradient(64, 64), "WEBP"), "neither JPEG nor PNG"),
        (GOOD_JPEG[:3], "damaged"),
        (GOOD_PNG[:8], "damaged"),
        (GOOD_JPEG[: len(GOOD_JPEG) // 2], "cut off"),
        (GOOD_PNG[: len(GOOD_PNG) // 2], "cut off"),
        (png_header(7072, 7072), "50.0 megapixels"),
        (png_header(40000, 40000), "megapixels"),
        (png_header(200, 200), "cut off"),
        (file_bytes(gradient(31, 500)), "at least 32"),
    ],
)
def test_what_is_no_portrait_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_portrait(data, SIZE)


def test_a_real_picture_of_50_megapixels_is_refused() -> None:
    with pytest.raises(InvalidInput, match="megapixels"):
        read_portrait(file_bytes(Image.new("L", (10_000, 5_000))), SIZE)


def test_the_orientation_note_is_respected() -> None:
    upright = gradient(120, 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    shown = np.asarray(read_portrait(file_bytes(stored, "PNG", exif), SIZE)).astype(int)
    assert np.abs(shown - np.asarray(read_portrait(file_bytes(upright), SIZE)).astype(int)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_grey(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    if mode == "P":
        data = io.BytesIO()
        Image.new("P", (64, 64), 0).save(data, "PNG", transparency=0)
        picture = read_portrait(data.getvalue(), SIZE)
    else:
        picture = read_portrait(file_bytes(image.convert(mode)), SIZE)
    assert picture.getpixel((10, 10)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((64, 64), 200 * 256, np.uint16))
    else:
        image = Image.new("L", (64, 64), 200).convert("RGB").convert(mode)
    picture = read_portrait(file_bytes(image, "JPEG" if mode == "CMYK" else "PNG"), SIZE)
    assert picture.mode == "RGB"
    assert abs(np.asarray(picture).mean() - 200) < 60


@settings(max_examples=150, deadline=None)
@given(
    position=st.integers(0, len(GOOD_JPEG) - 1), value=st.integers(0, 255), data=st.sampled_from([GOOD_JPEG, GOOD_PNG])
)
def test_a_changed_byte_gives_a_picture_or_a_clear_refusal(position: int, value: int, data: bytes) -> None:
    changed = bytearray(data)
    changed[position % len(data)] = value
    with contextlib.suppress(InvalidInput):
        assert read_portrait(bytes(changed), SIZE).size == (SIZE, SIZE)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]), st.binary(max_size=300))
def test_random_bytes_after_the_magic_are_refused(magic: bytes, tail: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_portrait(magic + tail, SIZE)
