"""Splits the frames of a chunk over messages that stay small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from visavis.v1 import chunk_pb2, decoder_pb2, media_pb2

MESSAGE_BYTES: Final = 1 << 20
# Tag, length and key flag of a frame.
_FRAME_OVERHEAD_BYTES: Final = 16


def split_chunk(
    header: chunk_pb2.ChunkHeader,
    frames: Sequence[media_pb2.Frame],
    timing: chunk_pb2.StageTiming,
    message_bytes: int = MESSAGE_BYTES,
    *,
    first_frame: int = 0,
) -> list[decoder_pb2.DecodedPictures]:
    """Returns the chunk's messages, each with as many frames as fit into `message_bytes`, but at least one.

    The last message says so and carries `timing`. `first_frame` is the place of the first one within the chunk.

    Raises:
        ValueError: `frames` is empty.
    """
    if not frames:
        raise ValueError("a chunk has at least one frame")
    messages = [
        decoder_pb2.DecodedPictures(header=header, frame_offset=first_frame + offset, frames=group)
        for offset, group in _groups(frames, message_bytes)
    ]
    messages[-1].last_in_chunk = True
    messages[-1].timing.CopyFrom(timing)
    return messages


def _groups(frames: Sequence[media_pb2.Frame], limit: int) -> Iterator[tuple[int, list[media_pb2.Frame]]]:
    group: list[media_pb2.Frame] = []
    size = 0
    for index, frame in enumerate(frames):
        frame_size = len(frame.data) + _FRAME_OVERHEAD_BYTES
        if group and size + frame_size > limit:
            yield index - len(group), group
            group, size = [], 0
        group.append(frame)
        size += frame_size
    yield len(frames) - len(group), group
