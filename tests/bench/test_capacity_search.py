"""The search for the most sessions that keep the promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.histories import good_run
from visavis.bench.capacity_search import SearchStep, find_capacity, next_sessions
from visavis.bench.load_figures import load_figures

GOOD = load_figures(good_run())


def step_of(true_capacity: int, sessions: int) -> SearchStep:
    return SearchStep(sessions, GOOD, () if sessions <= true_capacity else ("late",))


@given(st.integers(0, 300), st.integers(1, 300))
def test_it_finds_the_number_wherever_it_is(true_capacity: int, most: int) -> None:
    result = find_capacity(most, lambda sessions: step_of(true_capacity, sessions))
    assert result.sustained_sessions == min(true_capacity, most)
    assert result.reached_limit == (true_capacity >= most)
    assert len(result.steps) <= 2 * most.bit_length() + 1
    assert len({step.sessions for step in result.steps}) == len(result.steps)


def test_it_doubles_and_then_halves_the_gap() -> None:
    result = find_capacity(100, lambda sessions: step_of(11, sessions))
    assert [step.sessions for step in result.steps] == [1, 2, 4, 8, 16, 12, 10, 11]


@pytest.mark.parametrize(("kept", "broken", "expected"), [([], [], 1), ([1], [], 2), ([], [1], None), ([6], [], None)])
def test_it_knows_when_to_stop(kept: list[int], broken: list[int], expected: int | None) -> None:
    assert next_sessions(kept, broken, 6) == expected


def test_a_stopped_run_ends_the_search_and_counts_for_nothing() -> None:
    stopped = good_run()
    stopped.stopped = True
    result = find_capacity(8, lambda n: SearchStep(n, load_figures(stopped) if n == 4 else GOOD, ()))
    assert [step.sessions for step in result.steps] == [1, 2, 4]
    assert result.sustained_sessions == 2


def test_a_slow_client_makes_the_number_a_lower_bound() -> None:
    from visavis.bench.load_events import ClientHealth

    tally = good_run()
    for second in range(100):
        tally.add(ClientHealth(float(second), 1, 0.5, 0.5, 1.0))
    slow = load_figures(tally)
    result = find_capacity(4, lambda n: SearchStep(n, slow if n == 4 else GOOD, ("late",) if n == 4 else ()))
    assert result.client_was_bottleneck
