"""One running session: reads the client, keeps its timeline, feeds the pipeline, writes what comes out.

Reader, issuer, pipeline, writer and limits run side by side; whichever fails ends them all. Nothing here decides: what
becomes a chunk and when is the timeline's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.chunk_record import ChunkRecord
from gateway.eviction import Eviction
from gateway.interruption import border_of_interruption
from gateway.outbox import DroppedNotice, EndedNotice, InterruptedNotice, Outbox, Pictures
from gateway.pipeline import Pipeline
from gateway.request_order import RequestOrder
from gateway.response_writer import Clock, ResponseWriter, WriteResponse
from gateway.session_limits import SessionLimits
from gateway.session_opening import SessionOpening
from gateway.session_watch import SessionWatch
from gateway.slow_reader import SlowReader
from gateway.stage_dialect import Border
from gateway.timeline import Timeline
from gateway.timeline_output import TimelineChunk
from visavis.runtime.boundary import next_request
from visavis.runtime.errors import SessionAborted
from visavis.v1 import talking_head_pb2
from visavis.v1.decoder_pb2 import DecodedPictures
from visavis.v1.talking_head_pb2 import Interrupt, SessionEndReason, TalkRequest

_END_OF_AUDIO: Final = talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO


@dataclass(frozen=True, slots=True)
class SessionClient:
    """The client's stream."""

    requests: AsyncIterator[TalkRequest]
    order: RequestOrder
    write: WriteResponse


class ProgressListener(Protocol):
    """Who keeps checkpoints of the session."""

    def chunk_written(self) -> None:
        """The client got another chunk completely."""
        ...

    def went_back(self) -> None:
        """An interruption went back to a border."""
        ...


