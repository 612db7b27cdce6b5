"""When a chunk is late, and what a listener has heard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.bench.playout import BUFFER_SECONDS, Player
from visavis.contract import CHUNK_SECONDS

CHUNK = CHUNK_SECONDS


def lateness(arrivals: list[float], complete: list[float | None] | None = None) -> list[float]:
    player = Player(buffer_seconds=BUFFER_SECONDS)
    audio = complete or [None] * len(arrivals)
    return [
        player.show(i, at, audio_complete=ready) for i, (at, ready) in enumerate(zip(arrivals, audio, strict=True), 1)
    ]


def test_a_frame_of_jitter_is_covered_and_no_more() -> None:
    assert lateness([1.0, 1.0 + CHUNK + BUFFER_SECONDS]) == [0, 0]
    assert lateness([1.0, 1.01 + CHUNK + BUFFER_SECONDS])[1] == pytest.approx(0.01)


def test_a_larger_buffer_covers_more() -> None:
    player = Player(buffer_seconds=0.5)
    player.show(1, 1.0, audio_complete=None)
    assert player.show(2, 1.4 + CHUNK, audio_complete=None) == 0


def test_a_stall_moves_what_is_behind_it_once() -> None:
    late = lateness([0.0, 2.0, 2.0 + CHUNK, 2.0 + 2 * CHUNK])
    assert late[1] == pytest.approx(2.0 - CHUNK - BUFFER_SECONDS)
    assert late[2:] == [0, pytest.approx(0, abs=1e-9)]


def test_a_server_a_little_slower_than_real_time_is_found_out() -> None:
    late = lateness([i * CHUNK * 1.02 for i in range(20)])
    assert late[-1] == pytest.approx(0.02 * CHUNK)


def test_after_a_pause_of_the_speaker_playout_begins_anew() -> None:
    player = Player(buffer_seconds=BUFFER_SECONDS)
    player.show(1, 1.0, audio_complete=0.5)
    assert player.show(2, 9.0, audio_complete=8.5) == 0
    assert player.stalled_seconds == 0
    assert player.show(3, 9.0 + CHUNK + 0.1, audio_complete=8.5 + CHUNK) == pytest.approx(0.1 - BUFFER_SECONDS)


def test_an_idle_chunk_can_be_late_too() -> None:
    assert lateness([0.0, 3.0])[1] > 1


def test_after_an_interruption_nothing_is_late() -> None:
    player = Player(buffer_seconds=BUFFER_SECONDS)
    player.show(1, 0.0, audio_complete=None)
    player.interrupt()
    assert player.show(2, 50.0, audio_complete=None) == 0


def test_the_listener_hears_chunks_at_their_pace() -> None:
    player = Player(buffer_seconds=BUFFER_SECONDS)
    assert player.played_seconds(3.0) == 0
    player.show(1, 10.0, audio_complete=None)
    player.show(2, 10.1, audio_complete=None)
    assert player.played_seconds(10.0) == 0
    assert player.played_seconds(10.0 + BUFFER_SECONDS + 1.0) == pytest.approx(1.0)
    assert player.played_seconds(99.0) == pytest.approx(2 * CHUNK)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_the_time_stood_still_is_the_sum_of_what_was_late(arrivals: list[float]) -> None:
    player = Player(buffer_seconds=BUFFER_SECONDS)
    ordered = sorted(arrivals)
    late = [player.show(i, at, audio_complete=None) for i, at in enumerate(ordered, 1)]
    assert player.stalled_seconds == pytest.approx(sum(late))
    assert player.due == pytest.approx(ordered[0] + BUFFER_SECONDS + CHUNK * len(ordered) + sum(late))
