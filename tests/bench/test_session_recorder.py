"""What one caller notices."""

from dataclasses import replace

import pytest

from tests.bench.histories import RATE_HZ, segment
from visavis.bench.conversation import PlannedUtterance
from visavis.bench.load_events import ChunkSeen
from visavis.bench.playout import BUFFER_SECONDS
from visavis.bench.session_recorder import SessionRecorder
from visavis.client import AudioFormat
from visavis.contract import CHUNK_SECONDS

FIRST_COMPLETE = 10.0 + CHUNK_SECONDS + 0.08


def recorder(*utterances: PlannedUtterance) -> SessionRecorder:
    made = SessionRecorder(AudioFormat.s16(RATE_HZ), buffer_seconds=BUFFER_SECONDS)
    for utterance in utterances or (PlannedUtterance(0, 10.0, 3 * CHUNK_SECONDS, None),):
        made.speech_begins(utterance)
    return made


def test_a_chunk_waits_from_the_planned_end_of_its_audio_to_its_first_frame() -> None:
    books = recorder()
    assert books.segment(segment(1, count=10), 11.5) is None
    chunk = books.segment(segment(1, first=10, count=14), 11.9)
    assert chunk is not None
    assert chunk.wait_seconds == pytest.approx(11.5 - FIRST_COMPLETE)
    assert (chunk.first, chunk.moment, chunk.late_seconds) == (True, 11.5, 0)
    assert chunk.received_bytes == 24 * (4 + 2 * 640)


def test_a_late_start_of_the_client_does_not_shorten_the_wait() -> None:
    """The plan counts, whenever the client got round to sending (coordinated omission)."""
    books = recorder()
    chunk = books.segment(segment(1), 60.0)
    assert chunk is not None
    assert chunk.wait_seconds == pytest.approx(60.0 - FIRST_COMPLETE)


def test_chunks_of_the_second_utterance_count_from_its_own_beginning() -> None:
    books = recorder(PlannedUtterance(0, 0, 1.5, None), PlannedUtterance(0, 5, 3.0, None))
    chunks = [books.segment(segment(index), index * 1.0) for index in (1, 2)]
    chunks.append(books.segment(segment(3, utterance_id=0), 4.0))
    chunks.append(books.segment(segment(4, utterance_id=2), 6.5))
    waits = [chunk.wait_seconds for chunk in chunks if isinstance(chunk, ChunkSeen)]
    assert waits == [pytest.approx(1.0 - 1.04), pytest.approx(2.0 - 1.5), None, pytest.approx(6.5 - 6.04)]
    assert [chunk.first for chunk in chunks if chunk] == [True, False, False, True]


def test_chunks_that_never_came_are_counted_with_the_time_they_were_waited_for() -> None:
    books = recorder()
    books.segment(segment(1), 11.2)
    missing = books.missing(20.0)
    assert missing is not None
    assert missing.waited_seconds == pytest.approx([20 - 10 - 2 * CHUNK_SECONDS - 0.08, 20 - 10 - 3 * CHUNK_SECONDS])
    assert books.missing(12.5) is None


def test_nothing_is_missed_of_what_was_interrupted() -> None:
    assert recorder(PlannedUtterance(0, 10.0, 30.0, interrupted_at=11.5)).missing(50.0) is None
    stuck = recorder(PlannedUtterance(0, 10.0, 30.0, interrupted_at=14.0)).missing(50.0)
    assert stuck is not None
    assert stuck.waited_seconds == pytest.approx([2.96, 2.0, 1.04])


def test_an_interruption_takes_until_it_is_confirmed_and_old_frames_are_told() -> None:
    books = recorder()
    books.segment(segment(1), 11.2)
    books.listener_breaks_in(11.6)
    books.segment(segment(2, count=5), 11.65)
    assert books.interrupted(2, 11.7).wait_seconds == pytest.approx(0.1)
    books.segment(segment(2, first=5, count=5), 11.8)
    assert books.stale_frames == 5
    assert books.segment(segment(4, utterance_id=0, epoch=2), 13.0) is not None
    assert books.missing_frames == 0


def test_a_gap_in_the_frames_is_noticed() -> None:
    books = recorder()
    books.segment(segment(1, count=10), 11.2)
    books.segment(segment(1, first=12, count=12), 11.3)
    assert books.missing_frames == 2


def test_drift_is_the_difference_of_the_two_clocks() -> None:
    books = recorder()
    books.segment(segment(1), 11.2)
    assert books.drift_seconds == pytest.approx(0, abs=1e-9)
    books.segment(replace(segment(2), presentation_seconds=1.0), 12.0)
    assert books.drift_seconds == pytest.approx(0.04)
    books.segment(replace(segment(3), pcm=b""), 13.0)
    assert books.drift_seconds == pytest.approx(CHUNK_SECONDS)
