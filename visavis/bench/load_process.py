"""One process of a load run: plays its share of the callers and sends what they notice, in batches."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from visavis.bench.client_health import watch_health
from visavis.bench.conversation import plan_conversation
from visavis.bench.live_session import Caller, LiveSession, SendLag
from visavis.bench.load_events import LoadEvent
from visavis.bench.ramp import SessionInterval
from visavis.client import Speech, Tls, VideoFormat, VisavisClient
from visavis.client.client import Idle

BATCH_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class NumberedSession:
    """One session of the run; its number decides what it says."""

    number: int
    interval: SessionInterval


@dataclass(frozen=True, slots=True)
class LoadShare:
    """What one process does.

    clips: groups of one audio format each; session n speaks the clips of group n modulo their number.
    origin: the start of the run on `time.monotonic`, which the processes of a machine share.
    """

    process: int
    address: str
    tls: Tls | None
    avatar_id: str
    sessions: Sequence[NumberedSession]
    clips: Sequence[Sequence[Speech]]
    video_format: VideoFormat
    idle: Idle
    pause_seconds: float
    interrupts_per_minute: float
    buffer_seconds: float
    seed: int
    origin: float


def run_share(share: LoadShare, events: Connection, control: Connection) -> None:
    """The whole life of the process: until its sessions are over, or `control` says a word or breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the starter, which ends its processes in order
    asyncio.run(_run_share(share, events, control))


async def _run_share(share: LoadShare, events: Connection, control: Connection) -> None:
    outbox: list[LoadEvent] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(control.fileno(), stop.set)
    lag = SendLag()
    sending = asyncio.create_task(_send_batches(outbox, events))
    health = asyncio.create_task(watch_health(share.process, lag, moment=lambda: _moment(share), emit=outbox.append))
    try:
        async with VisavisClient(share.address, tls=share.tls) as client:
            await _talk_all(share, client, lag, outbox, stop)
    finally:
        loop.remove_reader(control.fileno())
        for task in (health, sending):
            task.cancel()
        await asyncio.gather(health, sending, return_exceptions=True)
        if outbox:
            events.send(outbox)
        events.close()


async def _talk_all(
    share: LoadShare, client: VisavisClient, lag: SendLag, outbox: list[LoadEvent], stop: asyncio.Event
) -> None:
    talking = [
        asyncio.create_task(
            LiveSession(
                client,
                share.avatar_id,
                _caller(share, session),
                lag,
                moment=lambda: _moment(share),
                emit=outbox.append,
            ).run()
        )
        for session in share.sessions
    ]
    everybody = asyncio.ensure_future(asyncio.gather(*talking))
    stopping = asyncio.ensure_future(stop.wait())
    waited: set[asyncio.Future[Any]] = {everybody, stopping}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if everybody.done():
            everybody.result()
    finally:
        for task in (stopping, *talking):
            task.cancel()
        await asyncio.gather(stopping, everybody, *talking, return_exceptions=True)


async def _send_batches(outbox: list[LoadEvent], events: Connection) -> None:
    """Sends what has come together five times a second, from a thread: a full pipe must not hold up the callers.

    The list holds what a batch's time brings; the reader does nothing but count, so it does not grow.
    """
    while True:
        await asyncio.sleep(BATCH_SECONDS)
        if outbox:
            batch = outbox.copy()
            outbox.clear()
            await asyncio.shield(asyncio.to_thread(events.send, batch))


def _caller(share: LoadShare, session: NumberedSession) -> Caller:
    clips = share.clips[session.number % len(share.clips)]
    return Caller(
        interval=session.interval,
        clips=clips,
        utterances=plan_conversation(
            session.interval,
            [clip.seconds for clip in clips],
            pause_seconds=share.pause_seconds,
            interrupts_per_minute=share.interrupts_per_minute,
            seed=share.seed + session.number,
        ),
        video_format=share.video_format,
        idle=share.idle,
        buffer_seconds=share.buffer_seconds,
    )


def _moment(share: LoadShare) -> float:
    return time.monotonic() - share.origin
