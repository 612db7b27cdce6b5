"""Figures and verdicts of a run, from hand-made histories."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.bench.histories import good_run, over, seen
from visavis.bench.json_file import write_json
from visavis.bench.load_events import ChunksMissing, ClientHealth, InterruptionSeen, SessionStarted
from visavis.bench.load_figures import SloLimits, broken_promises, load_bins, load_figures, running_sessions
from visavis.bench.load_tally import MAX_REASONS, OTHER_REASONS, LoadTally

LIMITS = SloLimits(in_time_share=0.99, chunk_p95_seconds=None, first_frame_p95_seconds=None)


def test_a_good_run_keeps_every_promise() -> None:
    figures = load_figures(good_run())
    assert broken_promises(figures, LIMITS) == []
    assert (figures.chunks, figures.late_chunks, figures.most_sessions) == (200, 0, 2)
    assert figures.sessions == {"completed": 2, "rejected": 0, "failed": 0, "stopped": 0}
    assert figures.chunk_seconds.p99 == 0.3
    assert figures.first_frame_seconds.count == 2
    assert figures.session_seconds == pytest.approx(200)
    assert figures.received_bytes == 200_000
    assert not figures.client_was_bottleneck


def test_one_late_chunk_in_a_hundred_is_kept_and_two_are_not() -> None:
    tally = good_run(sessions=1, chunks=99)
    tally.add(seen(100, 0.9, late=0.5))
    assert broken_promises(load_figures(tally), LIMITS) == []
    tally.add(seen(101, 0.9, late=0.5))
    assert "2 of 101 chunks late" in broken_promises(load_figures(tally), LIMITS)[0]


def test_chunks_that_never_came_are_late() -> None:
    tally = good_run(sessions=1)
    tally.add(ChunksMissing(100.0, (5.0, 4.0)))
    figures = load_figures(tally)
    assert (figures.missing_chunks, figures.late_chunks, figures.chunks) == (2, 2, 102)
    assert figures.chunk_seconds.maximum == 5.0
    assert figures.video_seconds == pytest.approx(96.0)


def test_rejected_and_failed_sessions_break_a_promise_by_reason() -> None:
    tally = good_run()
    tally.add(over(1, "rejected", "RESOURCE_EXHAUSTED CAPACITY_EXHAUSTED", started=False))
    tally.add(over(2, "failed", "UNAVAILABLE", started=False))
    tally.lose(3, "a client process ended with exit code -9")
    figures = load_figures(tally)
    assert figures.reasons["a client process ended with exit code -9"] == 3
    assert [text.split(":")[0] for text in broken_promises(figures, LIMITS)] == [
        "1 session(s) rejected",
        "4 session(s) failed",
    ]


def test_reasons_do_not_grow_without_end() -> None:
    tally = LoadTally()
    for number in range(3 * MAX_REASONS):
        tally.add(over(0, "failed", f"reason {number}", started=False))
    assert len(tally.reasons) == MAX_REASONS + 1
    assert tally.reasons[OTHER_REASONS] == 2 * MAX_REASONS


def test_a_run_without_a_chunk_keeps_nothing() -> None:
    assert broken_promises(load_figures(LoadTally()), LIMITS) == ["no chunk came"]


def test_the_other_promises_count_when_they_are_made() -> None:
    strict = SloLimits(0.99, chunk_p95_seconds=0.25, first_frame_p95_seconds=0.2)
    broken = broken_promises(load_figures(good_run()), strict)
    assert broken == ["chunk latency p95 300 ms, over 250 ms", "first frame p95 300 ms, over 200 ms"]


def test_a_client_that_is_often_too_slow_says_so() -> None:
    tally = good_run()
    for second in range(10):
        tally.add(ClientHealth(second + 10.0, 1, 0.001, 0.03 if second else 0.0, 0.5))
    assert [client.was_bottleneck for client in load_figures(tally).clients] == [False, True]


def test_interruptions_and_starts_have_their_percentiles() -> None:
    tally = good_run()
    tally.add(InterruptionSeen(5.0, 0.12))
    figures = load_figures(tally)
    assert figures.interruption_seconds.p50 == 0.12
    assert figures.start_seconds.p99 == 0.05


def test_the_run_in_pieces_shows_when_it_was() -> None:
    tally = good_run(sessions=1, chunks=10)
    tally.add(seen(9.5, 0.4, late=0.1))
    bins = load_bins(tally)
    assert len(bins) == 10
    assert [each.sessions for each in bins] == [1] * 10
    assert bins[0].chunk_p50_seconds is None
    assert bins[9].chunks == 3
    assert bins[9].late_share == pytest.approx(1 / 3)


def test_sessions_are_counted_from_start_to_end() -> None:
    tally = LoadTally()
    for begin, end in ((0.0, 5.0), (2.0, 3.0)):
        tally.add(SessionStarted(begin, 0.0))
        tally.add(over(end))
    assert running_sessions(tally.running) == [(0.0, 1), (2.0, 2), (3.0, 1), (5.0, 0)]
    assert tally.sessions_running == 0


def test_figures_that_do_not_exist_are_null_in_json(tmp_path: Path) -> None:
    write_json(load_figures(LoadTally()), tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["in_time_share"] is None
    assert set(found) == {field.name for field in dataclasses.fields(load_figures(LoadTally()))}
