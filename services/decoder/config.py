"""Checks what a session asks of the decoder."""

from __future__ import annotations

from typing import Final

from visavis.runtime.errors import InvalidInput
from visavis.v1 import decoder_pb2, media_pb2

MAX_JPEG_QUALITY: Final = 100
MIN_BIT_RATE: Final = 50_000
MAX_BIT_RATE: Final = 50_000_000
_CODECS: Final = (media_pb2.VIDEO_CODEC_RAW_RGB, media_pb2.VIDEO_CODEC_JPEG, media_pb2.VIDEO_CODEC_H264)


def check_config(config: decoder_pb2.DecodeConfig) -> None:
    """Checks what needs no model to judge; the session id is the stage handler's part.

    Raises:
        InvalidInput: naming the field.
    """
    if not config.HasField("portrait_latent"):
        raise InvalidInput("portrait_latent is missing", "config.portrait_latent")
    check_video_format(config.video_format)


def check_video_format(video_format: media_pb2.VideoFormat) -> None:
    """Checks codec, JPEG quality and bit rate.

    Raises:
        InvalidInput: naming the field.
    """
    if video_format.codec not in _CODECS:
        raise InvalidInput("choose a codec: RAW_RGB, JPEG or H264", "config.video_format.codec")
    if video_format.jpeg_quality > MAX_JPEG_QUALITY:
        raise InvalidInput(f"jpeg_quality is 1 to {MAX_JPEG_QUALITY}, or 0 for 90", "config.video_format.jpeg_quality")
    if video_format.bit_rate and not MIN_BIT_RATE <= video_format.bit_rate <= MAX_BIT_RATE:
        raise InvalidInput(
            f"bit_rate is {MIN_BIT_RATE} to {MAX_BIT_RATE} bits per second, or 0 for constant quality",
            "config.video_format.bit_rate",
        )
