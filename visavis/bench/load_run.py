"""Runs a load plan: starts the clients' processes, collects what they notice, and stops them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from visavis.bench.load_events import SessionOver
from visavis.bench.load_plan import LoadPlan, clips_by_format
from visavis.bench.load_process import LoadShare, NumberedSession, run_share
from visavis.bench.load_tally import LoadTally
from visavis.bench.ramp import session_intervals

# Processes import the SDK before the first session begins: this long for them all, and a little for each.
LEAD_SECONDS: Final = 2.0
LEAD_SECONDS_PER_PROCESS: Final = 0.5
LOOK_SECONDS: Final = 0.25
STOP_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Client:
    process: BaseProcess
    events: Connection
    control: Connection
    sessions: int
    over: int = 0


def run_load(plan: LoadPlan, on_look: Callable[[LoadTally, float], None]) -> LoadTally:
    """Runs to the end, or to Ctrl-C, after which the tally says `stopped`.

    on_look: hears four times a second what is known, and the seconds since the start (negative before it).
    """
    origin = time.monotonic() + LEAD_SECONDS + LEAD_SECONDS_PER_PROCESS * plan.processes
    tally = LoadTally()
    clients: list[_Client] = []
    try:
        with _interrupt_is_ours():
            clients += (_start(share) for share in _shares(plan, origin))
        _collect(clients, tally, lambda: on_look(tally, time.monotonic() - origin))
    except KeyboardInterrupt:
        tally.stopped = True
    finally:
        _stop(clients, tally)
    tally.wall_seconds = max(0.0, time.monotonic() - origin)
    return tally


def _shares(plan: LoadPlan, origin: float) -> list[LoadShare]:
    numbered = [NumberedSession(number, each) for number, each in enumerate(session_intervals(plan.ramp))]
    clips = clips_by_format(plan.speech)
    return [
        LoadShare(
            process=process,
            address=plan.address,
            tls=plan.tls,
            avatar_id=plan.avatar_id,
            sessions=numbered[process :: plan.processes],
            clips=clips,
            video_format=plan.video_format,
            idle=plan.idle,
            pause_seconds=plan.pause_seconds,
            interrupts_per_minute=plan.interrupts_per_minute,
            buffer_seconds=plan.buffer_seconds,
            seed=plan.seed,
            origin=origin,
        )
        for process in range(min(plan.processes, len(numbered)))
    ]


def _start(share: LoadShare) -> _Client:
    spawn = multiprocessing.get_context("spawn")
    events, events_of_child = spawn.Pipe(duplex=False)
    control_of_child, control = spawn.Pipe(duplex=False)
    process = spawn.Process(target=run_share, args=(share, events_of_child, control_of_child), daemon=True)
    process.start()
    events_of_child.close()
    control_of_child.close()
    return _Client(process, events, control, len(share.sessions))


def _collect(clients: Sequence[_Client], tally: LoadTally, look: Callable[[], None]) -> None:
    open_clients = {client.events: client for client in clients}
    looked = 0.0
    while open_clients:
        for ready in wait(list(open_clients), LOOK_SECONDS):
            assert isinstance(ready, Connection)
            if not _take(open_clients[ready], tally):
                del open_clients[ready]
        if time.monotonic() - looked >= LOOK_SECONDS:
            look()
            looked = time.monotonic()


def _take(client: _Client, tally: LoadTally) -> bool:
    """Takes one batch. False when there is none any more."""
    try:
        batch = client.events.recv()
    except (EOFError, OSError):
        return False
    for event in batch:
        client.over += isinstance(event, SessionOver)
        tally.add(event)
    return True


def _stop(clients: Sequence[_Client], tally: LoadTally) -> None:
    """Ends every process, takes what they still have to say, and counts the sessions of one that died as failed."""
    for client in clients:
        client.control.close()
    deadline = time.monotonic() + STOP_SECONDS
    for client in clients:
        while client.events.poll(max(0.0, deadline - time.monotonic())) and _take(client, tally):
            pass
        client.process.join(max(0.1, deadline - time.monotonic()))
        if client.process.is_alive():
            client.process.kill()
            client.process.join()
        client.events.close()
        if client.process.exitcode:
            tally.lose(
                client.sessions - client.over, f"a client process ended with exit code {client.process.exitcode}"
            )


@contextmanager
def _interrupt_is_ours() -> Iterator[None]:
    """Processes started in here ignore Ctrl-C from their first instruction on; this one ignores it meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
