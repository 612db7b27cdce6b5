"""What sessions cause in Redis, counted during a real run of all services with the `tiny` preset.

Three rates come out: of running services without a session, of a running session, and what a session's start and end
cost once. They are told apart by three stretches of the run: before any session, while all run, and the whole.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from visavis.bench.bundled import CONSENT, bundled_portrait, bundled_speech
from visavis.bench.load_figures import LoadFigures, load_figures, running_sessions
from visavis.bench.load_plan import LoadPlan
from visavis.bench.load_run import run_load
from visavis.bench.load_tally import LoadTally
from visavis.bench.playout import BUFFER_SECONDS
from visavis.bench.ramp import RampPoint
from visavis.bench.redis_monitor import RedisMonitor, SentCommand, counts_between
from visavis.cli.local_system import default_settings, local_system
from visavis.client import BlockingClient, VideoFormat

RAMP_SECONDS: Final = 4.0
# Sessions that begin late on a busy machine, and those that end early for want of a whole chunk to say, do so outside
# of the stretch in which running sessions are counted.
SETTLE_SECONDS: Final = 2.0
TAIL_SECONDS: Final = 4.0
# Services alone: gateway, audio encoder, generator, decoder.
INSTANCES: Final = 4


@dataclass(frozen=True, slots=True)
class RedisTraffic:
    """Commands sent by clients of Redis, by name; what scripts do inside is not counted again.

    idle_per_second: of four services (one gateway and one instance of each stage) without a session.
    session_per_second: of one running session, beside that. session_once: of a session's start and end together.
    """

    sessions: int
    seconds: float
    session_seconds: float
    idle_per_second: Mapping[str, float]
    session_per_second: Mapping[str, float]
    session_once: Mapping[str, float]
    load: LoadFigures


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of the run: what was sent in it, how long it was, and for how long sessions ran in it, all together."""

    sent: Counter[str]
    seconds: float
    session_seconds: float


def split_traffic(
    idle: Stretch, plateau: Stretch, whole: Stretch, sessions: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """The three rates of `RedisTraffic`; pure. A rate that noise makes negative is 0."""
    names = sorted(idle.sent | plateau.sent | whole.sent)
    idle_rate = {name: idle.sent[name] / idle.seconds for name in names}
    running = {
        name: max(0.0, plateau.sent[name] - idle_rate[name] * plateau.seconds) / plateau.session_seconds
        for name in names
    }
    once = {
        name: max(0.0, whole.sent[name] - idle_rate[name] * whole.seconds - running[name] * whole.session_seconds)
        / sessions
        for name in names
    }
    return _present(idle_rate), _present(running), _present(once)


def measure_traffic(
    sessions: int, seconds: float, say: Callable[[str], None]
) -> tuple[RedisTraffic, list[SentCommand]]:
    """Runs sessions for `seconds`, after as long without any. Returns what was sent too. Raises CommandError."""
    settings = replace(default_settings("tiny"), environment={"VISAVIS_SLOTS": str(sessions)})
    with local_system(settings, say) as system:
        with BlockingClient(system.gateway_address) as client:
            avatar_id = client.register_avatar(bundled_portrait(), CONSENT, display_name="bench").avatar_id
        with RedisMonitor(system.redis_url) as monitor:
            say(f"Redis: {seconds:.0f} s without a session")
            idle_begin = time.monotonic()
            time.sleep(seconds)
            say(f"Redis: {sessions} session(s), {seconds:.0f} s")
            begin = time.monotonic()
            origin: list[float] = []

            def look(_tally: LoadTally, moment: float) -> None:
                origin[:] = [time.monotonic() - moment]
                system.supervisor.check()

            tally = run_load(_plan(system.gateway_address, avatar_id, sessions, seconds), look)
            end = time.monotonic()
    if tally.stopped:
        raise KeyboardInterrupt
    first = RAMP_SECONDS + SETTLE_SECONDS
    plateau = (origin[0] + first, origin[0] + first + seconds)
    sent = monitor.commands
    rates = split_traffic(
        Stretch(counts_between(sent, idle_begin, begin), begin - idle_begin, 0.0),
        Stretch(counts_between(sent, *plateau), seconds, _session_seconds(tally, first, first + seconds)),
        Stretch(counts_between(sent, begin, end), end - begin, _session_seconds(tally, 0.0, end - origin[0])),
        max(1, tally.outcomes["completed"]),
    )
    figures = load_figures(tally)
    return RedisTraffic(sessions, seconds, figures.session_seconds, *rates, figures), sent


def _plan(address: str, avatar_id: str, sessions: int, seconds: float) -> LoadPlan:
    return LoadPlan(
        address=address,
        tls=None,
        avatar_id=avatar_id,
        ramp=(
            RampPoint(0, 0),
            RampPoint(RAMP_SECONDS, sessions),
            RampPoint(RAMP_SECONDS + SETTLE_SECONDS + seconds + TAIL_SECONDS, sessions),
        ),
        speech=[bundled_speech()],
        video_format=VideoFormat.jpeg(),
        idle="live",
        pause_seconds=0.5,
        interrupts_per_minute=2,
        buffer_seconds=BUFFER_SECONDS,
        processes=1,
        seed=0,
    )


def _session_seconds(tally: LoadTally, begin: float, end: float) -> float:
    """For how long sessions ran between two moments, all together."""
    changes = [(moment, count) for moment, count in running_sessions(tally.running) if moment < end]
    moments = [*(moment for moment, _ in changes[1:]), end]
    return sum(
        count * max(0.0, later - max(moment, begin)) for (moment, count), later in zip(changes, moments, strict=True)
    )


def _present(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: rate for name, rate in rates.items() if rate > 0}
