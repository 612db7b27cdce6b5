"""Who talks from when to when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.bench.ramp import RampError, RampPoint, SessionInterval, parse_ramp, session_intervals


def test_seconds_mean_a_rise_and_a_plateau() -> None:
    points = parse_ramp("10", sessions=4, duration_seconds=30)
    assert points == (RampPoint(0, 0), RampPoint(10, 4), RampPoint(40, 4))
    assert [each.begin for each in session_intervals(points)] == [1.25, 3.75, 6.25, 8.75]
    assert {each.end for each in session_intervals(points)} == {40}


def test_a_ramp_of_no_time_starts_all_at_once() -> None:
    assert session_intervals(parse_ramp("0", sessions=3, duration_seconds=5)) == [SessionInterval(0, 5)] * 3


def test_a_schedule_may_fall_and_rise_again() -> None:
    points = parse_ramp("0:2,10:2,20:0,30:2,40:2", sessions=1, duration_seconds=1)
    assert session_intervals(points) == [
        SessionInterval(0, 17.5),
        SessionInterval(0, 12.5),
        SessionInterval(22.5, 40),
        SessionInterval(27.5, 40),
    ]


@pytest.mark.parametrize(
    "text",
    ["fast", "-3", "0:0", "5:1,9:2", "0:0,10", "0:0,10:x", "0:0,10:1.5", "0:3,10:-1", "0:0,9:1,8:2", "0:0,9:0", "nan"],
)
def test_nonsense_is_refused_in_words(text: str) -> None:
    with pytest.raises(RampError):
        parse_ramp(text, sessions=4, duration_seconds=30)


@given(
    st.lists(st.tuples(st.floats(0.5, 50), st.integers(0, 12)), min_size=1, max_size=6),
    st.integers(0, 12),
    st.floats(0, 1),
)
def test_at_every_time_as_many_run_as_the_schedule_says(
    pieces: list[tuple[float, int]], first: int, place: float
) -> None:
    points = [RampPoint(0, first)]
    for length, sessions in pieces:
        points.append(RampPoint(points[-1].seconds + length, sessions))
    if not any(point.sessions for point in points):
        return
    moment = place * points[-1].seconds
    later = next(index for index in range(1, len(points)) if points[index].seconds >= moment)
    one, two = points[later - 1], points[later]
    wanted = one.sessions + (two.sessions - one.sessions) * (moment - one.seconds) / (two.seconds - one.seconds)
    running = sum(each.begin <= moment < each.end for each in session_intervals(points))
    if moment < points[-1].seconds:
        assert abs(running - wanted) <= 0.5 + 1e-6
