"""Any order of events: the rules that hold at every moment of a session, also when it goes back, breaks and goes on."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.audio_format import PcmFormat
from gateway.input_position import InputPosition
from gateway.timeline import Timeline
from gateway.timeline_output import StarvedNotice, TimelineChunk, UtteranceEndedNotice
from gateway.timeline_rules import TimelineRules, TimelineStart
from tests.gateway.strategies import S16, noise_pcm

RATE_8K = PcmFormat(S16, 8_000, 1)
CHUNK = RATE_8K.samples_per_chunk


class TimelineMachine(RuleBasedStateMachine):
    """Feeds, ends, interrupts, finishes chunks, breaks off and lets time pass in any order.

    Keeps beside the timeline what a client would: everything it sent and the chunks it got.
    """

    @initialize(live=st.booleans(), fill=st.booleans(), window=st.integers(1, 3), paced=st.booleans())
    def open(self, live: bool, fill: bool, window: int, paced: bool) -> None:
        self.rules_ = TimelineRules(live, fill, window, 30 * 16_000, 0.5, 0.4, 0.2, 1.92 if paced else None)
        self.now = 0.0
        self.timeline = Timeline(RATE_8K, self.rules_, self.now)
        self.epoch = 1
        self.epoch_samples = 0
        self.sent = b""
        # Where in `sent` each utterance ended, by an end or by an interruption.
        self.ends: list[int] = []
        self.speaking = False
        self.in_flight: list[TimelineChunk] = []
        self.written: list[TimelineChunk] = []
        self.ended: list[int] = []
        self.ending = False
        self.again: TimelineChunk | None = None

    @precondition(lambda self: not self.ending)
    @rule(seconds=st.floats(0.001, 2))
    def feed(self, seconds: float) -> None:
        pcm = noise_pcm(RATE_8K, max(1, int(seconds * 8_000)), len(self.sent))
        self.sent += pcm
        self.speaking = True
        self.timeline.feed(pcm, self.now)

    @precondition(lambda self: not self.ending)
    @rule()
    def end_utterance(self) -> None:
        self._note_end()
        self.timeline.end_utterance(self.now)

    @precondition(lambda self: not self.ending)
    @rule(back=st.integers(0, 3), unplayed=st.none() | st.floats(0, 0.96))
    def interrupt(self, back: int, unplayed: float | None) -> None:
        border = max(0, len(self.written) - back)
        self._note_end()
        self.epoch += 1
        self.epoch_samples = len(self.sent) // 2
        playing_until = None if unplayed is None else self.now + unplayed
        assert self.timeline.interrupt(border, self.now, playing_until=playing_until) == self.epoch
        assert self.timeline.pending_seconds == 0
        assert self.timeline.used == InputPosition(len(self.sent) // 2, len(self.ends))
        del self.written[border:]
        self.in_flight.clear()
        self.again = None

    @precondition(lambda self: not self.ending)
    @rule()
    def end_audio(self) -> None:
        self.ending = True
        self._note_end()
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
        self.written.append(chunk)

    @precondition(lambda self: not self.ending)
    @rule(lost=st.integers(0, 2), in_part=st.booleans())
    def break_off_and_resume(self, lost: int, in_part: bool) -> None:
        """The client has not received the last chunks, but maybe the first frames of the one behind."""
        issued = [chunk for chunk in self.written if chunk.epoch == self.epoch] + self.in_flight
        got = max(0, len([chunk for chunk in self.written if chunk.epoch == self.epoch]) - lost)
        older = [chunk for chunk in self.written if chunk.epoch != self.epoch]
        self.written = older + issued[:got]
        self.again = issued[got] if in_part and got < len(issued) else None
        self.in_flight.clear()
        position = self.written[-1].position if got else self._epoch_start()
        self.timeline = Timeline(RATE_8K, self.rules_, self.now, self._start(position))
        self._send_again(position)

    def _epoch_start(self) -> InputPosition:
        return InputPosition(self.epoch_samples, len([end for end in self.ends if end <= self.epoch_samples]))

    def _start(self, position: InputPosition) -> TimelineStart:
        bounds = [0, *self.ends, len(self.sent) // 2]
        begun = bounds[position.utterances] < position.samples
        again = self.again.position if self.again is not None else None
        return TimelineStart(self.epoch, len(self.written), position, begun, again)

    def _send_again(self, position: InputPosition) -> None:
        at = position.samples
        for end in self.ends[position.utterances :]:
            if end > at:
                self.timeline.feed(self.sent[2 * at : 2 * end], self.now)
            self.timeline.end_utterance(self.now)
            at = max(at, end)
        if 2 * at < len(self.sent):
            self.timeline.feed(self.sent[2 * at :], self.now)

    def _note_end(self) -> None:
        if self.speaking:
            self.ends.append(len(self.sent) // 2)
        self.speaking = False

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
        outputs = self.timeline.advance(self.now)
        for output in outputs:
            assert output.epoch == self.epoch
            if isinstance(output, TimelineChunk):
                self._check_chunk(output)
                self.in_flight.append(output)
            elif isinstance(output, UtteranceEndedNotice):
                assert output.last_chunk_index <= len(self.written)
                assert output.utterance_id <= len(self.ends)
                self.ended.append(output.utterance_id)
            else:
                assert isinstance(output, StarvedNotice)
                assert output.chunk_index == len(self.written) + len(self.in_flight) + 1
                assert output.filled == self.rules_.fill_when_starved
        assert len(self.in_flight) <= self.rules_.window_chunks
        assert self.timeline.advance(self.now) == []
        wake_at = self.timeline.wake_at()
        assert wake_at is None or wake_at > self.now
        return list(outputs)

    def _check_chunk(self, chunk: TimelineChunk) -> None:
        before = [*self.written, *self.in_flight]
        assert chunk.chunk_index == len(before) + 1
        start = before[-1].position if before and before[-1].epoch == self.epoch else None
        used = start.samples if start is not None else self.epoch_samples
        spoken = self.sent[2 * used : 2 * chunk.position.samples]
        assert chunk.pcm == spoken.ljust(2 * CHUNK, b"\0"), "its input, once and in order, then silence"
        assert chunk.position.utterances <= len(self.ends)
        if start is not None:
            assert chunk.position.utterances >= start.utterances
        if chunk.idle:
            assert self.rules_.live_when_idle
            assert chunk.position.samples == used
        else:
            assert chunk.position.samples > used
        if self.again is not None:
            again, self.again = self.again, None
            assert (chunk.pcm, chunk.position, chunk.idle) == (again.pcm, again.position, again.idle), "as it was"

    def teardown(self) -> None:
        if not hasattr(self, "timeline"):
            return
        if not self.ending:
            self.end_audio()
        for _ in range(400):
            self.advance_to(self.now + 1)
            if not self.in_flight and self.timeline.finished:
                break
            if self.in_flight:
                self.finish_chunk()
        assert self.timeline.finished
        assert self.timeline.pending_seconds == 0
        if self.written and self.written[-1].epoch == self.epoch:
            assert self.written[-1].position.samples == len(self.sent) // 2


TimelineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestTimelineMachine = TimelineMachine.TestCase
