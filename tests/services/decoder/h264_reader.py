"""A player for H.264 frames."""

from collections.abc import Iterable

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from visavis.v1 import media_pb2


def decoded_h264(frames: Iterable[media_pb2.Frame]) -> npt.NDArray[np.uint8]:
    """What a player shows for the access units, decoded one by one."""
    context = av.CodecContext.create("h264", "r")
    pictures = []
    for frame in frames:
        pictures += context.decode(av.Packet(frame.data))
    pictures += context.decode(None)
    return np.stack(
        [
            picture.reformat(
                format="rgb24",
                src_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
            ).to_ndarray()
            for picture in pictures
        ]
    )
