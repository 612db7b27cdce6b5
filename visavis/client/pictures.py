"""Decodes the pictures of a session: raw RGB, JPEG or H.264."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visavis.client.events import Frame
from visavis.client.formats import VideoFormat
from visavis.v1 import media_pb2

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext


class PictureDecoder:
    """Turns frames into RGB arrays. One decoder serves one session: H.264 frames build on the ones before."""

    def __init__(self, video_format: VideoFormat, width: int, height: int) -> None:
        self._codec = video_format.codec
        self._width = width
        self._height = height
        self._h264: VideoCodecContext | None = None

    def decode(self, frames: Sequence[Frame]) -> npt.NDArray[np.uint8]:
        """RGB pictures [frames, height, width, 3]. ValueError for data that is no picture of the session's size."""
        pictures = np.empty((len(frames), self._height, self._width, 3), np.uint8)
        for index, frame in enumerate(frames):
            picture = self._decode_one(frame.data)
            if picture.shape != pictures.shape[1:]:
                raise ValueError(f"a picture of {picture.shape} came in a session of {pictures.shape[1:]}")
            pictures[index] = picture
        return pictures

    def _decode_one(self, data: bytes) -> npt.NDArray[np.uint8]:
        match self._codec:
            case media_pb2.VIDEO_CODEC_RAW_RGB:
                return np.frombuffer(data, np.uint8).reshape(self._height, self._width, 3)
            case media_pb2.VIDEO_CODEC_JPEG:
                return _decode_jpeg(data)
            case media_pb2.VIDEO_CODEC_H264:
                return self._decode_h264(data)
            case other:
                raise ValueError(f"no decoder for {media_pb2.VideoCodec.Name(other)}")

    def _decode_h264(self, data: bytes) -> npt.NDArray[np.uint8]:
        import av

        if self._h264 is None:
            self._h264 = av.CodecContext.create("h264", "r")
            self._h264.options = {"flags": "low_delay"}
            self._h264.thread_count = 1
        pictures = self._h264.decode(av.Packet(data))
        if len(pictures) != 1:
            raise ValueError("an H.264 access unit did not give exactly one picture; was a segment left out?")
        return pictures[0].to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def _decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)
