from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.pass_times import PassTimes
from services.scheduling import Candidate, by_urgency, keep_places, next_pass
from tests.services.simulated_device import CHUNK_SECONDS, Pace, Simulation

candidates = st.builds(
    Candidate,
    session_id=st.text(alphabet="abc", min_size=1, max_size=3),
    deadline_seconds=st.sampled_from([1.0, 2.0, 3.0]),
    arrival_seconds=st.sampled_from([0.0, 0.5]),
    started=st.booleans(),
    passes_left=st.integers(1, 9),
)
# Other processes may take the cores of the machine that this runs on for a while.
unhurried = settings(deadline=None, max_examples=60)
# From a device on which sharing a pass is for free to one on which it helps nothing, or even harms.
growths = st.lists(st.floats(1.0, 2.1), min_size=0, max_size=4)


def device(one: float, growth: list[float]) -> PassTimes:
    """Passes over 1, 2, 4, ... chunks; each takes so many times what the one before takes."""
    seconds = {1: one}
    for factor in growth:
        seconds[2 * max(seconds)] = seconds[max(seconds)] * factor
    return PassTimes(seconds)


ONE_BY_ONE = PassTimes({1: 0.1})
HALF_PRICE = PassTimes({1: 0.1, 2: 0.1, 4: 0.2})


def test_nothing_waits() -> None:
    assert next_pass([], HALF_PRICE, 4, 0.0) == []


@unhurried
@given(st.lists(candidates, min_size=1, unique_by=lambda one: one.session_id), growths, st.integers(1, 8))
def test_a_pass_takes_the_most_urgent_whatever_order_they_came_in(
    waiting: list[Candidate], growth: list[float], most: int
) -> None:
    order = by_urgency(waiting)
    chosen = next_pass(order, device(0.1, growth), most, 0.0)
    assert chosen == order[: len(chosen)]
    assert 1 <= len(chosen) <= most
    assert by_urgency(reversed(waiting)) == order
    assert order[0].due_seconds == min(one.due_seconds for one in waiting)
    rivals = [one for one in waiting if one.due_seconds == order[0].due_seconds]
    assert order[0].started or not any(one.started for one in rivals)


def test_a_started_chunk_goes_on_before_an_equal_one() -> None:
    fresh = Candidate("a", 1.0, 0.0, started=False)
    started = Candidate("b", 1.0, 0.5, started=True)
    assert next_pass(by_urgency([fresh, started]), ONE_BY_ONE, 8, 0.0) == [started]


def test_an_urgent_chunk_overtakes_a_started_one() -> None:
    urgent = Candidate("a", 1.0, 0.5, started=False)
    started = Candidate("b", 2.0, 0.0, started=True)
    assert next_pass(by_urgency([started, urgent]), ONE_BY_ONE, 8, 0.0) == [urgent]


def test_what_was_late_before_it_came_is_due_as_it_comes() -> None:
    long_waiting = Candidate("a", 1.0, 0.0, started=False)
    late = Candidate("b", -50.0, 2.0, started=False)
    assert by_urgency([late, long_waiting]) == [long_waiting, late]


def test_chunks_share_a_pass_where_that_is_sooner() -> None:
    waiting = by_urgency(Candidate(name, 5.0, 0.0, started=False, passes_left=4) for name in "abc")
    assert len(next_pass(waiting, HALF_PRICE, 8, 0.0)) == 3
    assert len(next_pass(waiting, HALF_PRICE, 2, 0.0)) == 2
    assert len(next_pass(waiting, HALF_PRICE, 1, 0.0)) == 1
    assert len(next_pass(waiting, PassTimes({1: 0.1, 2: 0.2}), 8, 0.0)) == 1


def test_a_batch_does_not_make_an_urgent_chunk_late() -> None:
    times = PassTimes({1: 0.1, 2: 0.15})
    urgent = Candidate("a", 0.45, 0.0, started=False, passes_left=4)
    other = Candidate("b", 5.0, 0.0, started=False, passes_left=4)
    assert next_pass([urgent, other], times, 8, 0.0) == [urgent]
    relaxed = Candidate("a", 0.65, 0.0, started=False, passes_left=4)
    assert next_pass([relaxed, other], times, 8, 0.0) == [relaxed, other]


