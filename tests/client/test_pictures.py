"""Pictures of each codec come out as RGB."""

import io
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from visavis.client import Frame, VideoFormat
from visavis.client.pictures import PictureDecoder

SIZE = 64


def gradients(count: int) -> npt.NDArray[np.uint8]:
    """Smooth pictures that move, [count, SIZE, SIZE, 3]."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    pictures = [np.stack([rows * 3 + index, columns * 3, rows + columns], -1) for index in range(count)]
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def test_raw_is_exact() -> None:
    pictures = gradients(2)
    decoder = PictureDecoder(VideoFormat.raw(), SIZE, SIZE)
    assert np.array_equal(decoder.decode([Frame(each.tobytes(), True) for each in pictures]), pictures)


def test_jpeg() -> None:
    buffer = io.BytesIO()
    Image.fromarray(gradients(1)[0]).save(buffer, "JPEG", quality=95)
    decoded = PictureDecoder(VideoFormat.jpeg(), SIZE, SIZE).decode([Frame(buffer.getvalue(), True)])
    assert np.abs(decoded[0].astype(int) - gradients(1)[0]).mean() < 3


def test_h264_gives_one_picture_per_access_unit() -> None:
    pictures = gradients(10)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = SIZE, SIZE, "yuv420p", Fraction(25)
    encoder.options = {"tune": "zerolatency", "crf": "10"}
    units = [
        bytes(packet)
        for picture in pictures
        for packet in encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    ]
    decoder = PictureDecoder(VideoFormat.h264(), SIZE, SIZE)
    decoded = np.concatenate([decoder.decode([Frame(unit, False)]) for unit in units])
    assert decoded.shape == pictures.shape
    assert np.abs(decoded.astype(int) - pictures).mean() < 6


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        PictureDecoder(VideoFormat.raw(), SIZE, SIZE).decode([Frame(b"123", True)])
