from hypothesis import given
from hypothesis import strategies as st

from services.scheduling import Candidate, next_chunk

candidates = st.builds(
    Candidate,
    session_id=st.text(alphabet="abc", min_size=1, max_size=3),
    deadline_seconds=st.sampled_from([1.0, 2.0, 3.0]),
    arrival_seconds=st.sampled_from([0.0, 0.5]),
    started=st.booleans(),
)


def test_nothing_waits() -> None:
    assert next_chunk([]) is None


@given(st.lists(candidates, min_size=1, unique_by=lambda one: one.session_id))
def test_the_earliest_deadline_goes_first_whatever_the_order(waiting: list[Candidate]) -> None:
    chosen = next_chunk(waiting)
    assert chosen is not None
    assert chosen.deadline_seconds == min(one.deadline_seconds for one in waiting)
    assert next_chunk(list(reversed(waiting))) == chosen
    rivals = [one for one in waiting if one.deadline_seconds == chosen.deadline_seconds]
    assert chosen.started or not any(one.started for one in rivals)


def test_a_started_chunk_goes_on_before_an_equal_one() -> None:
    fresh = Candidate("a", 1.0, 0.0, started=False)
    started = Candidate("b", 1.0, 0.5, started=True)
    assert next_chunk([fresh, started]) == started


def test_an_urgent_chunk_overtakes_a_started_one() -> None:
    urgent = Candidate("a", 1.0, 0.5, started=False)
    started = Candidate("b", 2.0, 0.0, started=True)
    assert next_chunk([started, urgent]) == urgent
