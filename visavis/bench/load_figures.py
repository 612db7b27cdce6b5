"""The figures of a load run; pure.

- Chunk latency: from the moment when, by the plan, the last audio that the chunk needs was spoken (its 0.96 s and 80 ms
  of lookahead, or the end of the utterance) to the arrival of its first frame. A client that was held up does not move
  the plan, and a chunk that never came counts with the time it was waited for.
- First frame: the same of the first chunk of each utterance.
- Late chunk: not there when the player was due to show it (`playout`: a player that holds one frame); idle and missing
  chunks count.
- Interruption latency: from the planned moment to `interrupted`, after which no older frame may come.
- Start: from the planned beginning of a session to `started`.
- Drift: the largest difference between where frames and where samples said they are, seen in any segment.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.bench.load_events import ClientHealth
from visavis.bench.load_tally import Column, LoadTally
from visavis.bench.percentiles import Percentiles
from visavis.bench.stage_table import StageFigures
from visavis.contract import CHUNK_SECONDS

# A client that does worse than this in more than one second of twenty measures itself.
BUSY_LAG_SECONDS: Final = 0.02
BUSY_CPU_SHARE: Final = 0.85
MOST_BINS: Final = 120


@dataclass(frozen=True, slots=True)
class SloLimits:
    """What the server promises: this share of chunks in time, and if not None these 95th percentiles."""

    in_time_share: float
    chunk_p95_seconds: float | None
    first_frame_p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """One process of the clients: 95th percentiles over its seconds, of the worst lags and of its share of a core."""

    process: int
    loop_lag_p95_seconds: float
    send_lag_p95_seconds: float
    cpu_share_p95: float

    @property
    def was_bottleneck(self) -> bool:
        """Whether its own slowness may have gone into the figures."""
        lag = max(self.loop_lag_p95_seconds, self.send_lag_p95_seconds)
        return lag > BUSY_LAG_SECONDS or self.cpu_share_p95 > BUSY_CPU_SHARE


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """Of all sessions of one run; see the top of the file. Times in seconds.

    sessions: by how they ended ("completed", "rejected", "failed", "stopped"). reasons: of those rejected and failed.
    session_seconds: the time of all sessions together, from their start to their end.
    """

    wall_seconds: float
    stopped: bool
    most_sessions: int
    sessions: Mapping[str, int]
    reasons: Mapping[str, int]
    session_seconds: float
    chunks: int
    idle_chunks: int
    late_chunks: int
    missing_chunks: int
    in_time_share: float
    stalled_seconds: float
    start_seconds: Percentiles
    first_frame_seconds: Percentiles
    chunk_seconds: Percentiles
    interruption_seconds: Percentiles
    drift_seconds: float
    missing_frames: int
    stale_frames: int
    received_bytes: int
    stages: StageFigures
    clients: tuple[ClientFigures, ...]

    @property
    def video_seconds(self) -> float:
        """Length of all the video that came."""
        return (self.chunks - self.missing_chunks) * CHUNK_SECONDS

    @property
    def client_was_bottleneck(self) -> bool:
        """Whether any client process was."""
        return any(client.was_bottleneck for client in self.clients)


@dataclass(frozen=True, slots=True)
class LoadBin:
    """A piece of the run, for plots. sessions: the most at once. late_share: None without chunks."""

    moment: float
    sessions: int
    chunks: int
    late_share: float | None
    chunk_p50_seconds: float | None
    chunk_p95_seconds: float | None


def load_figures(tally: LoadTally) -> LoadFigures:
    """Sums up a run."""
    late = sum(value > 0 for value in tally.late.values)
    chunks = len(tally.late.values)
    running = running_sessions(tally.running)
    return LoadFigures(
        wall_seconds=tally.wall_seconds,
        stopped=tally.stopped,
        most_sessions=max((count for _, count in running), default=0),
        sessions={name: tally.outcomes[name] for name in ("completed", "rejected", "failed", "stopped")},
        reasons=dict(tally.reasons.most_common()),
        session_seconds=_session_seconds(running, tally.wall_seconds),
        chunks=chunks,
        idle_chunks=tally.idle_chunks,
        late_chunks=late,
        missing_chunks=tally.missing_chunks,
        in_time_share=1 - late / chunks if chunks else math.nan,
        stalled_seconds=tally.stalled_seconds,
        start_seconds=Percentiles.of(tally.starts.values),
        first_frame_seconds=Percentiles.of(tally.first_waits.values),
        chunk_seconds=Percentiles.of(tally.waits.values),
        interruption_seconds=Percentiles.of(tally.interruptions.values),
        drift_seconds=tally.drift_seconds,
        missing_frames=tally.missing_frames,
        stale_frames=tally.stale_frames,
        received_bytes=tally.received_bytes,
        stages=tally.stages.figures(),
        clients=tuple(_client_figures(number, words) for number, words in sorted(tally.health.items())),
    )


def broken_promises(figures: LoadFigures, limits: SloLimits) -> list[str]:
    """In which ways a run missed its limits, in words; empty when it kept them all."""
    broken = []
    for outcome in ("rejected", "failed"):
        if count := figures.sessions[outcome]:
            broken.append(f"{count} session(s) {outcome}: {', '.join(figures.reasons)}")
    if not figures.chunks:
        broken.append("no chunk came")
    elif figures.in_time_share < limits.in_time_share:
        broken.append(
            f"{figures.late_chunks} of {figures.chunks} chunks late: "
            f"{figures.in_time_share:.2%} in time, not {limits.in_time_share:.2%}"
        )
    for name, found, limit in (
        ("chunk latency", figures.chunk_seconds.p95, limits.chunk_p95_seconds),
        ("first frame", figures.first_frame_seconds.p95, limits.first_frame_p95_seconds),
    ):
        if limit is not None and found > limit:
            broken.append(f"{name} p95 {found * 1000:.0f} ms, over {limit * 1000:.0f} ms")
    if figures.missing_frames or figures.stale_frames:
        broken.append(f"{figures.missing_frames} frames missing, {figures.stale_frames} after their interruption")
    return broken


def load_bins(tally: LoadTally) -> list[LoadBin]:
    """The run in equal pieces of at least a second."""
    width = max(1.0, tally.wall_seconds / MOST_BINS)
    count = max(1, math.ceil(tally.wall_seconds / width))
    waits, late = _binned(tally.waits, width, count), _binned(tally.late, width, count)
    running = running_sessions(tally.running)
    bins = []
    for index in range(count):
        of = Percentiles.of(waits[index])
        bins.append(
            LoadBin(
                moment=index * width,
                sessions=_most_between(running, index * width, (index + 1) * width),
                chunks=len(late[index]),
                late_share=sum(value > 0 for value in late[index]) / len(late[index]) if late[index] else None,
                chunk_p50_seconds=of.p50 if of.count else None,
                chunk_p95_seconds=of.p95 if of.count else None,
            )
        )
    return bins


def running_sessions(changes: Column) -> list[tuple[float, int]]:
    """How many sessions ran from each moment on."""
    found: list[tuple[float, int]] = []
    count = 0
    for moment, change in sorted(zip(changes.moments, changes.values, strict=True)):
        count += round(change)
        found.append((moment, count))
    return found


def _session_seconds(running: Sequence[tuple[float, int]], end: float) -> float:
    moments = [moment for moment, _ in running[1:]] + [end]
    return sum(count * (later - moment) for (moment, count), later in zip(running, moments, strict=False))


def _most_between(running: Sequence[tuple[float, int]], begin: float, end: float) -> int:
    first = bisect_left(running, (begin,))
    inside = [count for _, count in running[first : bisect_left(running, (end,))]]
    return max([running[first - 1][1] if first else 0, *inside])


def _binned(column: Column, width: float, count: int) -> list[list[float]]:
    bins: list[list[float]] = [[] for _ in range(count)]
    for moment, value in zip(column.moments, column.values, strict=True):
        bins[min(max(0, int(moment / width)), count - 1)].append(value)
    return bins


def _client_figures(process: int, words: Sequence[ClientHealth]) -> ClientFigures:
    # Before the run begins it only starts up.
    during = [word for word in words if word.moment > 1.0] or words
    return ClientFigures(
        process,
        Percentiles.of([word.loop_lag_seconds for word in during]).p95,
        Percentiles.of([word.send_lag_seconds for word in during]).p95,
        Percentiles.of([word.cpu_share for word in during]).p95,
    )
