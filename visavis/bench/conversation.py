"""What one simulated caller is going to say and when, decided before the session begins; pure.

Latencies are measured against this plan. A server that makes its client wait therefore cannot hide its slowness by
slowing the client down (coordinated omission).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from visavis.bench.ramp import SessionInterval
from visavis.contract import CHUNK_SECONDS, LOOKAHEAD_SAMPLES, SAMPLE_RATE_HZ

LOOKAHEAD_SECONDS = LOOKAHEAD_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class PlannedUtterance:
    """One piece of speech. Times are seconds from the start of the run.

    clip: which of the session's clips is spoken. speech_seconds: how much of it. begin: of its first sample.
    interrupted_at: when the listener breaks in; None when it is spoken to its end.
    """

    clip: int
    begin: float
    speech_seconds: float
    interrupted_at: float | None

    @property
    def chunks(self) -> int:
        """Chunks that it becomes when nobody breaks in."""
        # Lengths are whole samples, so that a remainder far below a sample is rounding.
        return max(1, math.ceil(self.speech_seconds / CHUNK_SECONDS - 1e-6))

    def audio_complete(self, ordinal: int) -> float:
        """When the last audio is due that its chunk needs (the first is 1): its samples and the lookahead."""
        return self.begin + min(ordinal * CHUNK_SECONDS + LOOKAHEAD_SECONDS, self.speech_seconds)


def plan_conversation(
    interval: SessionInterval,
    clip_seconds: Sequence[float],
    *,
    pause_seconds: float,
    interrupts_per_minute: float,
    seed: int,
) -> Iterator[PlannedUtterance]:
    """Utterances back to back with pauses, clips in turn, to the end of the interval, which cuts the last one.

    Interruptions come at random with that rate (a Poisson process) while somebody speaks; then a pause and the next
    utterance follow. The same seed plans the same. A remainder shorter than a chunk is not spoken.
    """
    chance = random.Random(seed)
    begin, clip = interval.begin, seed % len(clip_seconds)
    while interval.end - begin >= CHUNK_SECONDS:
        speech_seconds = min(clip_seconds[clip], interval.end - begin)
        until = chance.expovariate(interrupts_per_minute / 60) if interrupts_per_minute else math.inf
        interrupted_at = begin + until if until < speech_seconds else None
        yield PlannedUtterance(clip, begin, speech_seconds, interrupted_at)
        begin = (begin + speech_seconds if interrupted_at is None else interrupted_at) + pause_seconds
        clip = (clip + 1) % len(clip_seconds)
