"""The picture codec: RGB pictures to what the client asked for.

Legend: F frames, H rows, W columns, 3 red green blue.
"""

from __future__ import annotations

import io
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.decoder.h264 import H264Encoder
from services.decoder.synthetic_mark import XMP_PACKET
from visavis.v1 import media_pb2

DEFAULT_JPEG_QUALITY: Final = 90


class PictureEncoder(Protocol):
    """Encodes the pictures of one session, in order; a call may run in any thread, but only one at a time."""

    def encode(self, pictures_FHW3: npt.NDArray[np.uint8], restart: bool = False) -> list[media_pb2.Frame]:
        """Returns one frame per picture; after a `restart` none of them depends on a picture before."""
        ...


class RawEncoder:
    """8-bit RGB, rows from top to bottom, no padding."""

    def encode(self, pictures_FHW3: npt.NDArray[np.uint8], restart: bool = False) -> list[media_pb2.Frame]:
        """Returns one key frame per picture."""
        return [media_pb2.Frame(data=picture_HW3.tobytes(), key_frame=True) for picture_HW3 in pictures_FHW3]


class JpegEncoder:
    """Baseline JPEG, 4:2:0, each with an XMP packet that marks it as synthetic."""

    def __init__(self, quality: int) -> None:
        """`quality` from 1 to 100."""
        self._quality = quality

    def encode(self, pictures_FHW3: npt.NDArray[np.uint8], restart: bool = False) -> list[media_pb2.Frame]:
        """Returns one key frame per picture."""
        return [
            media_pb2.Frame(data=jpeg_bytes(Image.fromarray(picture_HW3), self._quality, XMP_PACKET), key_frame=True)
            for picture_HW3 in pictures_FHW3
        ]


def jpeg_bytes(image: Image.Image, quality: int, xmp: bytes = b"") -> bytes:
    """Returns `image` as a JPEG file, with `xmp` as its XMP packet where there is one."""
    buffer = io.BytesIO()
    if xmp:
        image.save(buffer, format="JPEG", quality=quality, xmp=xmp)
    else:
        image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def open_picture_encoder(video_format: media_pb2.VideoFormat, width: int, height: int) -> PictureEncoder:
    """Returns a new session's encoder for `video_format`, which `check_video_format` has let through."""
    match video_format.codec:
        case media_pb2.VIDEO_CODEC_RAW_RGB:
            return RawEncoder()
        case media_pb2.VIDEO_CODEC_JPEG:
            return JpegEncoder(video_format.jpeg_quality or DEFAULT_JPEG_QUALITY)
        case media_pb2.VIDEO_CODEC_H264:
            return H264Encoder(width, height, video_format.bit_rate)
        case _:
            raise ValueError(f"unknown codec {video_format.codec}")
