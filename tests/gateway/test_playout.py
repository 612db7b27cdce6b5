"""The clock of the client's player."""

from gateway.playout import PlayoutClock

CHUNK = 0.96


def late_chunks(period_seconds: float, count: int) -> int:
    """How many of `count` chunks are late that are written every `period_seconds`."""
    clock = PlayoutClock(CHUNK)
    return sum(clock.write(period_seconds * number) for number in range(count))


def test_a_server_in_real_time_is_never_late() -> None:
    assert late_chunks(CHUNK, 100) == 0
    assert late_chunks(0.9, 100) == 0


def test_a_server_that_is_a_little_too_slow_is_late_in_the_end() -> None:
    """2 % are 19 ms a chunk: every third or so uses up the one frame that players buffer."""
    assert 20 <= late_chunks(1.02 * CHUNK, 100) <= 50


def test_jitter_within_a_frame_is_not_late() -> None:
    clock = PlayoutClock(CHUNK)
    jitter = (0.0, 0.03, 0.0, 0.02, 0.035, 0.0)
    assert [clock.write(CHUNK * number + shift) for number, shift in enumerate(jitter)] == [False] * 6
