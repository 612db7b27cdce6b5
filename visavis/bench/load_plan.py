"""What a load run does, whoever asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visavis.bench.ramp import RampPoint
from visavis.client import Speech, Tls, VideoFormat
from visavis.client.client import Idle


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One run.

    address: host:port of the gateway. avatar_id: of a registered avatar. ramp: see `ramp`. speech: clips; sessions take
    them in turn, each those of one audio format. pause_seconds: between utterances. buffer_seconds: of the players
    (`playout`). processes: of the clients; each has one connection. seed: the same plans the same.
    """

    address: str
    tls: Tls | None
    avatar_id: str
    ramp: Sequence[RampPoint]
    speech: Sequence[Speech]
    video_format: VideoFormat
    idle: Idle
    pause_seconds: float
    interrupts_per_minute: float
    buffer_seconds: float
    processes: int
    seed: int

    @property
    def seconds(self) -> float:
        """How long it is to last, without what the server still owes in the end."""
        return self.ramp[-1].seconds

    @property
    def most_sessions(self) -> int:
        """The most sessions at once."""
        return max(point.sessions for point in self.ramp)


def clips_by_format(speech: Sequence[Speech]) -> list[list[Speech]]:
    """The clips in groups of one audio format: a session has one."""
    groups: dict[tuple[int, int], list[Speech]] = {}
    for clip in speech:
        groups.setdefault((clip.sample_rate_hz, clip.audio_format.channel_count), []).append(clip)
    return list(groups.values())
