"""Where a resumed session goes on: the client's position is the truth, the checkpoint says what it can; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.audio_format import PcmFormat
from gateway.checkpoint import Checkpoint
from gateway.input_position import InputPosition
from gateway.kept_chunk import KeptChunk
from gateway.timeline_rules import TimelineStart
from visavis.contract import CHUNK_FRAMES
from visavis.runtime.errors import InvalidInput
from visavis.v1.talking_head_pb2 import InputPosition as InputPositionMessage
from visavis.v1.talking_head_pb2 import ResumeSession

# Far beyond what a session reaches, and every index and sample number stays within 64 bits.
_MAX_FRAME_INDEX: Final = 2**40
_MAX_SAMPLES: Final = 2**56


@dataclass(frozen=True, slots=True)
class Resumption:
    """A session at the border where it goes on."""

    start: TimelineStart
    skip_frames: int
    """Of the next chunk, which the client has already."""
    chunks: tuple[KeptChunk, ...]
    """What rebuilds the stages: chunks up to the border."""
    chunks_written: int
    frames_written: int

    @property
    def next_frame_index(self) -> int:
        """Of the first frame that will come."""
        return CHUNK_FRAMES * self.start.chunk_index + self.skip_frames + 1


def plan_resumption(
    request: ResumeSession, checkpoint: Checkpoint, audio_format: PcmFormat, *, live_when_idle: bool
) -> Resumption:
    """Where to go on. Errors: `InvalidInput` for a position that cannot be.

    A client that does not know the checkpoint's epoch goes on where that began: its interruption was taken. One that
    knows a later epoch than the checkpoint is believed.
    """
    start, skip_frames = _position_of_client(request, audio_format, live_when_idle=live_when_idle)
    if start.epoch < checkpoint.epoch:
        start = TimelineStart(checkpoint.epoch, checkpoint.epoch_border, checkpoint.epoch_position)
        skip_frames = 0
    chunks = tuple(chunk for chunk in checkpoint.chunks if chunk.chunk_index <= start.chunk_index)
    behind = checkpoint.last_written - start.chunk_index
    return Resumption(
        start=start,
        skip_frames=skip_frames,
        chunks=chunks,
        chunks_written=max(0, checkpoint.chunks_written - behind),
        frames_written=max(0, checkpoint.frames_written - CHUNK_FRAMES * behind + skip_frames),
    )


def _position_of_client(
    request: ResumeSession, audio_format: PcmFormat, *, live_when_idle: bool
) -> tuple[TimelineStart, int]:
    if request.last_frame_index > _MAX_FRAME_INDEX or request.epoch > _MAX_FRAME_INDEX:
        raise InvalidInput("resume.last_frame_index and epoch are none of a session", "resume.last_frame_index")
    position = _checked(request.input_position, "resume.input_position")
    chunk_index, skip_frames = divmod(request.last_frame_index, CHUNK_FRAMES)
    again = None
    if bool(skip_frames) != request.HasField("partial_chunk_position"):
        raise InvalidInput(
            "resume.partial_chunk_position belongs to a last frame inside a chunk, and only there",
            "resume.partial_chunk_position",
        )
    if skip_frames:
        again = _checked(request.partial_chunk_position, "resume.partial_chunk_position")
        samples = again.samples - position.samples
        if not 0 <= samples <= audio_format.samples_per_chunk or again.utterances < position.utterances:
            raise InvalidInput(
                "resume.partial_chunk_position is not within a chunk of input_position", "resume.partial_chunk_position"
            )
        if not samples and not live_when_idle:
            raise InvalidInput(
                "resume.partial_chunk_position makes an idle chunk; this session has none",
                "resume.partial_chunk_position",
            )
    start = TimelineStart(max(1, request.epoch), chunk_index, position, request.in_utterance, again)
    return start, skip_frames


def _checked(message: InputPositionMessage, field: str) -> InputPosition:
    if not 0 <= message.samples <= _MAX_SAMPLES or message.utterances > _MAX_SAMPLES:
        raise InvalidInput(f"{field} is none of a session", field)
    return InputPosition.from_message(message)
