"""What the clients of a load run notice, as it goes from their processes to the one that counts.

Times are seconds from the start of the run, on the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from visavis.client.events import ChunkTiming

Outcome: TypeAlias = Literal["completed", "rejected", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The server said `started`, this long after the session was to begin."""

    moment: float
    start_seconds: float


@dataclass(frozen=True, slots=True)
class ChunkSeen:
    """The last frame of a chunk arrived.

    moment: of its first frame. wait_seconds: from the moment when its last audio was due to its first frame; None for
    an idle chunk. first: it is the first of an utterance. late_seconds: see `playout`; 0 for one in time.
    """

    moment: float
    wait_seconds: float | None
    first: bool
    late_seconds: float
    received_bytes: int
    timing: ChunkTiming


@dataclass(frozen=True, slots=True)
class ChunksMissing:
    """Chunks that were overdue when the session ended and never came: this long, at least, they would have waited."""

    moment: float
    waited_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class InterruptionSeen:
    """`interrupted` arrived, this long after the listener was to break in."""

    moment: float
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class SessionOver:
    """A session ended.

    started: whether it ever did. reason: of a rejected or failed one. drift_seconds: the largest difference between
    where frames and where samples said they are. missing_frames: gaps in the numbering of frames. stale_frames: frames
    of an older epoch after `interrupted`. stalled_seconds: how long its player stood still.
    """

    moment: float
    started: bool
    outcome: Outcome
    reason: str
    drift_seconds: float
    missing_frames: int
    stale_frames: int
    stalled_seconds: float


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How the client process itself did since its last word.

    loop_lag_seconds: by how much its event loop woke up too late, the largest. send_lag_seconds: by how much packets
    were late for reasons of the client's own, the largest. cpu_share: of one core.
    """

    moment: float
    process: int
    loop_lag_seconds: float
    send_lag_seconds: float
    cpu_share: float


LoadEvent: TypeAlias = SessionStarted | ChunkSeen | ChunksMissing | InterruptionSeen | SessionOver | ClientHealth