def test_a_batch_may_save_the_second_from_being_later_than_the_first() -> None:
    times = PassTimes({1: 0.1, 2: 0.15})
    first, second = (Candidate(name, 0.5, 0.0, started=False, passes_left=4) for name in "ab")
    # Alone: 0.4 and 0.8. Together: both at 0.6.
    assert next_pass([first, second], times, 8, 0.0) == [first, second]


paces = st.builds(
    Pace,
    first_seconds=st.floats(0.0, 2.0),
    lead_seconds=st.floats(CHUNK_SECONDS, 3 * CHUNK_SECONDS),
    chunks=st.integers(1, 6),
)


@unhurried
@given(st.lists(paces, min_size=1, max_size=6), growths, st.integers(1, 9), st.floats(0.01, 0.1))
def test_no_deadline_is_missed_when_capacity_suffices(
    sessions: list[Pace], growth: list[float], passes: int, one: float
) -> None:
    times = device(one, growth)
    # The whole load, one by one, in 0.85 of the time.
    assume(len(sessions) * passes * one <= 0.85 * CHUNK_SECONDS)
    simulation = Simulation(sessions, times, passes, most=8)
    for number in range(len(sessions)):
        assert max(simulation.lateness(number)) <= max(times.of(width) for width in simulation.widths) + 1e-9


@unhurried
@given(st.lists(paces, min_size=1, max_size=8), st.floats(1.0, 1.3), st.integers(1, 9))
def test_a_device_that_is_fast_in_batches_keeps_as_many_as_it_can_only_together(
    sessions: list[Pace], factor: float, passes: int
) -> None:
    # One by one the sessions would take up to three times the time there is.
    times = device(1.0, [factor] * 3)
    scale = 0.85 * CHUNK_SECONDS / ((passes + 1) * times.of(len(sessions)))
    times = PassTimes({width: seconds * scale for width, seconds in times.seconds.items()})
    simulation = Simulation(sessions, times, passes, most=8)
    assert max(max(simulation.lateness(number)) for number in range(len(sessions))) <= 1e-9


@unhurried
@given(st.integers(2, 6), growths, st.integers(1, 9), st.floats(0.01, 0.5), st.integers(1, 8))
def test_sessions_of_one_pace_stay_within_one_chunk_of_each_other_even_in_overload(
    sessions: int, growth: list[float], passes: int, one: float, most: int
) -> None:
    simulation = Simulation([Pace(0.0, CHUNK_SECONDS, 4)] * sessions, device(one, growth), passes, most)
    assert simulation.spread <= 1
    assert all(session.done == 4 for session in simulation.sessions)


@unhurried
@given(st.lists(paces, min_size=1, max_size=4), growths, st.floats(1.0, 50.0), st.integers(1, 8))
def test_a_session_that_is_always_late_does_not_hold_the_others_up_for_good(
    sessions: list[Pace], growth: list[float], behind: float, most: int
) -> None:
    times, passes = device(0.2, growth), 4
    late = Pace(0.0, -behind, 40)
    simulation = Simulation([late, *sessions], times, passes, most)
    # Only what came until a chunk was due is ever before it: of the late session that is a chunk each 0.96 s.
    slowest = passes * max(times.of(width) / width for width in simulation.widths) * 2
    for session in simulation.sessions[1:]:
        for chunk in session.chunks:
            before = sum(
                other.due_seconds <= chunk.due_seconds and other.arrival_seconds <= chunk.due_seconds
                for each in simulation.sessions
                for other in each.chunks
            )
            assert chunk.done_seconds is not None
            assert chunk.done_seconds <= chunk.due_seconds + (before + 1) * slowest


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_who_stays_in_a_batch_keeps_its_rows_if_they_are_still_used(before: list[str], now: list[str]) -> None:
    places = keep_places(before, now)
    assert sorted(places) == sorted(now)
    for place, name in enumerate(before):
        if name in now and place < len(now):
            assert places[place] == name


def test_one_that_is_ahead_yields_to_one_that_is_about_to_stall() -> None:
    ahead, tight = Pace(0.0, 60.0, 3), Pace(0.05, 0.45, 3)
    simulation = Simulation([ahead, tight], PassTimes({1: 0.1, 2: 0.19}), 4, most=2)
    assert max(simulation.lateness(1)) <= 1e-9
    assert simulation.sessions[0].done == 3
