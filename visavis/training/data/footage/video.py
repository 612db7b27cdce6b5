"""Reads a video as the paper standardises it: 25 frames per second and 16 kHz mono, on one time line (section A.2).

Legend: F frames, H W picture, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.filter import Graph

from visavis.training.data.performance import FRAME_RATE
from visavis.training.data.voices import SAMPLE_RATE_HZ

# Larger pictures are made smaller: crops never need more.
_LARGEST_SHORT_SIDE = 1080
# Where a file does not say: what encoders write for high definition.
_HIGH_DEFINITION_LINES = 720
_UNSPECIFIED = 2
_ITU709, _ITU601 = 1, 5


class VideoError(ValueError):
    """A video cannot be read. The message says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture on the time line of 25 frames per second, upright, with square pixels; kept as it was decoded.

    `change` is FFmpeg's scene score against the frame before, 0 to 1.
    """

    number: int
    change: float
    picture: av.VideoFrame
    quarter_turns: int

    def pixels(self, short_side: int | None = None) -> npt.NDArray[np.uint8]:
        """[H, W, 3] sRGB, no larger than `short_side`."""
        width, height = self.picture.width, self.picture.height
        if short_side is not None and min(width, height) > short_side:
            scale = short_side / min(width, height)
            width, height = round(width * scale), round(height * scale)
        # to_ndarray would keep the matrix of the file, or guess where it is not said
        pixels = self.picture.reformat(
            width, height, "rgb24", src_colorspace=_matrix(self.picture), interpolation="AREA"
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self.quarter_turns))


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames in order; a gap in the file is filled with the frame before it. Raises VideoError, at any frame."""
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise VideoError("it has no pictures")
            stream = container.streams.video[0]
            graph = _chain(
                Graph(),
                lambda graph: graph.add_buffer(template=stream),
                ("fps", str(FRAME_RATE)),
                ("scale", _square_pixels()),
                ("setsar", "1"),
                ("select", "gte(scene,0)"),  # takes every frame, and measures how new it is
                ("buffersink", None),
            )
            turns = 0
            for decoded in container.decode(stream):
                turns = decoded.rotation // 90 % 4
                graph.push(decoded)
                yield from (_frame(picture, turns) for picture in _pulled(graph))
            graph.push(None)
            yield from (_frame(picture, turns) for picture in _pulled(graph))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"it cannot be decoded: {error.strerror or error}") from error


def read_sound(path: Path) -> npt.NDArray[np.float32]:
    """The sound [S] from the time of frame 0 on, -1 to 1; gaps are silence. Empty without a sound track.

    Raises VideoError.
    """
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                return np.zeros(0, dtype=np.float32)
            stream = container.streams.audio[0]
            graph = _chain(
                Graph(),
                lambda graph: graph.add_abuffer(template=stream),
                ("aresample", f"{SAMPLE_RATE_HZ}:async=1:first_pts=0"),
                ("aformat", f"sample_fmts=flt:sample_rates={SAMPLE_RATE_HZ}:channel_layouts=mono"),
                ("abuffersink", None),
            )
            blocks: list[npt.NDArray[np.float32]] = []
            for decoded in container.decode(stream):
                graph.push(decoded)
                blocks += [block.to_ndarray().ravel() for block in _pulled(graph)]
            graph.push(None)
            blocks += [block.to_ndarray().ravel() for block in _pulled(graph)]
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"its sound cannot be decoded: {error.strerror or error}") from error
    return np.asarray(np.concatenate(blocks) if blocks else np.zeros(0), dtype=np.float32)


def _square_pixels() -> str:
    """FFmpeg's scale: pixels made square, the short side within the limit, nothing enlarged beyond that."""
    shrink = f"min(1,{_LARGEST_SHORT_SIDE}/min(iw*sar,ih))"
    return f"'trunc(iw*sar*{shrink}/2)*2':'trunc(ih*{shrink}/2)*2':flags=area"


def _chain(graph: Graph, source: Any, *filters: tuple[str, str | None]) -> Graph:
    last = source(graph)
    for name, options in filters:
        following = graph.add(name, options)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


def _pulled(graph: Graph) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _frame(picture: Any, quarter_turns: int) -> Frame:
    return Frame(picture.pts, float(picture.metadata["lavfi.scene_score"]), picture, quarter_turns)


def _matrix(picture: av.VideoFrame) -> int:
    if picture.colorspace != _UNSPECIFIED:
        return int(picture.colorspace)
    return _ITU709 if min(picture.width, picture.height) >= _HIGH_DEFINITION_LINES else _ITU601
