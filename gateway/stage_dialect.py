"""How each stage is spoken to: the messages that open, feed, rewind and resume a session there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from gateway.chunk_record import ChunkRecord
from gateway.kept_chunk import KeptChunk
from gateway.metrics import Hop
from visavis.v1.audio_encoder_pb2 import EncodeConfig, EncodeRequest, EncodeResponse, EncodeRewind
from visavis.v1.audio_encoder_pb2_grpc import AudioEncoderServiceStub
from visavis.v1.chunk_pb2 import ChunkBorder, ChunkHeader, ModelIdentity
from visavis.v1.decoder_pb2 import DecodeConfig, DecodeRequest, DecodeResponse, DecodeRewind
from visavis.v1.decoder_pb2_grpc import DecoderServiceStub
from visavis.v1.generator_pb2 import (
    GenerateConfig,
    GenerateRequest,
    GenerateResponse,
    GenerateResume,
    GenerateRewind,
    Peer,
)
from visavis.v1.generator_pb2_grpc import GeneratorServiceStub

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
Metadata: TypeAlias = tuple[tuple[str, str], ...] | None


@dataclass(frozen=True, slots=True)
class Border:
    """Where a stage stands: behind chunk `chunk_index`; what follows is of `epoch` or later."""

    epoch: int
    chunk_index: int

    def to_message(self) -> ChunkBorder:
        """As the contract says it."""
        return ChunkBorder(epoch=self.epoch, chunk_index=self.chunk_index)


@dataclass(frozen=True, slots=True)
class Rewind:
    """Where a stage is to go, and what rebuilds it there."""

    border: Border
    replay: Sequence[KeptChunk]
    skip_frames: int = 0
    """Frames of the next chunk that the client has already."""

    def headers(self) -> list[ChunkHeader]:
        """Of the replayed chunks, numbered up to the border.

        The numbers differ from the chunks' own only behind a checkpoint older than what the client has: there the state
        is that of the last chunks known.
        """
        first = self.border.chunk_index - len(self.replay) + 1
        return [chunk.header(first + number) for number, chunk in enumerate(self.replay)]


class StageReady(Protocol):
    """What every stage's `ready` says."""

    @property
    def model(self) -> ModelIdentity: ...

    @property
    def replay_chunks(self) -> int: ...


class StageDialect(Protocol[RequestT, ResponseT]):
    """One stage's messages for one session."""

    @property
    def stage(self) -> Hop: ...

    def call(self, channel: grpc.aio.Channel, metadata: Metadata) -> grpc.aio.StreamStreamCall[RequestT, ResponseT]:
        """A new stream."""
        ...

    def start(self) -> RequestT:
        """Opens a new session."""
        ...

    def resume(self, rewind: Rewind, take_over_token: int) -> RequestT:
        """Opens a session that another instance has begun, rebuilt by replaying."""
        ...

    def move(self, address: str, fencing_token: int) -> RequestT | None:
        """Opens a session with the exact state of the instance that has it; None where a replay is exact anyway."""
        ...

    def rewind(self, rewind: Rewind) -> RequestT:
        """Goes to a border in a running stream."""
        ...

    def item(self, record: ChunkRecord, now: float) -> RequestT:
        """One chunk."""
        ...

    def header(self, response: ResponseT) -> ChunkHeader:
        """Of the chunk that a response answers."""
        ...

    def take(self, response: ResponseT, record: ChunkRecord) -> bool:
        """Note a chunk's answer; gives whether it is complete. Errors: `ValueError` where the contract is broken."""
        ...


class EncoderDialect:
    """The audio encoder's."""

    stage: Final = "audio_encoder"

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def call(
        self, channel: grpc.aio.Channel, metadata: Metadata
    ) -> grpc.aio.StreamStreamCall[EncodeRequest, EncodeResponse]:
        call: Any = AudioEncoderServiceStub(channel).Encode(metadata=metadata)
        return call  # type: ignore[no-any-return]

    def start(self) -> EncodeRequest:
        return EncodeRequest(config=EncodeConfig(session_id=self._session_id))

    def resume(self, rewind: Rewind, take_over_token: int) -> EncodeRequest:
        config = EncodeConfig(session_id=self._session_id, resume=_encode_rewind(rewind))
        return EncodeRequest(config=config)

    def move(self, address: str, fencing_token: int) -> None:
        return None

    def rewind(self, rewind: Rewind) -> EncodeRequest:
        return EncodeRequest(rewind=_encode_rewind(rewind))

    def item(self, record: ChunkRecord, now: float) -> EncodeRequest:
        return EncodeRequest(chunk=record.kept.heard(record.header(now)))

    def header(self, response: EncodeResponse) -> ChunkHeader:
        return response.chunk.speech.header

    def take(self, response: EncodeResponse, record: ChunkRecord) -> bool:
        record.kept.speech = response.chunk.speech.latents
        record.timing.audio_encoder.CopyFrom(response.chunk.timing)
        return True


