"""What is known of one chunk while it is in the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.kept_chunk import KeptChunk
from gateway.segments import duration
from gateway.timeline_output import TimelineChunk
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
    kept: KeptChunk
    timing: ChunkTiming = field(default_factory=ChunkTiming)
    frames_decoded: int = 0
    """Those that the client has already, from before a resume, count as decoded."""
    restart_pictures: bool = False
    begins_with_key_frame: bool = False
    on_clock: bool = False
    """Whether the player's clock counts it."""
    first_frame_written: bool = False
    late: bool = False

    @classmethod
    def of(cls, chunk: TimelineChunk, span: Span) -> ChunkRecord:
        """The record of a chunk that enters the pipeline."""
        kept = KeptChunk(
            epoch=chunk.epoch,
            utterance_id=chunk.utterance_id,
            chunk_index=chunk.chunk_index,
            idle=chunk.idle,
            position=chunk.position,
            samples=chunk.samples_S.astype("<f4").tobytes(),
            lookahead=chunk.lookahead_S.astype("<f4").tobytes(),
        )
        return cls(chunk, span, kept)

    def header(self, now: float) -> ChunkHeader:
        """The header to send to a stage at `now`."""
        return ChunkHeader(
            epoch=self.chunk.epoch,
            utterance_id=self.chunk.utterance_id,
            chunk_index=self.chunk.chunk_index,
            idle=self.chunk.idle,
            time_to_deadline=duration(self.chunk.due_at - now),
            restart_pictures=self.restart_pictures,
            traceparent=self.span.traceparent,
        )

    def add_pictures(self, pictures: DecodedPictures) -> None:
        """Take the next pictures of the chunk. Errors: `ValueError` where the decoder breaks the contract."""
        if pictures.frame_offset != self.frames_decoded or not pictures.frames:
            raise ValueError(f"pictures from {pictures.frame_offset} on, expected {self.frames_decoded}")
        frames_decoded = self.frames_decoded + len(pictures.frames)
        if frames_decoded > CHUNK_FRAMES or pictures.last_in_chunk != (frames_decoded == CHUNK_FRAMES):
            raise ValueError(f"{frames_decoded} pictures, last_in_chunk={pictures.last_in_chunk}")
        if not self.timing.HasField("decoder") and not self.on_clock:
            self.begins_with_key_frame = pictures.frames[0].key_frame
        self.frames_decoded = frames_decoded
        if pictures.last_in_chunk:
            self.timing.decoder.CopyFrom(pictures.timing)
