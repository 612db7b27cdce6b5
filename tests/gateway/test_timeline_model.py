"""Any order of events: the rules that hold at every moment of a session."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.audio_format import PcmFormat
from gateway.timeline import StarvedNotice, Timeline, TimelineChunk, TimelineRules, UtteranceEndedNotice
from tests.gateway.strategies import S16, noise_pcm

RATE_8K = PcmFormat(S16, 8_000, 1)


class TimelineMachine(RuleBasedStateMachine):
    """Feeds, ends, interrupts, finishes chunks and lets time pass in any order."""

    @initialize(live=st.booleans(), fill=st.booleans(), window=st.integers(1, 3))
    def open(self, live: bool, fill: bool, window: int) -> None:
        self.rules_ = TimelineRules(live, fill, window, 30, 0.5, 0.4, 0.2)
        self.now = 0.0
        self.timeline = Timeline(RATE_8K, self.rules_, self.now)
        self.epoch = 1
        self.issued = 0
        self.in_flight: list[TimelineChunk] = []
        self.finished: list[int] = []
        self.ended: list[int] = []
        self.ending = False

    @precondition(lambda self: not self.ending)
    @rule(seconds=st.floats(0.001, 2))
    def feed(self, seconds: float) -> None:
        self.timeline.feed(noise_pcm(RATE_8K, max(1, int(seconds * 8_000)), 1), self.now)

    @precondition(lambda self: not self.ending)
    @rule()
    def end_utterance(self) -> None:
        self.timeline.end_utterance(self.now)

    @precondition(lambda self: not self.ending)
    @rule()
    def interrupt(self) -> None:
        self.epoch += 1
        assert self.timeline.interrupt(self.now) == self.epoch
        assert self.timeline.pending_seconds == 0

    @precondition(lambda self: not self.ending)
    @rule()
    def end_audio(self) -> None:
        self.ending = True
        self.timeline.end_audio(self.now)

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        wake_at = self.timeline.wake_at()
        if wake_at is not None and self.now + seconds < wake_at:
            assert self.advance_to(self.now + seconds) == []
        else:
            self.advance_to(self.now + seconds)

    @precondition(lambda self: self.in_flight)
    @rule()
    def finish_chunk(self) -> None:
        chunk = self.in_flight.pop(0)
        self.timeline.first_frame_written(chunk, self.now)
        self.timeline.chunk_finished(chunk.chunk_index)
        self.finished.append(chunk.chunk_index)

    def advance_to(self, now: float) -> list[object]:
        # What was possible at the old moment is done before time passes.
        self.advance()
        self.now = now
        return self.advance()

    @invariant()
    def settle(self) -> None:
        if hasattr(self, "timeline"):
            self.advance()

    def advance(self) -> list[object]:
        speech_waits = self.timeline.pending_seconds > 0
        outputs = self.timeline.advance(self.now)
        for output in outputs:
            assert output.epoch == self.epoch
            if isinstance(output, TimelineChunk):
                self.issued += 1
                assert output.chunk_index == self.issued
                if output.idle:
                    assert self.rules_.live_when_idle
                    assert [self.ending, bool(self.in_flight), speech_waits] == [False] * 3
                self.in_flight.append(output)
            elif isinstance(output, UtteranceEndedNotice):
                assert output.last_chunk_index in self.finished
                assert output.utterance_id not in self.ended
                self.ended.append(output.utterance_id)
            else:
                assert isinstance(output, StarvedNotice)
                assert output.chunk_index == self.issued + 1
                assert output.filled == self.rules_.fill_when_starved
        assert len(self.in_flight) == self.timeline.chunks_in_flight <= self.rules_.window_chunks
        assert self.timeline.advance(self.now) == []
        wake_at = self.timeline.wake_at()
        assert wake_at is None or wake_at > self.now
        return list(outputs)

    def teardown(self) -> None:
        if not hasattr(self, "timeline"):
            return
        if not self.ending:
            self.end_audio()
        for _ in range(200):
            self.advance()
            if not self.in_flight:
                break
            self.finish_chunk()
        self.advance()
        assert self.timeline.finished
        assert self.timeline.pending_seconds == 0
        assert self.ended == sorted(self.ended)


TimelineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTimelineMachine = TimelineMachine.TestCase
