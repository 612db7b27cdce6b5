"""What a caller is going to say."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.bench.conversation import LOOKAHEAD_SECONDS, PlannedUtterance, plan_conversation
from visavis.bench.ramp import SessionInterval
from visavis.contract import CHUNK_SECONDS


def plan(
    interval: SessionInterval, clips: list[float], *, pause: float = 1.0, rate: float = 0.0, seed: int = 0
) -> list[PlannedUtterance]:
    return list(plan_conversation(interval, clips, pause_seconds=pause, interrupts_per_minute=rate, seed=seed))


def test_clips_follow_each_other_with_pauses_and_the_last_is_cut() -> None:
    assert plan(SessionInterval(10, 20), [3, 5], seed=0) == [
        PlannedUtterance(0, 10, 3, None),
        PlannedUtterance(1, 14, 5, None),
    ]
    assert plan(SessionInterval(0, 6), [3], seed=0)[-1] == PlannedUtterance(0, 4, 2, None)


def test_a_chunk_is_complete_with_its_lookahead_or_with_its_utterance() -> None:
    utterance = PlannedUtterance(0, 5.0, 2.5, None)
    assert utterance.chunks == 3
    assert utterance.audio_complete(1) == pytest.approx(5 + CHUNK_SECONDS + LOOKAHEAD_SECONDS)
    assert utterance.audio_complete(3) == 7.5
    assert PlannedUtterance(0, 0, 2 * CHUNK_SECONDS, None).chunks == 2


@given(st.floats(0, 100), st.floats(0, 200), st.lists(st.floats(0.1, 20), min_size=1, max_size=3), st.integers(0, 99))
def test_utterances_stay_in_their_interval_and_never_overlap(
    begin: float, length: float, clips: list[float], seed: int
) -> None:
    interval = SessionInterval(begin, begin + length)
    utterances = plan(interval, clips, pause=0.5, rate=20, seed=seed)
    ends = [
        each.begin + each.speech_seconds if each.interrupted_at is None else each.interrupted_at for each in utterances
    ]
    assert all(begin <= each.begin and end <= interval.end + 1e-9 for each, end in zip(utterances, ends, strict=True))
    assert all(later.begin >= end for later, end in zip(utterances[1:], ends, strict=False))
    assert utterances == plan(interval, clips, pause=0.5, rate=20, seed=seed)


def test_interruptions_come_at_the_rate_that_was_asked_for() -> None:
    utterances = plan(SessionInterval(0, 60_000), [8.0], pause=0.0, rate=6, seed=3)
    spoken = sum((each.interrupted_at or each.begin + each.speech_seconds) - each.begin for each in utterances)
    interrupted = sum(each.interrupted_at is not None for each in utterances)
    assert interrupted / (spoken / 60) == pytest.approx(6, rel=0.05)
    assert all(one.begin < two.begin for one, two in itertools.pairwise(utterances))
