from services.inbox import Inbox, stage_timing
from visavis.v1 import chunk_pb2


def header(index: int, milliseconds_left: int) -> chunk_pb2.ChunkHeader:
    made = chunk_pb2.ChunkHeader(chunk_index=index)
    made.time_to_deadline.FromMilliseconds(milliseconds_left)
    return made


def test_chunks_leave_in_the_order_they_came() -> None:
    inbox = Inbox[str]()
    inbox.put(header(1, 500), "first", arrival_seconds=10.0)
    inbox.put(header(2, 100), "second", arrival_seconds=11.0)
    assert [inbox.take().payload for _ in range(2)] == ["first", "second"]
    assert inbox.candidate("a") is None


def test_the_deadline_counts_from_the_arrival() -> None:
    inbox = Inbox[str]()
    inbox.put(header(1, 500), "chunk", arrival_seconds=10.0)
    candidate = inbox.candidate("a")
    assert candidate is not None
    assert (candidate.session_id, candidate.deadline_seconds, candidate.arrival_seconds) == ("a", 10.5, 10.0)


def test_a_deadline_may_have_passed_already() -> None:
    inbox = Inbox[str]()
    inbox.put(header(1, -1500), "late", arrival_seconds=10.0)
    candidate = inbox.candidate("a")
    assert candidate is not None
    assert candidate.deadline_seconds == 8.5


def test_a_missing_deadline_means_due_at_once() -> None:
    inbox = Inbox[str]()
    inbox.put(chunk_pb2.ChunkHeader(), "chunk", arrival_seconds=3.0)
    candidate = inbox.candidate("a")
    assert candidate is not None
    assert candidate.deadline_seconds == 3.0


def test_timing_is_the_difference_of_clock_readings() -> None:
    timing = stage_timing(arrival_seconds=1.0, start_seconds=1.25, end_seconds=3.0)
    assert timing.queued.ToMilliseconds() == 250
    assert timing.computed.ToMilliseconds() == 1750
