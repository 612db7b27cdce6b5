"""Takes the chunks of one session through the three stages, which all work at once on different chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from gateway.chunk_record import ChunkRecord
from gateway.session_watch import SessionWatch
from gateway.stages import SessionStages
from gateway.timeline import TimelineChunk
from visavis.v1.audio_encoder_pb2 import EncodeRequest, SpeechChunk
from visavis.v1.chunk_pb2 import ChunkHeader, SpeechLatents, VideoLatents
from visavis.v1.decoder_pb2 import DecodedPictures, DecodeRequest
from visavis.v1.generator_pb2 import GenerateRequest

Clock: TypeAlias = Callable[[], float]


class Pipeline:
    """Chunks go in by `submit` and come out of `pictures`, in order; the caller bounds how many are inside.

    `relay_speech` and `relay_video` must run meanwhile. Every method raises `StageUnavailable` when a stage fails.
    """

    def __init__(self, stages: SessionStages, clock: Clock, watch: SessionWatch) -> None:
        self._stages = stages
        self._clock = clock
        self._watch = watch
        self._records: dict[int, ChunkRecord] = {}

    async def submit(self, chunk: TimelineChunk) -> None:
        """Send a chunk to the audio encoder."""
        record = self._records[chunk.chunk_index] = self._watch.chunk_begins(chunk)
        speech = SpeechChunk(
            header=record.header(self._clock()),
            samples=chunk.samples_S.astype("<f4").tobytes(),
            lookahead=chunk.lookahead_S.astype("<f4").tobytes(),
        )
        await self._stages.audio_encoder.send(EncodeRequest(chunk=speech))

    async def relay_speech(self) -> None:
        """From the audio encoder to the generator, until the stage ends the stream."""
        stream = self._stages.audio_encoder
        chunk_index = 0
        while (answer := await stream.receive()) is not None:
            encoded = answer.chunk
            stream.answered()
            chunk_index += 1
            record = self._record(chunk_index, encoded.speech.header, stream.protocol_broken)
            record.timing.audio_encoder.CopyFrom(encoded.timing)
            speech = SpeechLatents(header=record.header(self._clock()), latents=encoded.speech.latents)
            await self._stages.generator.send(GenerateRequest(speech=speech))

    async def relay_video(self) -> None:
        """From the generator to the decoder, until the stage ends the stream."""
        stream = self._stages.generator
        chunk_index = 0
        while (answer := await stream.receive()) is not None:
            generated = answer.chunk
            stream.answered()
            chunk_index += 1
            record = self._record(chunk_index, generated.video.header, stream.protocol_broken)
            record.timing.generator.CopyFrom(generated.timing)
            video = VideoLatents(header=record.header(self._clock()), latents=generated.video.latents)
            await self._stages.decoder.send(DecodeRequest(video=video))

    async def pictures(self) -> AsyncIterator[tuple[ChunkRecord, DecodedPictures]]:
        """What the decoder gives, each with the record of its chunk, until the stage ends the stream."""
        stream = self._stages.decoder
        chunk_index = 1
        while (answer := await stream.receive()) is not None:
            pictures = answer.pictures
            record = self._record(chunk_index, pictures.header, stream.protocol_broken)
            try:
                record.add_pictures(pictures)
            except ValueError as error:
                raise stream.protocol_broken(str(error)) from None
            if pictures.last_in_chunk:
                stream.answered()
                del self._records[chunk_index]
                chunk_index += 1
            yield record, pictures

    def _record(
        self, chunk_index: int, header: ChunkHeader, protocol_broken: Callable[[str], Exception]
    ) -> ChunkRecord:
        record = self._records.get(chunk_index)
        if record is None or header.chunk_index != chunk_index:
            raise protocol_broken(f"chunk {header.chunk_index} came in place of {chunk_index}")
        return record