class GeneratorDialect:
    """The generator's."""

    stage: Final = "generator"

    def __init__(self, config: GenerateConfig) -> None:
        """config: of a new session."""
        self._config = config

    def call(
        self, channel: grpc.aio.Channel, metadata: Metadata
    ) -> grpc.aio.StreamStreamCall[GenerateRequest, GenerateResponse]:
        call: Any = GeneratorServiceStub(channel).Generate(metadata=metadata)
        return call  # type: ignore[no-any-return]

    def start(self) -> GenerateRequest:
        return GenerateRequest(config=self._config)

    def resume(self, rewind: Rewind, take_over_token: int) -> GenerateRequest:
        return self._resumed(GenerateResume(rewind=_generate_rewind(rewind)), take_over_token)

    def move(self, address: str, fencing_token: int) -> GenerateRequest:
        peer = Peer(address=address, fencing_token=fencing_token)
        return self._resumed(GenerateResume(peer=peer), fencing_token)

    def rewind(self, rewind: Rewind) -> GenerateRequest:
        return GenerateRequest(rewind=_generate_rewind(rewind))

    def item(self, record: ChunkRecord, now: float) -> GenerateRequest:
        return GenerateRequest(speech=record.kept.said(record.header(now)))

    def header(self, response: GenerateResponse) -> ChunkHeader:
        return response.chunk.video.header

    def take(self, response: GenerateResponse, record: ChunkRecord) -> bool:
        record.kept.video = response.chunk.video.latents
        record.timing.generator.CopyFrom(response.chunk.timing)
        return True

    def _resumed(self, resume: GenerateResume, take_over_token: int) -> GenerateRequest:
        config = GenerateConfig(take_over_token=take_over_token, resume=resume)
        config.MergeFrom(self._config)
        return GenerateRequest(config=config)


class DecoderDialect:
    """The decoder's."""

    stage: Final = "decoder"

    def __init__(self, config: DecodeConfig) -> None:
        """config: of a new session."""
        self._config = config

    def call(
        self, channel: grpc.aio.Channel, metadata: Metadata
    ) -> grpc.aio.StreamStreamCall[DecodeRequest, DecodeResponse]:
        call: Any = DecoderServiceStub(channel).Decode(metadata=metadata)
        return call  # type: ignore[no-any-return]

    def start(self) -> DecodeRequest:
        return DecodeRequest(config=self._config)

    def resume(self, rewind: Rewind, take_over_token: int) -> DecodeRequest:
        config = DecodeConfig(resume=_decode_rewind(rewind))
        config.MergeFrom(self._config)
        return DecodeRequest(config=config)

    def move(self, address: str, fencing_token: int) -> None:
        return None

    def rewind(self, rewind: Rewind) -> DecodeRequest:
        return DecodeRequest(rewind=_decode_rewind(rewind))

    def item(self, record: ChunkRecord, now: float) -> DecodeRequest:
        return DecodeRequest(video=record.kept.seen(record.header(now)))

    def header(self, response: DecodeResponse) -> ChunkHeader:
        return response.pictures.header

    def take(self, response: DecodeResponse, record: ChunkRecord) -> bool:
        record.add_pictures(response.pictures)
        return response.pictures.last_in_chunk


def _encode_rewind(rewind: Rewind) -> EncodeRewind:
    replay = [chunk.heard(header) for chunk, header in zip(rewind.replay, rewind.headers(), strict=True)]
    return EncodeRewind(border=rewind.border.to_message(), replay=replay)


def _generate_rewind(rewind: Rewind) -> GenerateRewind:
    replay = [chunk.replayed(header) for chunk, header in zip(rewind.replay, rewind.headers(), strict=True)]
    return GenerateRewind(border=rewind.border.to_message(), replay=replay)


def _decode_rewind(rewind: Rewind) -> DecodeRewind:
    replay = [chunk.seen(header) for chunk, header in zip(rewind.replay, rewind.headers(), strict=True)]
    return DecodeRewind(border=rewind.border.to_message(), replay=replay, skip_frames=rewind.skip_frames)
