"""Takes the chunks of one session through the three stages, which all work at once on different chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from gateway.chunk_record import ChunkRecord
from gateway.history import SessionHistory
from gateway.metrics import GatewayMetrics
from gateway.session_placement import SessionPlacement
from gateway.settings import StageSettings
from gateway.stage_dialect import Border, DecoderDialect, EncoderDialect, GeneratorDialect
from gateway.stage_link import SessionRights, StageLink
from visavis.runtime.errors import ModelMismatch
from visavis.v1.audio_encoder_pb2 import EncodeResponse
from visavis.v1.chunk_pb2 import ModelIdentity
from visavis.v1.decoder_pb2 import DecodeConfig, DecodedPictures, DecodeResponse
from visavis.v1.generator_pb2 import GenerateConfig, GenerateResponse

DeliverPictures: TypeAlias = Callable[[ChunkRecord, DecodedPictures], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PipelineStart:
    """Where a pipeline begins: a new session, or one that goes on."""

    generate: GenerateConfig
    decode: DecodeConfig
    border: Border
    resumed: bool
    skip_frames: int
    """Of the first chunk, which the client has already."""
    replay_chunks: dict[str, int]
    """By stage, as the stages said before; empty for a new session."""


class Pipeline:
    """Chunks go in by `submit`; `run` hands their pictures to `deliver`, in order.

    The caller bounds how many are inside. `open` it first and `close` it in the end, whatever happened. Stages that are
    lost are replaced inside.
    """

    def __init__(
        self,
        start: PipelineStart,
        placement: SessionPlacement,
        history: SessionHistory,
        rights: SessionRights,
        settings: StageSettings,
        metrics: GatewayMetrics,
        deliver: DeliverPictures,
    ) -> None:
        self._start = start
        self._placement = placement
        self._history = history
        self._deliver = deliver
        self._skip_frames = start.skip_frames
        self._restart_pictures = False
        replay = start.replay_chunks
        shared = (placement, history, rights, settings, metrics)
        self._encoder = StageLink(
            EncoderDialect(start.generate.session_id),
            *shared,
            self._relay_speech,
            border=start.border,
            replay_chunks=replay.get("audio_encoder", 0),
        )
        self._generator = StageLink(
            GeneratorDialect(start.generate),
            *shared,
            self._relay_video,
            border=start.border,
            replay_chunks=replay.get("generator", 0),
        )
        self._decoder = StageLink(
            DecoderDialect(start.decode),
            *shared,
            self._relay_pictures,
            border=start.border,
            skip_frames=start.skip_frames,
            replay_chunks=replay.get("decoder", 0),
        )

    async def open(self) -> None:
        """Open all three streams. Errors: of `SessionPlacement.open`, in an `ExceptionGroup`; `ModelMismatch`."""
        async with asyncio.TaskGroup() as group:
            for link in (self._encoder, self._generator, self._decoder):
                group.create_task(link.open_resumed() if self._start.resumed else link.open())
        if any(fingerprint != self._placement.fingerprint for fingerprint in self._fingerprints()):
            raise ModelMismatch("the stages run different models; start them with the same model")

    async def run(self) -> None:
        """Serve until `finish`. Errors: as `StageLink.run`, in an `ExceptionGroup`."""
        async with asyncio.TaskGroup() as group:
            for link in (self._encoder, self._generator, self._decoder):
                group.create_task(link.run())

    def submit(self, record: ChunkRecord) -> None:
        """The next chunk."""
        if self._skip_frames:
            record.frames_decoded, self._skip_frames = self._skip_frames, 0
        self._history.add(record.kept)
        self._encoder.submit(record)

    def rewind(self, border: Border) -> None:
        """Go back to the end of a chunk in a new epoch: what is inside is dropped."""
        self._skip_frames = 0
        self._history.go_back(border.chunk_index)
        for link in (self._encoder, self._generator, self._decoder):
            link.rewind(border)

    def restart_pictures(self) -> None:
        """Pictures were dropped: those of the next chunk that goes to the decoder begin with a key frame."""
        self._restart_pictures = True

    def oldest_border(self, last_written: int) -> int:
        """The oldest border to which an interruption may go back; see `SessionHistory`."""
        needed = max(self.replay_chunks.values())
        return self._history.oldest_border(needed, last_written)

    def finish(self) -> None:
        """Every chunk is answered and nothing follows: `run` returns when the stages have ended the session."""
        for link in (self._encoder, self._generator, self._decoder):
            link.finish()

    def close(self) -> None:
        """End the session in every stage at once."""
        for link in (self._encoder, self._generator, self._decoder):
            link.close()

    @property
    def replay_chunks(self) -> dict[str, int]:
        """By stage, how many chunks it wants replayed."""
        return {
            "audio_encoder": self._encoder.replay_chunks,
            "generator": self._generator.replay_chunks,
            "decoder": self._decoder.replay_chunks,
        }

    @property
    def generator_id(self) -> str:
        generator_id: str = self._generator.open_stage.ready.generator_id
        return generator_id

    @property
    def sampling(self) -> str:
        """How the generators sample that serve the session."""
        return self._placement.sampling

    @property
    def fencing_token(self) -> int:
        """Of the lease that the generator holds, or held last."""
        token: int = self._generator.open_stage.ready.fencing_token
        return token

    @property
    def model(self) -> ModelIdentity:
        model: ModelIdentity = self._generator.open_stage.ready.model
        return model

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height."""
        ready = self._decoder.open_stage.ready
        return ready.width, ready.height

    def _fingerprints(self) -> list[str]:
        links = (self._encoder, self._generator, self._decoder)
        return [link.open_stage.ready.model.fingerprint for link in links]

    async def _relay_speech(self, record: ChunkRecord, response: EncodeResponse) -> None:
        self._generator.submit(record)

    async def _relay_video(self, record: ChunkRecord, response: GenerateResponse) -> None:
        record.restart_pictures, self._restart_pictures = self._restart_pictures, False
        self._decoder.submit(record)

    async def _relay_pictures(self, record: ChunkRecord, response: DecodeResponse) -> None:
        await self._deliver(record, response.pictures)
