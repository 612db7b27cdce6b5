"""The session's timeline: what becomes a chunk, when, and with which sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audio_format import PcmFormat
from gateway.input_position import InputPosition
from gateway.resampling import SpeechResampler
from gateway.timeline import Timeline
from gateway.timeline_output import Output, StarvedNotice, TimelineChunk, UtteranceEndedNotice
from gateway.timeline_rules import TimelineRules, TimelineStart
from tests.gateway.strategies import S16, cut, noise_pcm, pcm_formats
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.errors import InvalidInput

RENDER = TimelineRules(
    live_when_idle=False,
    fill_when_starved=False,
    window_chunks=3,
    speech_buffer_bytes=30 * 32_000,
    idle_lead_seconds=0.5,
    idle_start_seconds=0.4,
    starvation_grace_seconds=0.2,
)
LIVE = replace(RENDER, live_when_idle=True)
FILL = replace(RENDER, fill_when_starved=True)
MONO_16K = PcmFormat(S16, 16_000, 1)
SECOND = noise_pcm(MONO_16K, 16_000, 7)


def chunks_of(outputs: list[Output]) -> list[TimelineChunk]:
    return [output for output in outputs if isinstance(output, TimelineChunk)]


def write_out(timeline: Timeline, now: float) -> list[Output]:
    """A pipeline that takes no time: writes every chunk the moment it is issued."""
    done: list[Output] = []
    while outputs := timeline.advance(now):
        done += outputs
        for chunk in chunks_of(outputs):
            timeline.first_frame_written(chunk, now)
            timeline.chunk_finished(chunk.chunk_index)
    return done


def heard(audio_format: PcmFormat, pcm: bytes) -> np.ndarray:
    resampler = SpeechResampler(audio_format.sample_rate_hz)
    parts = [resampler.feed(audio_format.mono(block)) for block in cut(pcm, audio_format, [])]
    return np.concatenate([*parts, resampler.finish()])


@given(
    audio_format=pcm_formats(),
    utterances=st.lists(
        st.tuples(st.floats(0.001, 3.5), st.lists(st.floats(0, 1), max_size=6)), min_size=1, max_size=3
    ),
    window=st.integers(1, 4),
)
@settings(deadline=None, max_examples=40)
def test_chunks_are_the_speech_whatever_the_packets(
    audio_format: PcmFormat, utterances: list[tuple[float, list[float]]], window: int
) -> None:
    timeline = Timeline(audio_format, replace(RENDER, window_chunks=window), now=0)
    outputs: list[Output] = []
    expected: list[tuple[int, bytes, np.ndarray]] = []
    for number, (seconds, borders) in enumerate(utterances, start=1):
        samples = max(1, round(seconds * audio_format.sample_rate_hz))
        pcm = noise_pcm(audio_format, samples, number)
        expected.append((number, pcm, heard(audio_format, pcm)))
        for block in cut(pcm, audio_format, borders):
            timeline.feed(block, now=0)
            outputs += write_out(timeline, now=0)
        timeline.end_utterance(now=0)
    timeline.end_audio(now=0)
    outputs += write_out(timeline, now=0)

    assert timeline.finished
    chunks = chunks_of(outputs)
    assert [chunk.chunk_index for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert not [output for output in outputs if isinstance(output, StarvedNotice) and output.filled]
    last = 0
    for utterance_id, pcm, speech in expected:
        mine = [chunk for chunk in chunks if chunk.utterance_id == utterance_id]
        assert len(mine) == -(-len(pcm) // audio_format.bytes_per_sample // audio_format.samples_per_chunk)
        assert b"".join(chunk.pcm for chunk in mine).rstrip(b"\0") == pcm.rstrip(b"\0")
        assert all(len(chunk.pcm) == audio_format.samples_per_chunk * audio_format.bytes_per_sample for chunk in mine)
        padded = np.pad(speech, (0, 15_360 * (len(mine) + 1) - len(speech)))
        for number, chunk in enumerate(mine):
            np.testing.assert_array_equal(chunk.samples_S, padded[15_360 * number :][:15_360])
            lookahead = np.pad(chunk.lookahead_S, (0, 1_280 - len(chunk.lookahead_S)))
            np.testing.assert_array_equal(lookahead, padded[15_360 * (number + 1) :][:1_280])
        last += len(mine)
        ended = UtteranceEndedNotice(1, utterance_id, last)
        assert outputs.count(ended) == 1
        assert outputs.index(ended) > outputs.index(mine[-1])


def test_a_chunk_is_issued_with_its_samples_and_80_ms_more() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(noise_pcm(MONO_16K, 15_360 + 1_279, 1), now=1)
    assert timeline.advance(now=1) == []
    timeline.feed(noise_pcm(MONO_16K, 1, 2), now=2)
    (chunk,) = chunks_of(timeline.advance(now=3))
    assert (chunk.chunk_index, chunk.utterance_id, chunk.epoch, chunk.ready_at) == (1, 1, 1, 2)
    assert len(chunk.lookahead_S) == 1_280


def test_the_end_of_an_utterance_makes_the_rest_ready() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(SECOND, now=1)
    timeline.end_utterance(now=2)
    first, second = chunks_of(timeline.advance(now=2))
    assert first.ready_at == second.ready_at == 2
    assert not second.samples_S[640:].any()
    assert len(second.lookahead_S) == 0


def test_ends_without_speech_change_nothing() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.end_utterance(now=0)
    timeline.end_utterance(now=0)
    assert timeline.advance(now=0) == []
    timeline.end_audio(now=0)
    assert timeline.advance(now=0) == []
    assert timeline.finished


def test_refused_audio_leaves_no_trace() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    with pytest.raises(InvalidInput):
        timeline.feed(b"\0", now=0)
    timeline.feed(SECOND, now=0)
    timeline.end_audio(now=0)
    assert [chunk.utterance_id for chunk in chunks_of(timeline.advance(now=0))] == [1, 1]


def test_the_window_holds_chunks_back_until_frames_are_written() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    for _ in range(6):
        timeline.feed(SECOND, now=0)
    assert len(timeline.advance(now=0)) == 3
    assert timeline.advance(now=9) == []
    timeline.chunk_finished(1)
    assert [chunk.chunk_index for chunk in chunks_of(timeline.advance(now=9))] == [4]


def test_a_full_buffer_stops_reading_and_a_taken_chunk_resumes_it() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    for _ in range(30):
        assert timeline.accepts_audio
        timeline.feed(SECOND, now=0)
    assert not timeline.accepts_audio
    timeline.advance(now=0)
    assert timeline.accepts_audio


# Interruption ---------------------------------------------------------------------------------------------------------


def test_an_interruption_goes_back_to_a_border_and_drops_what_is_behind_it() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    for _ in range(6):
        timeline.feed(SECOND, now=0)
    first, second, _ = chunks_of(timeline.advance(now=0))
    for chunk in (first, second):
        timeline.first_frame_written(chunk, now=0)
        timeline.chunk_finished(chunk.chunk_index)
    assert len(timeline.advance(now=0)) == 2, "three are in flight again"
    assert timeline.interrupt(1, now=1) == 2
    assert timeline.pending_seconds == 0
    timeline.feed(SECOND, now=1)
    timeline.end_utterance(now=1)
    after = chunks_of(timeline.advance(now=1))
    assert [(c.epoch, c.utterance_id, c.chunk_index) for c in after] == [(2, 2, 2), (2, 2, 3)]
    assert [c.position for c in after] == [InputPosition(96_000 + 15_360, 1), InputPosition(112_000, 2)]
    assert not timeline.first_frame_written(second, now=2), "it belongs to the old epoch"


def test_a_live_face_shuts_its_mouth_at_once() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    for _ in range(6):
        timeline.feed(SECOND, now=0)
    (first, *_) = chunks_of(timeline.advance(now=0))
    timeline.first_frame_written(first, now=0)
    timeline.chunk_finished(1)
    timeline.interrupt(1, now=0.3, playing_until=0.96)
    (idle,) = chunks_of(timeline.advance(now=0.5))
    assert (idle.idle, idle.chunk_index, idle.position) == (True, 2, InputPosition(96_000, 1))
    assert idle.due_at == pytest.approx(0.96), "behind what the client still plays of the chunk"


def test_an_interrupted_session_can_end() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(SECOND, now=0)
    timeline.interrupt(0, now=0)
    timeline.end_audio(now=0)
    assert timeline.advance(now=0) == []
    assert timeline.finished


# Going on in the middle -----------------------------------------------------------------------------------------------


def resumed(rules: TimelineRules, **start: object) -> Timeline:
    values: dict[str, object] = {"epoch": 3, "chunk_index": 7, "position": InputPosition(50_000, 2)}
    return Timeline(MONO_16K, rules, now=0, start=TimelineStart(**{**values, **start}))  # type: ignore[arg-type]


def test_a_resumed_timeline_goes_on_behind_its_border() -> None:
    timeline = resumed(RENDER)
    timeline.feed(SECOND, now=0)
    timeline.end_utterance(now=0)
    chunks = chunks_of(timeline.advance(now=0))
    assert [(c.epoch, c.utterance_id, c.chunk_index) for c in chunks] == [(3, 3, 8), (3, 3, 9)]
    assert [c.position for c in chunks] == [InputPosition(65_360, 2), InputPosition(66_000, 3)]


def test_the_end_of_an_utterance_used_before_the_resumption_is_told() -> None:
    timeline = resumed(RENDER, in_utterance=True)
    assert timeline.advance(now=0) == []
    timeline.end_utterance(now=0)
    assert timeline.advance(now=0) == [UtteranceEndedNotice(3, 3, 7)]
    timeline.feed(SECOND, now=0)
    timeline.end_audio(now=0)
    assert chunks_of(timeline.advance(now=0))[0].utterance_id == 4


def test_an_interruption_ends_an_utterance_begun_before_the_resumption() -> None:
    for in_utterance in (False, True):
        timeline = resumed(RENDER, in_utterance=in_utterance)
        timeline.interrupt(7, now=0)
        assert timeline.used == InputPosition(50_000, 2 + in_utterance)


@pytest.mark.parametrize("samples", [1, 7_000, 15_359])
def test_a_filled_chunk_is_made_again_with_the_same_input(samples: int) -> None:
    again = InputPosition(50_000 + samples, 2)
    timeline = resumed(RENDER, in_utterance=True, again=again)
    timeline.feed(SECOND[: 2 * samples - 2], now=0) if samples > 1 else None
    assert chunks_of(timeline.advance(now=0)) == []
    timeline.feed(SECOND[max(0, 2 * samples - 2) :] + SECOND, now=0)
    first, second = chunks_of(timeline.advance(now=0))
    assert (first.chunk_index, first.position) == (8, again)
    assert first.pcm == SECOND[: 2 * samples].ljust(30_720, b"\0")
    assert second.pcm == (SECOND + SECOND)[2 * samples :][:30_720]
    assert len(first.lookahead_S) == 0


def test_a_last_chunk_is_made_again_when_its_end_has_come_again() -> None:
    timeline = resumed(RENDER, in_utterance=True, again=InputPosition(50_100, 3))
    timeline.feed(SECOND[:200], now=0)
    assert timeline.advance(now=0) == []
    timeline.end_utterance(now=0)
    (chunk,) = chunks_of(timeline.advance(now=0))
    assert (chunk.utterance_id, chunk.position) == (3, InputPosition(50_100, 3))


def test_an_idle_chunk_is_made_again_at_once() -> None:
    again = InputPosition(50_000, 3)
    timeline = resumed(LIVE, in_utterance=True, again=again)
    timeline.feed(SECOND + SECOND, now=0)
    first, second, _ = chunks_of(timeline.advance(now=0))
    assert (first.idle, first.chunk_index, first.position) == (True, 8, again)
    assert second.chunk_index == 9
    assert second.position.utterances == 3, "a position never falls"


def test_a_stopped_session_ends_with_what_is_in_flight() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    for _ in range(6):
        timeline.feed(SECOND, now=0)
    in_flight = chunks_of(timeline.advance(now=0))
    timeline.stop()
    for chunk in in_flight:
        assert not timeline.finished
        timeline.first_frame_written(chunk, now=0)
        timeline.chunk_finished(chunk.chunk_index)
        assert timeline.advance(now=9) == []
    assert timeline.finished


def test_paced_speech_stays_close_to_what_is_shown() -> None:
    timeline = Timeline(MONO_16K, replace(LIVE, speech_lead_seconds=2 * CHUNK_SECONDS), now=0)
    for _ in range(12):
        timeline.feed(SECOND, now=0)
    issued = [chunk.chunk_index for chunk in chunks_of(write_out(timeline, now=0))]
    assert issued == [1, 2, 3]
    assert timeline.wake_at() == pytest.approx(CHUNK_SECONDS)
    assert [chunk.chunk_index for chunk in chunks_of(write_out(timeline, now=CHUNK_SECONDS + 1e-6))] == [4]


# Silence --------------------------------------------------------------------------------------------------------------


def test_a_paused_face_sends_nothing_without_speech() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    assert timeline.advance(now=1e6) == []
    assert timeline.wake_at() is None


def test_a_live_face_lives_in_real_time() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    issued = []
    now = 0.0
    while now < 60:
        wake_at = timeline.wake_at()
        assert wake_at is not None
        assert timeline.advance(np.nextafter(wake_at, -1)) == []
        now = wake_at
        issued += [(now, chunk) for chunk in chunks_of(write_out(timeline, now))]
    assert all(chunk.idle and not chunk.samples_S.any() and not any(chunk.pcm) for _, chunk in issued)
    # The first comes before anything plays, the lead counts for those behind it.
    assert issued[0][0] == LIVE.idle_start_seconds
    steps = np.diff([at for at, _ in issued])
    assert steps[0] == pytest.approx(CHUNK_SECONDS - LIVE.idle_lead_seconds)
    np.testing.assert_allclose(steps[1:], CHUNK_SECONDS)


def test_speech_takes_the_place_of_an_idle_chunk_not_yet_started() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    timeline.feed(SECOND, now=0.39)
    assert timeline.advance(now=0.4) == []
    timeline.end_utterance(now=0.5)
    assert [chunk.utterance_id for chunk in chunks_of(timeline.advance(now=0.5))] == [1, 1]


def test_an_idle_chunk_waits_for_an_empty_pipeline() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    (idle,) = chunks_of(timeline.advance(now=1))
    assert timeline.advance(now=60) == []
    timeline.first_frame_written(idle, now=60)
    timeline.chunk_finished(1)
    assert len(chunks_of(timeline.advance(now=60.9))) == 1


def test_no_idle_chunk_after_the_end_of_audio() -> None:
    timeline = Timeline(MONO_16K, LIVE, now=0)
    timeline.end_audio(now=0)
    assert timeline.advance(now=100) == []
    assert timeline.wake_at() is None


# Starvation -----------------------------------------------------------------------------------------------------------


def test_waiting_for_speech_is_told_once() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(SECOND, now=1)
    assert timeline.wake_at() == 1.2
    assert timeline.advance(now=1.19) == []
    assert timeline.advance(now=1.2) == [StarvedNotice(1, 1, 1, filled=False)]
    timeline.feed(noise_pcm(MONO_16K, 10, 1), now=2)
    assert timeline.advance(now=100) == []
    assert timeline.wake_at() is None
    timeline.end_utterance(now=101)
    assert len(write_out(timeline, now=101)) == 3


def test_speech_still_in_the_player_is_no_starvation() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(SECOND, now=0)
    timeline.feed(SECOND, now=0)
    timeline.feed(SECOND[:-2_000], now=0)
    # Without its last 1000 samples the third chunk has no whole lookahead; the player has two, until 1.92.
    assert len(write_out(timeline, now=0)) == 2
    assert timeline.wake_at() == pytest.approx(1.92)
    assert timeline.advance(now=1.9) == []
    assert timeline.advance(now=1.93) == [StarvedNotice(1, 1, 3, filled=False)]


@given(
    audio_format=pcm_formats(),
    pieces=st.lists(st.floats(0.01, 2.5), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=40)
def test_filling_inserts_silence_only_and_loses_no_sample(audio_format: PcmFormat, pieces: list[float]) -> None:
    timeline = Timeline(audio_format, FILL, now=0)
    outputs: list[Output] = []
    spoken = b""
    now = 0.0
    for number, seconds in enumerate(pieces):
        samples = max(1, round(seconds * audio_format.sample_rate_hz))
        pcm = noise_pcm(audio_format, samples, number)
        spoken += pcm
        for block in cut(pcm, audio_format, []):
            timeline.feed(block, now)
        while timeline.pending_seconds:
            now += 10
            outputs += write_out(timeline, now)
    timeline.end_audio(now)
    outputs += write_out(timeline, now)
    chunks = chunks_of(outputs)
    assert timeline.finished
    assert outputs[-1] == UtteranceEndedNotice(1, 1, len(chunks))

    returned = iter(b"".join(chunk.pcm for chunk in chunks))
    for byte in spoken:
        while (got := next(returned)) != byte:
            assert got == 0
    filled = [output for output in outputs if isinstance(output, StarvedNotice)]
    assert all(notice.filled for notice in filled)
    assert len(chunks) <= sum(seconds / CHUNK_SECONDS + 1 for seconds in pieces)


def test_a_filled_chunk_comes_when_its_playout_is_due() -> None:
    timeline = Timeline(MONO_16K, FILL, now=0)
    timeline.feed(SECOND, now=0)
    timeline.feed(SECOND[:-1_000], now=0)
    (first,) = chunks_of(write_out(timeline, now=0))
    assert timeline.wake_at() == pytest.approx(CHUNK_SECONDS)
    starved, second = timeline.advance(now=CHUNK_SECONDS)
    assert starved == StarvedNotice(1, 1, 2, filled=True)
    assert isinstance(second, TimelineChunk)
    # It was whole but for its lookahead, so nothing was cut: what is left of the speech follows.
    assert first.pcm + second.pcm == (SECOND + SECOND)[: len(first.pcm + second.pcm)]
    assert timeline.pending_seconds == pytest.approx(2 - 500 / 16_000 - 2 * CHUNK_SECONDS)


def test_a_live_face_lives_on_in_a_filled_gap() -> None:
    timeline = Timeline(MONO_16K, replace(FILL, live_when_idle=True), now=0)
    timeline.feed(SECOND, now=0)
    kinds = []
    for tick in range(400):
        kinds += [chunk.idle for chunk in chunks_of(write_out(timeline, now=tick / 100))]
    assert kinds[:2] == [False, False]
    assert len(kinds) > 2
    assert all(kinds[2:])


# Playout --------------------------------------------------------------------------------------------------------------


def test_a_chunk_is_late_when_the_player_had_to_wait_for_it() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    for _ in range(4):
        timeline.feed(SECOND, now=0)
    first, second, third = chunks_of(timeline.advance(now=0))
    assert not timeline.first_frame_written(first, now=1)
    assert not timeline.first_frame_written(second, now=1.99), "within a frame"
    assert timeline.first_frame_written(third, now=3)


def test_the_first_chunk_after_a_pause_is_not_late() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    timeline.feed(SECOND, now=0)
    timeline.end_utterance(now=0)
    write_out(timeline, now=0)
    timeline.feed(SECOND, now=50)
    timeline.end_utterance(now=50)
    (chunk, _) = chunks_of(timeline.advance(now=50))
    assert chunk.due_at == 50
    assert not timeline.first_frame_written(chunk, now=51)


def test_chunks_are_due_one_behind_the_other() -> None:
    timeline = Timeline(MONO_16K, RENDER, now=0)
    for _ in range(4):
        timeline.feed(SECOND, now=5)
    assert [chunk.due_at for chunk in chunks_of(timeline.advance(now=5))] == pytest.approx([5, 5.96, 6.92])
