"""What is known of one chunk while it is in the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.segments import duration
from gateway.timeline import TimelineChunk
from visavis.contract import CHUNK_FRAMES
from visavis.runtime.tracing import Span
from visavis.v1.chunk_pb2 import ChunkHeader
from visavis.v1.decoder_pb2 import DecodedPictures
from visavis.v1.talking_head_pb2 import ChunkTiming


@dataclass(slots=True)
class ChunkRecord:
    """One chunk, from its issue until its frames are written or dropped."""

    chunk: TimelineChunk
    span: Span
    timing: ChunkTiming = field(default_factory=ChunkTiming)
    frames_decoded: int = 0
    first_frame_written: bool = False
    late: bool = False

    def header(self, now: float) -> ChunkHeader:
        """The header to send to a stage at `now`."""
        return ChunkHeader(
            epoch=self.chunk.epoch,
            utterance_id=self.chunk.utterance_id,
            chunk_index=self.chunk.chunk_index,
            idle=self.chunk.idle,
            time_to_deadline=duration(self.chunk.due_at - now),
            traceparent=self.span.traceparent,
        )

    def add_pictures(self, pictures: DecodedPictures) -> None:
        """Take the next pictures of the chunk. Errors: `ValueError` where the decoder breaks the contract."""
        if pictures.frame_offset != self.frames_decoded or not pictures.frames:
            raise ValueError(f"pictures from {pictures.frame_offset} on, expected {self.frames_decoded}")
        self.frames_decoded += len(pictures.frames)
        if self.frames_decoded > CHUNK_FRAMES or pictures.last_in_chunk != (self.frames_decoded == CHUNK_FRAMES):
            raise ValueError(f"{self.frames_decoded} pictures, last_in_chunk={pictures.last_in_chunk}")
        if pictures.last_in_chunk:
            self.timing.decoder.CopyFrom(pictures.timing)
