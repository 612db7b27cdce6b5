"""From a decoder's pictures and the client's own sound to what goes back to the client."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from gateway.audio_format import PcmFormat
from gateway.timeline_output import TimelineChunk
from visavis.contract import CHUNK_FRAMES, FRAME_RATE
from visavis.v1 import media_pb2, talking_head_pb2


def first_frame_index(chunk_index: int, frame_offset: int) -> int:
    """Index in the session of a frame of a chunk; frame 0 of the session is the portrait and belongs to no chunk."""
    return CHUNK_FRAMES * (chunk_index - 1) + frame_offset + 1


def duration(seconds: float) -> Duration:
    """`seconds` as a protobuf duration; negative ones become zero."""
    message = Duration()
    message.FromNanoseconds(max(0, round(seconds * 1e9)))
    return message


def build_segment(
    chunk: TimelineChunk,
    audio_format: PcmFormat,
    frame_offset: int,
    frames: Sequence[media_pb2.Frame],
    timing: talking_head_pb2.ChunkTiming | None,
) -> talking_head_pb2.VideoSegment:
    """Consecutive frames of `chunk` from `frame_offset` (0 to 23) on, with exactly the sound that belongs to them.

    `timing` is given with the last frames of the chunk and only there. Errors: `ValueError` for frames that reach
    beyond the chunk.
    """
    if not frames or not 0 <= frame_offset <= CHUNK_FRAMES - len(frames):
        raise ValueError(f"{len(frames)} frames from offset {frame_offset} do not fit into a chunk")
    index = first_frame_index(chunk.chunk_index, frame_offset)
    samples_per_frame = audio_format.samples_per_frame
    bytes_per_frame = samples_per_frame * audio_format.bytes_per_sample
    return talking_head_pb2.VideoSegment(
        epoch=chunk.epoch,
        utterance_id=chunk.utterance_id,
        chunk_index=chunk.chunk_index,
        idle=chunk.idle,
        first_frame_index=index,
        presentation_time=Duration(
            seconds=(index - 1) // FRAME_RATE, nanos=(index - 1) % FRAME_RATE * (10**9 // FRAME_RATE)
        ),
        frames=frames,
        audio_start_sample=(index - 1) * samples_per_frame,
        audio_end_sample=(index - 1 + len(frames)) * samples_per_frame,
        pcm=chunk.pcm[frame_offset * bytes_per_frame : (frame_offset + len(frames)) * bytes_per_frame],
        input_position=chunk.position.to_message(),
        last_in_chunk=timing is not None,
        timing=timing,
        synthetic=True,
    )
