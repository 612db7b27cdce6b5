"""Carries out the plan of one simulated caller with the SDK: speaks, breaks in, listens, and tells what it notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from visavis.bench.conversation import PlannedUtterance
from visavis.bench.failures import leaves
from visavis.bench.load_events import LoadEvent, Outcome, SessionOver, SessionStarted
from visavis.bench.ramp import SessionInterval
from visavis.bench.session_recorder import SessionRecorder
from visavis.client import (
    CapacityExhausted,
    ClientError,
    Interrupted,
    Segment,
    Speech,
    TalkSession,
    VideoFormat,
    VisavisClient,
)
from visavis.client.client import Idle

PACKET_SECONDS: Final = 0.04
START_LIMIT_SECONDS: Final = 30.0
DRAIN_LIMIT_SECONDS: Final = 30.0

_Result = TypeVar("_Result")


class SendLag:
    """By how much packets were sent too late by the client's own fault; waiting for the server is none of it."""

    def __init__(self) -> None:
        self.worst_seconds = 0.0

    def take(self) -> float:
        """The largest since the last call."""
        worst, self.worst_seconds = self.worst_seconds, 0.0
        return worst

    def note(self, due: float, free_at: float, sent: float) -> None:
        """A packet that was due, whose sender was free from then on, was sent."""
        self.worst_seconds = max(self.worst_seconds, sent - max(due, free_at))


@dataclass(frozen=True, slots=True)
class Caller:
    """What one session does. `clips` have one audio format. buffer_seconds: of its player."""

    interval: SessionInterval
    clips: Sequence[Speech]
    utterances: Iterable[PlannedUtterance]
    video_format: VideoFormat
    idle: Idle
    buffer_seconds: float


class LiveSession:
    """`run` plays one caller against a server.

    moment: seconds from the start of the run. emit: hears every event.
    """

    def __init__(
        self,
        client: VisavisClient,
        avatar_id: str,
        caller: Caller,
        lag: SendLag,
        *,
        moment: Callable[[], float],
        emit: Callable[[LoadEvent], None],
    ) -> None:
        self._client = client
        self._avatar_id = avatar_id
        self._caller = caller
        self._lag = lag
        self._moment = moment
        self._emit = emit
        self._recorder = SessionRecorder(caller.clips[0].audio_format, buffer_seconds=caller.buffer_seconds)
        self._started = False

    async def run(self) -> None:
        """Waits for its beginning and talks to its end. What fails is told as an event and never raised."""
        await self._sleep_until(self._caller.interval.begin)
        outcome: Outcome = "stopped"
        reason = ""
        try:
            await self._talk()
            outcome = "completed"
        except (ClientError, TimeoutError, ExceptionGroup) as error:
            outcome, reason = _judge(error)
        finally:
            self._tell_end(outcome, reason)

    def _tell_end(self, outcome: Outcome, reason: str) -> None:
        recorder, now = self._recorder, self._moment()
        if missing := recorder.missing(now):
            self._emit(missing)
        self._emit(
            SessionOver(
                moment=now,
                started=self._started,
                outcome=outcome,
                reason=reason,
                drift_seconds=recorder.drift_seconds,
                missing_frames=recorder.missing_frames,
                stale_frames=recorder.stale_frames,
                stalled_seconds=recorder.player.stalled_seconds,
            )
        )

    async def _talk(self) -> None:
        caller = self._caller
        talk = self._client.talk(
            self._avatar_id,
            audio_format=caller.clips[0].audio_format,
            video_format=caller.video_format,
            idle=caller.idle,
            starvation="wait",
        )
        async with AsyncExitStack() as stack:
            session = await _within(START_LIMIT_SECONDS, stack.enter_async_context(talk), "did not start")
            now = self._moment()
            self._started = True
            self._emit(SessionStarted(now, now - caller.interval.begin))
            left = caller.interval.end - now + DRAIN_LIMIT_SECONDS
            await _within(
                left, self._converse(session), f"did not end {DRAIN_LIMIT_SECONDS:.0f} s after its last audio"
            )

    async def _converse(self, session: TalkSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(session))
            group.create_task(self._speak(session))

    async def _listen(self, session: TalkSession) -> None:
        async for event in session.events():
            now = self._moment()
            if isinstance(event, Segment):
                if chunk := self._recorder.segment(event, now):
                    self._emit(chunk)
            elif isinstance(event, Interrupted):
                self._emit(self._recorder.interrupted(event.epoch, now))

    async def _speak(self, session: TalkSession) -> None:
        for utterance in self._caller.utterances:
            await self._say(session, utterance)
            if utterance.interrupted_at is None:
                await session.end_utterance()
            else:
                await self._sleep_until(utterance.interrupted_at)
                self._recorder.listener_breaks_in(utterance.interrupted_at)
                await session.interrupt(self._recorder.played_samples(self._moment()))
        await session.end()

    async def _say(self, session: TalkSession, utterance: PlannedUtterance) -> None:
        speech = self._caller.clips[utterance.clip]
        samples = round(utterance.speech_seconds * speech.sample_rate_hz)
        step = round(PACKET_SECONDS * speech.sample_rate_hz)
        for start in range(0, samples, step):
            end = min(start + step, samples)
            due = utterance.begin + end / speech.sample_rate_hz
            if utterance.interrupted_at is not None and due > utterance.interrupted_at:
                return
            free_at = self._moment()
            await self._sleep_until(due)
            self._lag.note(due, free_at, self._moment())
            if start == 0:
                self._recorder.speech_begins(utterance)
            await session.send(speech.samples_SC[start:end].astype("<i2", copy=False).tobytes())

    async def _sleep_until(self, moment: float) -> None:
        await asyncio.sleep(moment - self._moment())


async def _within(seconds: float, work: Awaitable[_Result], what: str) -> _Result:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise TimeoutError(what) from None


def _judge(error: Exception) -> tuple[Outcome, str]:
    """The outcome of a session that ended with an error, and why in words. Other errors are bugs, and raised."""
    found = leaves(error)
    unexpected = [each for each in found if not isinstance(each, ClientError | TimeoutError)]
    if unexpected:
        raise error
    first = found[0]
    if isinstance(first, CapacityExhausted):
        return "rejected", _words(first)
    return "failed", _words(first) if isinstance(first, ClientError) else str(first)


def _words(error: ClientError) -> str:
    """The status and its stable reason; messages carry ids and numbers, and would make each failure one of a kind."""
    if error.code is None:
        return str(error)
    return f"{error.code.name} {error.reason}".strip()
