"""Cuts a video into stretches of frames without a scene change, each as long as a clip.

Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from visavis.training.data.footage.video import Frame

# FFmpeg's scene score. Rendered people within a take: 0.03 at most; cuts between them: 0.15 at least (docs/data.md).
CUT = 0.1


def stretches(frames: Iterable[Frame], length: int) -> Iterator[list[Frame]]:
    """Stretches of `length` frames one after the other, starting anew after each cut.

    A rest before a cut or the end of the video comes shorter than `length`.
    """
    stretch: list[Frame] = []
    for frame in frames:
        if stretch and (frame.change > CUT or len(stretch) == length):
            yield stretch
            stretch = []
        stretch.append(frame)
    if stretch:
        yield stretch
