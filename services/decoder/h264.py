"""H.264 pictures: one Annex B access unit per frame, nothing held back.

Legend: F frames, H rows, W columns, 3 red green blue.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from services.decoder.synthetic_mark import insert_sei, sei_note
from visavis.contract import FRAME_RATE
from visavis.v1 import media_pb2

KEY_FRAME_INTERVAL: Final = 2 * FRAME_RATE
CONSTANT_QUALITY: Final = 20  # x264's crf: visually close to the source at these sizes
_BT709: Final = 1


class H264Encoder:
    """One session's encoder. Frame n depends on the ones before it, so pictures must come in order.

    The first picture, and the 50th after each key frame (2 s), is a key frame with its own SPS and PPS and a note that
    the picture is synthetic. No B-frames and no look-ahead: each picture gives its access unit at once.
    """

    def __init__(self, width: int, height: int, bit_rate: int) -> None:
        """`width` and `height` must be even; `bit_rate` in bits per second, 0 for constant quality."""
        if width % 2 or height % 2:
            raise ValueError(f"H.264 with 4:2:0 colour needs even sizes, not {width} x {height}")
        self._context = _open_context(width, height, bit_rate)
        self._shape = (height, width, 3)
        self._note = sei_note()
        self._frames = 0

    def encode(self, pictures_FHW3: npt.NDArray[np.uint8], restart: bool = False) -> list[media_pb2.Frame]:
        """Encodes pictures that follow the ones before; returns one frame per picture.

        `restart` makes the first one a key frame: what came before it may not have reached the client.
        """
        return [self._encode_one(picture, restart and index == 0) for index, picture in enumerate(pictures_FHW3)]

    def _encode_one(self, picture_HW3: npt.NDArray[np.uint8], restart: bool) -> media_pb2.Frame:
        if picture_HW3.shape != self._shape:
            raise ValueError(f"expected a picture of shape {self._shape}, got {picture_HW3.shape}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW3), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts = self._frames
        self._frames += 1
        if restart:
            frame.pict_type = PictureType.I
        packets = self._context.encode(frame)
        assert len(packets) == 1, "x264 held a frame back: the zero-latency settings were lost"
        data = bytes(packets[0])
        key_frame = packets[0].is_keyframe
        return media_pb2.Frame(data=insert_sei(data, self._note) if key_frame else data, key_frame=key_frame)


def _open_context(width: int, height: int, bit_rate: int) -> VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FRAME_RATE), Fraction(FRAME_RATE)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG.value
    # Sessions are encoded beside each other; threads inside one would only contend, and change its bits.
    context.thread_count = 1
    options = {
        "preset": "superfast",
        "tune": "zerolatency",
        "forced-idr": "1",
        "x264-params": f"keyint={KEY_FRAME_INTERVAL}:min-keyint={KEY_FRAME_INTERVAL}:scenecut=0:repeat-headers=1",
    }
    if bit_rate:
        context.bit_rate = bit_rate
        options |= {"maxrate": str(bit_rate), "bufsize": str(bit_rate)}
    else:
        options["crf"] = str(CONSTANT_QUALITY)
    context.options = options
    context.open()
    return context