class TalkSession:
    """`run` serves one session from after its opening to its end."""

    def __init__(
        self,
        opening: SessionOpening,
        client: SessionClient,
        watch: SessionWatch,
        limits: SessionLimits,
        eviction: Eviction,
        clock: Clock,
        *,
        slow_reader_seconds: float | None,
        chunks_written: int,
        frames_written: int,
    ) -> None:
        """slow_reader_seconds: how late a chunk may be that waits for the client; None: nothing is dropped.
        chunks_written, frames_written: on the session's earlier streams.
        """
        start, audio_format = opening.start, opening.plan.audio_format
        self.last_written = start.chunk_index
        self.frames_at_border = frames_written
        self.epoch_start = (start.epoch, start.chunk_index, start.position)
        self.heard_client = asyncio.Event()
        """Set once the client has sent anything behind its opening."""
        self._format = audio_format
        self._history = opening.history
        self._client = client
        self._watch = watch
        self._limits = limits
        self._eviction = eviction
        self._clock = clock
        self._timeline = Timeline(audio_format, opening.plan.rules, clock(), start)
        self._outbox = Outbox(watch.response_waits)
        self._slow_reader = None if slow_reader_seconds is None else SlowReader(slow_reader_seconds)
        self._writer = ResponseWriter(
            self._outbox,
            audio_format,
            client.write,
            watch,
            clock,
            self._note_written,
            chunks=chunks_written,
            frames=frames_written,
        )
        self._open_chunks: dict[int, ChunkRecord] = {}
        self._timeline_changed = asyncio.Event()
        self._room_for_audio = asyncio.Event()
        self._room_for_audio.set()
        self._end_reason: SessionEndReason.ValueType = _END_OF_AUDIO
        self._pipeline: Pipeline | None = None
        self._progress: ProgressListener | None = None
        self._first_speech_written = False

    @property
    def chunks_written(self) -> int:
        return self._writer.chunks

    async def run(self, pipeline: Pipeline, progress: ProgressListener) -> None:
        """Serve until `ended` is written. `deliver` must be what the pipeline hands pictures to.

        Errors: `InvalidInput` for a broken rule, `SessionAborted` when the client half-closes without `end_of_audio`,
        `DeadlineMissed` when it does not read to its end what a limit ended, those of `Pipeline.run`, what evicts it;
        in an `ExceptionGroup`.
        """
        self._pipeline, self._progress = pipeline, progress
        async with asyncio.TaskGroup() as group:
            group.create_task(pipeline.run())
            tasks = [
                group.create_task(work)
                for work in (
                    self._read_requests(),
                    self._issue_chunks(pipeline),
                    self._limits.watch(self._stop, busy=lambda: self._timeline.speech_waits),
                    self._eviction.wait(),
                )
            ]
            await self._writer.run()
            for task in tasks:
                task.cancel()
            pipeline.finish()

    def _stop(self, reason: SessionEndReason.ValueType) -> None:
        self._end_reason = reason
        self._timeline.stop()
        self._timeline_changed.set()

    # From the client to the timeline

    async def _read_requests(self) -> None:
        while True:
            with self._watch.not_reading():
                await self._room_for_audio.wait()
                await self._outbox.room_for_notices()
            request = await next_request(self._client.requests)
            if request is None:
                if self._client.order.ended or self._timeline.ending:
                    return
                raise SessionAborted("the client closed its side without end_of_audio")
            self._client.order.accept(request)
            self.heard_client.set()
            self._limits.heard(listening=not self._client.order.ended)
            if not self._timeline.ending:
                self._take_request(request, self._clock())

    def _take_request(self, request: TalkRequest, now: float) -> None:
        match request.WhichOneof("request"):
            case "audio":
                self._timeline.feed(request.audio.pcm, now)
            case "end_of_utterance":
                self._timeline.end_utterance(now)
            case "interrupt":
                self._interrupt(request.interrupt, now)
            case "end_of_audio":
                self._timeline.end_audio(now)
        self._note_room()
        self._timeline_changed.set()

    def _note_room(self) -> None:
        if self._timeline.accepts_audio:
            self._room_for_audio.set()
        else:
            self._room_for_audio.clear()

    def _interrupt(self, interrupt: Interrupt, now: float) -> None:
        """At once and without a pause: nothing of the old epoch can slip through behind it."""
        assert self._pipeline is not None
        played = interrupt.played_samples if interrupt.HasField("played_samples") else None
        border = border_of_interruption(
            played,
            samples_per_chunk=self._format.samples_per_chunk,
            last_written=self.last_written,
            oldest_border=self._pipeline.oldest_border(self.last_written),
        )
        unplayed = 0 if played is None else max(0, border * self._format.samples_per_chunk - played)
        epoch = self._timeline.interrupt(border, now, playing_until=now + unplayed / self._format.sample_rate_hz)
        self.last_written, self.frames_at_border = border, self._writer.frames
        self.epoch_start = (epoch, border, self._timeline.used)
        self._pipeline.rewind(Border(epoch, border))
        for record in self._open_chunks.values():
            self._watch.chunk_dropped(record, "interruption")
        self._open_chunks.clear()
        self._outbox.go_back(epoch)
        if self._slow_reader is not None:
            self._slow_reader.go_back()
        self._outbox.put_notice(InterruptedNotice(epoch, border, now))
        if self._progress is not None:
            self._progress.went_back()

    # From the timeline into the pipeline

    async def _issue_chunks(self, pipeline: Pipeline) -> None:
        while True:
            self._timeline_changed.clear()
            for output in self._timeline.advance(self._clock()):
                if isinstance(output, TimelineChunk):
                    record = self._watch.chunk_begins(output)
                    self._open_chunks[output.chunk_index] = record
                    pipeline.submit(record)
                else:
                    self._outbox.put_notice(output)
            self._note_room()
            if self._timeline.finished:
                self._outbox.put_notice(EndedNotice(self._end_reason))
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._timeline.wake_at()):
                    await self._timeline_changed.wait()

    # From the pipeline to the client

    async def deliver(self, record: ChunkRecord, pictures: DecodedPictures) -> None:
        """Pictures of a chunk of this epoch; waits while the client does not read, unless such a one loses chunks."""
        if self._slow_reader is None:
            await self._outbox.put(Pictures(record, pictures), is_current=lambda: self._is_current(record))
        else:
            self._deliver_at_once(record, pictures, self._slow_reader)

    def _deliver_at_once(self, record: ChunkRecord, pictures: DecodedPictures, slow_reader: SlowReader) -> None:
        refused = slow_reader.refuses(pictures, first=not record.on_clock)
        self._count_on_clock(record)
        if not refused:
            self._outbox.put_now(Pictures(record, pictures))
        if not pictures.last_in_chunk:
            return
        if refused:
            self._drop([record])
        elif dropped := slow_reader.chunks_to_drop(self._outbox.waiting_chunks(), self._clock()):
            self._drop(dropped)
        self._timeline.chunk_finished(record.chunk.chunk_index)
        self._timeline_changed.set()

    def _is_current(self, record: ChunkRecord) -> bool:
        return record.chunk.epoch == self._timeline.epoch

    def _drop(self, dropped: list[ChunkRecord]) -> None:
        assert self._pipeline is not None
        first, last = dropped[0].chunk, dropped[-1].chunk
        self._outbox.drop(DroppedNotice(first.epoch, first.chunk_index, last.chunk_index, last.position))
        self._pipeline.restart_pictures()
        for record in dropped:
            if self._open_chunks.pop(record.chunk.chunk_index, None) is not None:
                self._watch.chunk_dropped(record, "slow_reader")

    def _count_on_clock(self, record: ChunkRecord) -> None:
        if not record.on_clock:
            record.on_clock = True
            record.late = self._timeline.first_frame_written(record.chunk, self._clock())

    def _note_written(self, outgoing: Pictures) -> None:
        record, chunk = outgoing.record, outgoing.record.chunk
        self._count_on_clock(record)
        if not record.first_frame_written:
            record.first_frame_written = True
            if not (chunk.idle or self._first_speech_written):
                self._first_speech_written = True
                self._watch.first_frame_written(record, self._clock() - chunk.ready_at)
        if not outgoing.pictures.last_in_chunk:
            return
        self.last_written, self.frames_at_border = chunk.chunk_index, self._writer.frames
        self._history.trim(self.last_written)
        self._watch.chunk_written(record)
        del self._open_chunks[chunk.chunk_index]
        if self._slow_reader is None:
            self._timeline.chunk_finished(chunk.chunk_index)
            self._timeline_changed.set()
        if self._progress is not None:
            self._progress.chunk_written()
