"""What is kept of a chunk so that any stage can be rebuilt behind it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.input_position import InputPosition
from visavis.v1.audio_encoder_pb2 import SpeechChunk
from visavis.v1.chunk_pb2 import ChunkHeader, SpeechLatents, VideoLatents
from visavis.v1.generator_pb2 import ReplayedChunk
from visavis.v1.tensor_pb2 import Tensor


@dataclass(slots=True)
class KeptChunk:
    """One chunk: what the audio encoder heard, and what encoder and generator made of it as far as it has come."""

    epoch: int
    utterance_id: int
    chunk_index: int
    idle: bool
    position: InputPosition
    """What of the client's input is used when the chunk ends."""
    samples: bytes
    """15,360 samples, 16 kHz mono, little-endian float32."""
    lookahead: bytes
    speech: Tensor | None = None
    video: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether every stage can be rebuilt behind it."""
        return self.speech is not None and self.video is not None

    def header(self, chunk_index: int | None = None) -> ChunkHeader:
        """Its header in a replay, as chunk `chunk_index`."""
        index = self.chunk_index if chunk_index is None else chunk_index
        return ChunkHeader(epoch=self.epoch, utterance_id=self.utterance_id, chunk_index=index, idle=self.idle)

    def heard(self, header: ChunkHeader) -> SpeechChunk:
        """As the audio encoder gets it."""
        return SpeechChunk(header=header, samples=self.samples, lookahead=self.lookahead)

    def said(self, header: ChunkHeader) -> SpeechLatents:
        """As the generator gets it; only once the encoder has answered."""
        return SpeechLatents(header=header, latents=self.speech)

    def seen(self, header: ChunkHeader) -> VideoLatents:
        """As the decoder gets it; only once the generator has answered."""
        return VideoLatents(header=header, latents=self.video)

    def replayed(self, header: ChunkHeader) -> ReplayedChunk:
        """As the generator hears of it when it is rebuilt."""
        return ReplayedChunk(speech=self.said(header), video=self.seen(header))
