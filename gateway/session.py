"""One running session: reads the client, keeps its timeline, feeds the pipeline, writes what comes out.

Reader, issuer, relays and writer run side by side; whichever fails ends them all. Nothing here decides: what becomes a
chunk and when is the timeline's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.audio_format import PcmFormat
from gateway.chunk_record import ChunkRecord
from gateway.pipeline import Clock, Pipeline
from gateway.request_order import RequestOrder
from gateway.segments import build_segment, duration
from gateway.session_watch import SessionWatch
from gateway.stages import SessionStages
from gateway.timeline import Output, StarvedNotice, Timeline, TimelineChunk, TimelineRules, UtteranceEndedNotice
from visavis.runtime.errors import DeadlineMissed, SessionAborted, VisavisError
from visavis.v1 import talking_head_pb2
from visavis.v1.decoder_pb2 import DecodedPictures
from visavis.v1.talking_head_pb2 import (
    Interrupted,
    SessionEnded,
    Starved,
    TalkRequest,
    TalkResponse,
    UtteranceEnded,
)

# Responses that wait for a slow client, each up to about 1 MiB; full means: wait.
_OUTBOX_CAPACITY: Final = 4

WriteResponse: TypeAlias = Callable[[TalkResponse], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Interruption:
    epoch: int
    arrived_at: float


@dataclass(frozen=True, slots=True)
class _Pictures:
    record: ChunkRecord
    pictures: DecodedPictures


class _End:
    """The last thing in the outbox."""


_Outgoing: TypeAlias = _Pictures | _Interruption | StarvedNotice | UtteranceEndedNotice | _End


class TalkSession:
    """`run` serves one session from after its config to its end."""

    def __init__(
        self,
        audio_format: PcmFormat,
        rules: TimelineRules,
        requests: AsyncIterator[TalkRequest],
        order: RequestOrder,
        write: WriteResponse,
        watch: SessionWatch,
        *,
        idle_limit_seconds: float,
        clock: Clock,
    ) -> None:
        self.chunks_written = 0
        self.last_chunk_index = 0
        self._format = audio_format
        self._requests = requests
        self._order = order
        self._write = write
        self._watch = watch
        self._idle_limit_seconds = idle_limit_seconds
        self._clock = clock
        self._timeline = Timeline(audio_format, rules, clock())
        self._outbox: asyncio.Queue[_Outgoing] = asyncio.Queue(_OUTBOX_CAPACITY)
        self._timeline_changed = asyncio.Event()
        self._room_for_audio = asyncio.Event()
        self._room_for_audio.set()
        self._eviction: asyncio.Future[VisavisError] = asyncio.get_running_loop().create_future()
        self._frames_written = 0
        self._first_speech_written = False

    def evict(self, error: VisavisError) -> None:
        """End the session with `error`, from outside of `run`."""
        if not self._eviction.done():
            self._eviction.set_result(error)

    async def run(self, stages: SessionStages) -> None:
        """Serve until `ended` is written.

        Errors: `InvalidInput` for a broken rule, `SessionAborted` when the client half-closes without `end_of_audio`,
        `DeadlineMissed` when it is silent for too long, `StageUnavailable`, what `evict` got; in an `ExceptionGroup`.
        """
        pipeline = Pipeline(stages, self._clock, self._watch)
        async with asyncio.TaskGroup() as group:
            group.create_task(pipeline.relay_speech())
            group.create_task(pipeline.relay_video())
            group.create_task(self._collect_pictures(pipeline))
            group.create_task(self._issue_chunks(pipeline))
            eviction = group.create_task(self._wait_for_eviction())
            reading = group.create_task(self._read_requests())
            await self._write_responses()
            reading.cancel()
            eviction.cancel()
            await stages.finish()

    async def _wait_for_eviction(self) -> None:
        raise await self._eviction

    # From the client to the timeline

    async def _read_requests(self) -> None:
        while True:
            with self._watch.not_reading():
                await self._room_for_audio.wait()
            request = await self._next_request()
            if request is None:
                if self._order.ended:
                    return
                raise SessionAborted("the client closed its side without end_of_audio")
            self._order.accept(request)
            await self._take_request(request)

    async def _next_request(self) -> TalkRequest | None:
        limit_seconds = None if self._order.ended else self._idle_limit_seconds
        try:
            async with asyncio.timeout(limit_seconds):
                return await anext(self._requests, None)
        except TimeoutError:
            raise DeadlineMissed(f"no request came for {self._idle_limit_seconds:g} s") from None

    async def _take_request(self, request: TalkRequest) -> None:
        now = self._clock()
        match request.WhichOneof("request"):
            case "audio":
                self._timeline.feed(request.audio.pcm, now)
                self._note_room()
            case "end_of_utterance":
                self._timeline.end_utterance(now)
            case "interrupt":
                epoch = self._timeline.interrupt(now)
                self._timeline_changed.set()
                await self._respond(_Interruption(epoch, now))
            case "end_of_audio":
                self._timeline.end_audio(now)
        self._timeline_changed.set()

    def _note_room(self) -> None:
        if self._timeline.accepts_audio:
            self._room_for_audio.set()
        else:
            self._room_for_audio.clear()

    # From the timeline into the pipeline

    async def _issue_chunks(self, pipeline: Pipeline) -> None:
        while True:
            self._timeline_changed.clear()
            for output in self._timeline.advance(self._clock()):
                self._note_room()
                await self._issue(pipeline, output)
            if self._timeline.finished:
                await self._respond(_End())
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._timeline.wake_at()):
                    await self._timeline_changed.wait()

    async def _issue(self, pipeline: Pipeline, output: Output) -> None:
        if isinstance(output, TimelineChunk):
            await pipeline.submit(output)
        else:
            await self._respond(output)

    # From the pipeline to the client

    async def _collect_pictures(self, pipeline: Pipeline) -> None:
        async for record, pictures in pipeline.pictures():
            await self._respond(_Pictures(record, pictures))

    async def _respond(self, outgoing: _Outgoing) -> None:
        await self._outbox.put(outgoing)
        self._watch.response_waits(1)

    async def _write_responses(self) -> None:
        while True:
            outgoing = await self._outbox.get()
            self._watch.response_waits(-1)
            match outgoing:
                case _Pictures(record, pictures):
                    await self._write_pictures(record, pictures)
                case StarvedNotice() as notice if notice.epoch == self._timeline.epoch:
                    await self._write_starved(notice)
                case UtteranceEndedNotice(epoch, utterance_id, last) if epoch == self._timeline.epoch:
                    ended = UtteranceEnded(utterance_id=utterance_id, last_chunk_index=last)
                    await self._send(TalkResponse(utterance_ended=ended))
                case _Interruption(epoch, arrived_at):
                    interrupted = Interrupted(epoch=epoch, last_chunk_index=self.last_chunk_index)
                    await self._send(TalkResponse(interrupted=interrupted))
                    self._watch.metrics.interrupted(self._clock() - arrived_at)
                case _End():
                    await self._write_end()
                    return

    async def _write_pictures(self, record: ChunkRecord, pictures: DecodedPictures) -> None:
        chunk = record.chunk
        if chunk.epoch == self._timeline.epoch:
            if pictures.last_in_chunk:
                record.timing.total.CopyFrom(duration(self._clock() - chunk.ready_at))
            timing = record.timing if pictures.last_in_chunk else None
            segment = build_segment(chunk, self._format, pictures.frame_offset, pictures.frames, timing)
            await self._send(TalkResponse(segment=segment))
            self._watch.segment_written(segment, self._format)
            self._note_written(record, pictures)
        if pictures.last_in_chunk:
            self._finish_chunk(record)

    def _note_written(self, record: ChunkRecord, pictures: DecodedPictures) -> None:
        now = self._clock()
        self.last_chunk_index = record.chunk.chunk_index
        self._frames_written += len(pictures.frames)
        if not record.first_frame_written:
            record.first_frame_written = True
            record.late = self._timeline.first_frame_written(record.chunk, now)
            if not (record.chunk.idle or self._first_speech_written):
                self._first_speech_written = True
                self._watch.first_frame_written(record, now - record.chunk.ready_at)

    def _finish_chunk(self, record: ChunkRecord) -> None:
        if record.timing.HasField("total"):
            self.chunks_written += 1
            self._watch.chunk_written(record)
        else:
            self._watch.chunk_dropped(record, "interruption")
        self._timeline.chunk_finished(record.chunk.chunk_index)
        self._timeline_changed.set()

    async def _write_starved(self, notice: StarvedNotice) -> None:
        self._watch.metrics.starved(filled=notice.filled)
        policy = talking_head_pb2.STARVATION_POLICY_FILL if notice.filled else talking_head_pb2.STARVATION_POLICY_WAIT
        starved = Starved(utterance_id=notice.utterance_id, chunk_index=notice.chunk_index, policy=policy)
        await self._send(TalkResponse(starved=starved))

    async def _write_end(self) -> None:
        reason = talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO
        ended = SessionEnded(reason=reason, chunks=self.chunks_written, frames=self._frames_written)
        await self._send(TalkResponse(ended=ended))

    async def _send(self, response: TalkResponse) -> None:
        with self._watch.writing():
            await self._write(response)
