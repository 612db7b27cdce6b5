import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pass_times import PassTimes, measure_pass_times


class Device:
    """Passes take simulated time; the first of each number of sessions takes longer, as caches fill."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now = 0.0
        self.passes: list[int] = []
        self._seconds = seconds

    def run_pass(self, sessions: int) -> None:
        first = sessions not in self.passes
        self.passes.append(sessions)
        self.now += self._seconds[sessions] * (10 if first else 1)

    def measured(self, most: int, budget_seconds: float = 100.0) -> PassTimes:
        return measure_pass_times(self.run_pass, most, budget_seconds=budget_seconds, clock=lambda: self.now)


def test_each_doubling_is_measured_and_the_first_pass_of_each_is_not_counted() -> None:
    times = Device({1: 0.1, 2: 0.12, 4: 0.2, 8: 0.3}).measured(most=8)
    assert times.seconds == pytest.approx({1: 0.1, 2: 0.12, 4: 0.2, 8: 0.3})


def test_it_stops_where_more_sessions_make_nothing_faster() -> None:
    device = Device({1: 0.1, 2: 0.15, 4: 0.3, 8: 0.5})
    assert device.measured(most=8).widths == [1, 2, 4]


def test_it_stops_when_the_budget_is_used_up_but_always_knows_one() -> None:
    device = Device({1: 3.0, 2: 3.0})
    assert device.measured(most=2, budget_seconds=1.0).seconds == {1: 3.0}
    assert device.passes == [1, 1]


def test_more_than_the_limit_is_never_tried() -> None:
    assert Device({1: 0.1, 2: 0.1}).measured(most=3).widths == [1, 2]
    assert Device({1: 0.1}).measured(most=1).widths == [1]


def test_between_two_measured_numbers_time_grows_evenly() -> None:
    times = PassTimes({1: 0.1, 2: 0.2, 4: 0.3})
    assert [times.of(sessions) for sessions in (1, 2, 3, 4, 6)] == pytest.approx([0.1, 0.2, 0.25, 0.3, 0.4])
    assert PassTimes({1: 0.1}).of(3) == pytest.approx(0.3)


@given(st.floats(0.001, 1.0), st.lists(st.floats(1.0, 2.5), max_size=4))
def test_the_best_part_of_a_pass_never_gets_worse_with_more_sessions(one: float, growth: list[float]) -> None:
    seconds = {1: one}
    for factor in growth:
        seconds[2 * max(seconds)] = seconds[max(seconds)] * factor
    times = PassTimes(seconds)
    best = [times.best_seconds(sessions) for sessions in range(1, 20)]
    assert best == sorted(best, reverse=True)
    assert best[0] == one


@pytest.mark.parametrize("seconds", [{}, {2: 0.1}, {1: 0.0}, {0: 0.1, 1: 0.1}])
def test_times_that_cannot_be_are_refused(seconds: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="pass times"):
        PassTimes(seconds)
