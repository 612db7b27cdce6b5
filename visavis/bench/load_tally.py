"""Counts what the clients of a load run notice."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from visavis.bench.load_events import (
    ChunkSeen,
    ChunksMissing,
    ClientHealth,
    InterruptionSeen,
    LoadEvent,
    Outcome,
    SessionOver,
    SessionStarted,
)
from visavis.bench.percentiles import Percentiles
from visavis.bench.stage_table import STAGES, StageFigures
from visavis.client.events import ChunkTiming

# Different reasons that are told apart; the rest is counted as one.
MAX_REASONS: Final = 20
OTHER_REASONS: Final = "other reasons"


@dataclass(slots=True)
class Column:
    """Figures with their moments, eight bytes each: an hour of a thousand sessions fits into memory."""

    moments: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, moment: float, value: float) -> None:
        """One more."""
        self.moments.append(moment)
        self.values.append(value)

    def since(self, moment: float) -> list[float]:
        """The values of this moment and later. Looks at the newest only, so nearly in order is enough."""
        found: list[float] = []
        for index in range(len(self.values) - 1, -1, -1):
            if self.moments[index] < moment - 2:
                break
            if self.moments[index] >= moment:
                found.append(self.values[index])
        return found


@dataclass(slots=True)
class StageColumns:
    """What the server says about each chunk, in seconds."""

    computed: dict[str, array[float]] = field(default_factory=lambda: {stage: array("d") for stage in STAGES})
    queued: dict[str, array[float]] = field(default_factory=lambda: {stage: array("d") for stage in STAGES})
    total: array[float] = field(default_factory=lambda: array("d"))

    def add(self, timing: ChunkTiming) -> None:
        """One more chunk."""
        for stage, of in zip(STAGES, (timing.audio_encoder, timing.generator, timing.decoder), strict=True):
            self.computed[stage].append(of.computed_seconds)
            self.queued[stage].append(of.queued_seconds)
        self.total.append(timing.total_seconds)

    def figures(self) -> StageFigures:
        """Their percentiles."""
        return StageFigures(
            computed={stage: Percentiles.of(values) for stage, values in self.computed.items()},
            queued={stage: Percentiles.of(values) for stage, values in self.queued.items()},
            total=Percentiles.of(self.total),
        )


@dataclass(slots=True)
class LoadTally:
    """Everything of one run; `add` takes events in any order.

    waits: of speech chunks, missing ones included. first_waits: of the first chunk of each utterance. late: of every
    chunk, by how much (0 in time), missing ones included. running: +1 and -1 where sessions started and ended.
    """

    waits: Column = field(default_factory=Column)
    first_waits: Column = field(default_factory=Column)
    late: Column = field(default_factory=Column)
    starts: Column = field(default_factory=Column)
    interruptions: Column = field(default_factory=Column)
    running: Column = field(default_factory=Column)
    missing_chunks: int = 0
    idle_chunks: int = 0
    received_bytes: int = 0
    stages: StageColumns = field(default_factory=StageColumns)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    drift_seconds: float = 0.0
    missing_frames: int = 0
    stale_frames: int = 0
    stalled_seconds: float = 0.0
    health: dict[int, list[ClientHealth]] = field(default_factory=dict)
    stopped: bool = False
    wall_seconds: float = 0.0

    @property
    def sessions_running(self) -> int:
        """Started and not yet over."""
        return round(sum(self.running.values))

    def add(self, event: LoadEvent) -> None:
        """Counts one event."""
        match event:
            case ChunkSeen():
                self._add_chunk(event)
            case ChunksMissing(moment, waited):
                self.missing_chunks += len(waited)
                for wait in waited:
                    self.waits.add(moment, wait)
                    self.late.add(moment, wait)
            case SessionStarted(moment, seconds):
                self.starts.add(moment, seconds)
                self.running.add(moment, 1)
            case InterruptionSeen(moment, seconds):
                self.interruptions.add(moment, seconds)
            case SessionOver():
                self._add_end(event)
            case ClientHealth():
                self.health.setdefault(event.process, []).append(event)

    def lose(self, sessions: int, reason: str) -> None:
        """Sessions ended with nobody left to say how."""
        if sessions:
            self.outcomes["failed"] += sessions
            self._add_reason(reason, sessions)

    def _add_chunk(self, chunk: ChunkSeen) -> None:
        self.late.add(chunk.moment, chunk.late_seconds)
        self.received_bytes += chunk.received_bytes
        self.stages.add(chunk.timing)
        if chunk.wait_seconds is None:
            self.idle_chunks += 1
            return
        self.waits.add(chunk.moment, chunk.wait_seconds)
        if chunk.first:
            self.first_waits.add(chunk.moment, chunk.wait_seconds)

    def _add_end(self, over: SessionOver) -> None:
        self.outcomes[over.outcome] += 1
        if over.reason:
            self._add_reason(over.reason, 1)
        if over.started:
            self.running.add(over.moment, -1)
        self.drift_seconds = max(self.drift_seconds, over.drift_seconds)
        self.missing_frames += over.missing_frames
        self.stale_frames += over.stale_frames
        self.stalled_seconds += over.stalled_seconds

    def _add_reason(self, reason: str, sessions: int) -> None:
        known = reason in self.reasons or len(self.reasons) < MAX_REASONS
        self.reasons[reason if known else OTHER_REASONS] += sessions
