"""A fake of the public service whose streams break and can be resumed: real gRPC, invented pictures.

It keeps nothing of a session but its format, as the client's position is the truth. Chunks come in two segments.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from tests.client.fake_server import FakeService, rich_status
from visavis.contract import CHUNK_FRAMES, CHUNK_SAMPLES
from visavis.v1 import chunk_pb2, media_pb2, talking_head_pb2

_CHUNK_BYTES = 2 * CHUNK_SAMPLES
_HALF = CHUNK_FRAMES // 2


@dataclass
class _Timeline:
    """16-bit mono speech at 16 kHz, cut into chunks; no idle chunks."""

    epoch: int = 1
    chunk_index: int = 0
    skip_frames: int = 0
    samples: int = 0
    utterances: int = 0
    speaking: bool = False
    closed: bool = False
    # Of a chunk that is made again: what it had.
    forced_bytes: int | None = None
    pending: bytearray = field(default_factory=bytearray)

    def take(self, request: talking_head_pb2.TalkRequest) -> list[talking_head_pb2.TalkResponse]:
        """The responses that a request makes due."""
        responses = []
        match request.WhichOneof("request"):
            case "audio":
                self.pending += request.audio.pcm
                self.speaking = True
            case "end_of_utterance" if self.speaking:
                responses += self._chunks(all_of_it=True)
                ended = talking_head_pb2.UtteranceEnded(utterance_id=self.utterances, last_chunk_index=self.chunk_index)
                return [*responses, talking_head_pb2.TalkResponse(utterance_ended=ended)]
            case "interrupt":
                self.epoch += 1
                self.samples += len(self.pending) // 2
                self.utterances += self.speaking
                self.pending.clear()
                self.speaking, self.forced_bytes = False, None
                notice = talking_head_pb2.Interrupted(epoch=self.epoch, last_chunk_index=self.chunk_index)
                return [talking_head_pb2.TalkResponse(interrupted=notice)]
            case "end_of_audio":
                last = talking_head_pb2.SessionEnded(chunks=self.chunk_index, frames=self.chunk_index * CHUNK_FRAMES)
                return [talking_head_pb2.TalkResponse(ended=last)]
        return responses + self._chunks(all_of_it=False)

    def _chunks(self, *, all_of_it: bool) -> list[talking_head_pb2.TalkResponse]:
        responses = []
        wanted = self.forced_bytes or _CHUNK_BYTES
        while len(self.pending) >= wanted or (all_of_it and self.pending):
            pcm = bytes(self.pending[:wanted])
            del self.pending[: len(pcm)]
            self.samples += len(pcm) // 2
            self.chunk_index += 1
            wanted, self.forced_bytes = _CHUNK_BYTES, None
            if all_of_it and not self.pending:
                self.utterances += 1
                self.speaking = False
            responses += self._segments(pcm.ljust(_CHUNK_BYTES, b"\0"))
        if all_of_it and self.speaking:
            self.utterances += 1
            self.speaking = False
        return responses

    def _segments(self, pcm: bytes) -> list[talking_head_pb2.TalkResponse]:
        per_frame = _CHUNK_BYTES // CHUNK_FRAMES
        first_of_chunk = CHUNK_FRAMES * (self.chunk_index - 1) + 1
        starts = [start for start in (0, _HALF) if start >= self.skip_frames]
        self.skip_frames = 0
        return [
            talking_head_pb2.TalkResponse(
                segment=talking_head_pb2.VideoSegment(
                    epoch=self.epoch,
                    utterance_id=self.utterances + self.speaking,
                    chunk_index=self.chunk_index,
                    first_frame_index=first_of_chunk + start,
                    frames=[media_pb2.Frame(data=b"frame", key_frame=True)] * _HALF,
                    pcm=pcm[start * per_frame : (start + _HALF) * per_frame],
                    last_in_chunk=start > 0,
                    synthetic=True,
                    input_position=talking_head_pb2.InputPosition(samples=self.samples, utterances=self.utterances),
                )
            )
            for start in starts
        ]


class BreakingService(FakeService):
    """Breaks its n-th stream after `responses[n]` responses; later ones never.

    refusals: how many resumptions are refused with UNAVAILABLE before one is taken; `full`: with RESOURCE_EXHAUSTED, to
    come again in an hour. forgets: there is no session. window_seconds: how long it says that it can be resumed.
    """

    def __init__(
        self,
        responses: Sequence[int],
        *,
        refusals: int = 0,
        full: bool = False,
        forgets: bool = False,
        window_seconds: int = 60,
    ) -> None:
        super().__init__()
        self.streams = 0
        self._responses = list(responses)
        self._refusals = refusals
        self._full = full
        self._forgets = forgets
        self._window_seconds = window_seconds

    async def Talk(
        self, requests: AsyncIterator[talking_head_pb2.TalkRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[talking_head_pb2.TalkResponse]:
        first = await anext(aiter(requests))
        if first.HasField("resume"):
            await self._check_resumption(first.resume, context)
        left = self._responses[self.streams] if self.streams < len(self._responses) else -1
        self.streams += 1
        timeline, opening = self._open(first)
        yield opening
        async for request in requests:
            for response in timeline.take(request):
                if left == 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
                left -= 1
                yield response

    async def _check_resumption(
        self, resume: talking_head_pb2.ResumeSession, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if self._forgets:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such session")
        if self._refusals:
            self._refusals -= 1
            if self._full:
                retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3600))
                await context.abort_with_status(rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        if resume.resume_token != f"token {self.streams}":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a stale token")

    def _open(self, first: talking_head_pb2.TalkRequest) -> tuple[_Timeline, talking_head_pb2.TalkResponse]:
        model = chunk_pb2.ModelIdentity(name="fake", fingerprint="00")
        started = talking_head_pb2.SessionStarted(
            session_id="s", width=4, height=4, frame_rate=25, model=model, resume_token=f"token {self.streams}"
        )
        started.resume_window.FromSeconds(self._window_seconds)
        if first.HasField("config"):
            return _Timeline(), talking_head_pb2.TalkResponse(started=started)
        resume = first.resume
        position = resume.input_position
        timeline = _Timeline(
            epoch=resume.epoch,
            chunk_index=resume.last_frame_index // CHUNK_FRAMES,
            skip_frames=resume.last_frame_index % CHUNK_FRAMES,
            samples=position.samples,
            utterances=position.utterances,
            speaking=resume.in_utterance,
        )
        if resume.HasField("partial_chunk_position"):
            timeline.forced_bytes = 2 * (resume.partial_chunk_position.samples - position.samples)
        resumed = talking_head_pb2.SessionResumed(
            started=started, epoch=resume.epoch, next_frame_index=resume.last_frame_index + 1
        )
        return timeline, talking_head_pb2.TalkResponse(resumed=resumed)
