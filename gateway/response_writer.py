"""Writes what waits in a session's outbox to its client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from gateway.audio_format import PcmFormat
from gateway.outbox import DroppedNotice, EndedNotice, InterruptedNotice, Outbox, Pictures
from gateway.segments import build_segment, duration
from gateway.session_watch import SessionWatch
from gateway.timeline_output import StarvedNotice, UtteranceEndedNotice
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import (
    ChunksDropped,
    Interrupted,
    SessionEnded,
    Starved,
    TalkResponse,
    UtteranceEnded,
)

WriteResponse: TypeAlias = Callable[[TalkResponse], Awaitable[None]]
Clock: TypeAlias = Callable[[], float]


class ResponseWriter:
    """Counts what the client got; pictures count the moment they are handed to the network."""

    def __init__(
        self,
        outbox: Outbox,
        audio_format: PcmFormat,
        write: WriteResponse,
        watch: SessionWatch,
        clock: Clock,
        on_pictures: Callable[[Pictures], None],
        *,
        chunks: int = 0,
        frames: int = 0,
    ) -> None:
        """on_pictures: hears of pictures just before they are written; chunks, frames: written on earlier streams."""
        self.chunks = chunks
        self.frames = frames
        self._outbox = outbox
        self._format = audio_format
        self._write = write
        self._watch = watch
        self._clock = clock
        self._on_pictures = on_pictures

    async def run(self) -> None:
        """Until `ended` is written."""
        while True:
            outgoing = await self._outbox.get()
            response = self._segment(outgoing) if isinstance(outgoing, Pictures) else self._notice(outgoing)
            with self._watch.writing():
                await self._write(response)
            if isinstance(outgoing, InterruptedNotice):
                self._watch.metrics.interrupted(self._clock() - outgoing.arrived_at)
            elif isinstance(outgoing, EndedNotice):
                return

    def _segment(self, outgoing: Pictures) -> TalkResponse:
        record, pictures = outgoing.record, outgoing.pictures
        timing = None
        if pictures.last_in_chunk:
            timing = record.timing
            timing.total.CopyFrom(duration(self._clock() - record.chunk.ready_at))
            self.chunks += 1
        self.frames += len(pictures.frames)
        segment = build_segment(record.chunk, self._format, pictures.frame_offset, pictures.frames, timing)
        self._watch.segment_written(segment, self._format)
        self._on_pictures(outgoing)
        return TalkResponse(segment=segment)

    def _notice(
        self, notice: StarvedNotice | UtteranceEndedNotice | InterruptedNotice | DroppedNotice | EndedNotice
    ) -> TalkResponse:
        match notice:
            case StarvedNotice(_, utterance_id, chunk_index, filled):
                self._watch.metrics.starved(filled=filled)
                policy = talking_head_pb2.STARVATION_POLICY_FILL if filled else talking_head_pb2.STARVATION_POLICY_WAIT
                starved = Starved(utterance_id=utterance_id, chunk_index=chunk_index, policy=policy)
                return TalkResponse(starved=starved)
            case UtteranceEndedNotice(_, utterance_id, last_chunk_index):
                ended = UtteranceEnded(utterance_id=utterance_id, last_chunk_index=last_chunk_index)
                return TalkResponse(utterance_ended=ended)
            case InterruptedNotice(epoch, last_chunk_index):
                return TalkResponse(interrupted=Interrupted(epoch=epoch, last_chunk_index=last_chunk_index))
            case DroppedNotice(epoch, first, last, position):
                dropped = ChunksDropped(
                    epoch=epoch,
                    first_chunk_index=first,
                    last_chunk_index=last,
                    input_position=position.to_message(),
                )
                return TalkResponse(dropped=dropped)
            case EndedNotice(reason):
                return TalkResponse(ended=SessionEnded(reason=reason, chunks=self.chunks, frames=self.frames))
