"""The session's timeline as a state machine without clock or network: audio events in, chunks and notices out.

An utterance starts at a chunk border. Chunk i (the first is 1) holds samples [15360 (i - 1), 15360 i) at 16 kHz, which
are samples [N (i - 1), N i) of the client's, N = 24 rate / 25; each of its 24 frames owns rate / 25 of them.
Every method that needs the time takes it as `now`, seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gateway.audio_format import PcmFormat
from gateway.input_position import InputPosition
from gateway.playout import PlayoutClock
from gateway.timeline_output import Output, StarvedNotice, TimelineChunk, UtteranceEndedNotice
from gateway.timeline_rules import TimelineRules, TimelineStart
from gateway.utterance import SpeechSlice, Utterance
from visavis.contract import CHUNK_SAMPLES, CHUNK_SECONDS

_SILENCE_S: Final = np.zeros(CHUNK_SAMPLES, np.float32)
_NO_LOOKAHEAD_S: Final = np.zeros(0, np.float32)


class Timeline:
    """Decides which chunk comes next and when.

    Events: `feed`, `end_utterance`, `interrupt`, `end_audio`, `stop` from the client's side; `first_frame_written` and
    `chunk_finished` from the pipeline's. After any event, and at `wake_at`, `advance` gives what is to be done now.
    """

    def __init__(
        self, audio_format: PcmFormat, rules: TimelineRules, now: float, start: TimelineStart | None = None
    ) -> None:
        start = start or TimelineStart()
        self.epoch = start.epoch
        self.last_chunk_index = start.chunk_index
        self._format = audio_format
        self._rules = rules
        self._utterances: deque[Utterance] = deque()
        self._utterances_begun = start.position.utterances
        self._last_chunk_of: dict[int, int] = {}
        self._to_end: deque[UtteranceEndedNotice] = deque()
        self._in_flight: deque[int] = deque()
        self._unshown_chunks = 0
        self._clock = PlayoutClock(CHUNK_SECONDS)
        self._started_at = now
        self._last_audio_at = now
        self._starvation_told = False
        self._ending = False
        self._fed_samples = start.position.samples
        self._used = start.position
        self._break_off_at: int | None = None
        self._idle_again: InputPosition | None = None
        self._again = start.again
        self._begin_at(start)

    @property
    def pending_seconds(self) -> float:
        """Speech that no chunk has taken yet."""
        return self._pending_samples / self._format.sample_rate_hz

    @property
    def accepts_audio(self) -> bool:
        """False while the speech buffer is full: stop reading from the client."""
        return self._pending_samples * self._format.bytes_per_sample < self._rules.speech_buffer_bytes

    @property
    def speech_waits(self) -> bool:
        """Whether there is speech that could be issued and has to wait."""
        return self._head is not None and self._head.ready

    @property
    def ending(self) -> bool:
        """Whether nothing more is taken from the client."""
        return self._ending

    @property
    def finished(self) -> bool:
        """Whether audio has ended and everything that was pending has been written and told."""
        return self._ending and not self._utterances and not self._in_flight and not self._to_end

    @property
    def used(self) -> InputPosition:
        """What of the client's input lies before the next chunk."""
        return self._used

    def feed(self, pcm: bytes, now: float) -> None:
        """Speech of the open utterance; opens the next one where none is. Errors: `InvalidInput`, nothing kept."""
        assert not self._ending
        head, rest = self._before_break(pcm)
        utterance = self._open_utterance()
        if utterance is None:
            utterance = Utterance(self._utterances_begun + 1, self._format)
            utterance.feed(head, now)
            self._utterances_begun += 1
            self._utterances.append(utterance)
        else:
            utterance.feed(head, now)
        self._fed_samples += len(pcm) // self._format.bytes_per_sample
        self._last_audio_at = now
        if self._break_off_at is not None and self._fed_samples >= self._break_off_at:
            self._break_off_at = None
            utterance.break_off(now)
            if rest:
                utterance.feed(rest, now)

    def end_utterance(self, now: float) -> None:
        """The open utterance is complete; nothing happens where none is open."""
        utterance = self._open_utterance()
        if utterance is None:
            return
        utterance.close(now)
        if not utterance.pending_samples:
            self._utterances.remove(utterance)
            self._settle(utterance)

    def interrupt(self, border: int, now: float, *, playing_until: float | None = None) -> int:
        """Go back to the end of chunk `border` and drop what is behind it, in flight or pending; gives the new epoch.

        playing_until: when the client will have played up to the border; None: it has.
        """
        assert border <= self.last_chunk_index, "a session goes back, never ahead"
        self.epoch += 1
        self.last_chunk_index = border
        self._drop_pending()
        self._in_flight.clear()
        self._unshown_chunks = 0
        self._starvation_told = False
        self._used = InputPosition(self._fed_samples, max(self._utterances_begun, self._used.utterances))
        self._clock.stop(now if playing_until is None else playing_until)
        return self.epoch

    def end_audio(self, now: float) -> None:
        """No audio follows: the open utterance is complete, no idle chunk is issued any more."""
        self.end_utterance(now)
        self._ending = True

    def stop(self) -> None:
        """Nothing more is taken or issued, not even what is pending; what is in flight ends the session."""
        self._drop_pending()
        self._ending = True

    def first_frame_written(self, chunk: TimelineChunk, now: float) -> bool:
        """The client got the first frame of `chunk`. Gives whether it came too late to follow its predecessor."""
        if chunk.epoch != self.epoch:
            return False
        self._unshown_chunks -= 1
        return self._clock.write(now) and chunk.follows

    def chunk_finished(self, chunk_index: int) -> None:
        """All frames of a chunk of this epoch are on their way to the client; chunks finish in order."""
        finished = self._in_flight.popleft()
        assert finished == chunk_index, "chunks leave the pipeline in order"

    def advance(self, now: float) -> list[Output]:
        """Everything that is to be done at `now`, in order. Calling it again at once gives nothing."""
        outputs: list[Output] = list(self._ended_utterances())
        while (output := self._next_output(now)) is not None:
            outputs.append(output)
        return outputs

    def wake_at(self) -> float | None:
        """When to call `advance` again although nothing else happens; None where only an event changes anything."""
        if self._head is not None and self._head.ready:
            return self._speech_at() if self._window_open else None
        if self._in_flight:
            return None
        if self._starving and not self._starvation_told:
            return self._starved_at()
        return self._idle_at() if self._idling else None

    @property
    def _pending_samples(self) -> int:
        return self._fed_samples - self._used.samples

    @property
    def _head(self) -> Utterance | None:
        return next((u for u in self._utterances if u.pending_samples), None)

    @property
    def _window_open(self) -> bool:
        return len(self._in_flight) < self._rules.window_chunks

    @property
    def _starving(self) -> bool:
        head = self._head
        return head is not None and not head.ready

    @property
    def _idling(self) -> bool:
        return self._rules.live_when_idle and not self._ending and self._head is None

    def _begin_at(self, start: TimelineStart) -> None:
        if start.in_utterance:
            self._utterances_begun += 1
            self._utterances.append(Utterance(self._utterances_begun, self._format))
            self._last_chunk_of[self._utterances_begun] = start.chunk_index
        if start.again is None:
            return
        samples = start.again.samples - start.position.samples
        assert 0 <= samples <= self._format.samples_per_chunk
        if samples == 0:
            self._idle_again = start.again
        elif samples < self._format.samples_per_chunk and start.again.utterances == start.position.utterances:
            # Its utterance went on behind it: it was filled up with silence.
            self._break_off_at = start.again.samples

    def _before_break(self, pcm: bytes) -> tuple[bytes, bytes]:
        """`pcm` cut where the chunk that is made again must break off."""
        if self._break_off_at is None:
            return pcm, b""
        cut = (self._break_off_at - self._fed_samples) * self._format.bytes_per_sample
        if len(pcm) > cut:
            self._format.mono(pcm)  # nothing is kept of a block that is refused
        return pcm[:cut], pcm[cut:]

    def _open_utterance(self) -> Utterance | None:
        return self._utterances[-1] if self._utterances and not self._utterances[-1].closed else None

    def _drop_pending(self) -> None:
        self._utterances.clear()
        self._last_chunk_of.clear()
        self._to_end.clear()
        self._break_off_at = self._idle_again = self._again = None

    def _starved_at(self) -> float:
        return max(self._clock.dry_at(self._started_at), self._last_audio_at + self._rules.starvation_grace_seconds)

    def _idle_at(self) -> float:
        if self._clock.playing:
            return self._clock.dry_at(self._started_at) - self._rules.idle_lead_seconds
        return self._started_at + self._rules.idle_start_seconds

    def _speech_at(self) -> float | None:
        """When ready speech may be issued; None where that waits for the chunks before it to be shown."""
        if self._rules.speech_lead_seconds is None:
            return self._started_at
        until_shown = CHUNK_SECONDS * self._unshown_chunks - self._rules.speech_lead_seconds
        if self._clock.playing:
            return self._clock.dry_at(self._started_at) + until_shown
        return self._started_at if until_shown <= 0 else None

    def _next_output(self, now: float) -> Output | None:
        if self._idle_again is not None:
            self._used, self._idle_again, self._again = self._idle_again, None, None
            return self._issue_silence(now)
        head = self._head
        if head is not None and head.ready:
            return self._issue_speech(head, now) if self._window_open and self._speech_is_due(now) else None
        if self._in_flight:
            return None
        if head is not None:
            return self._starve(head, now)
        return self._issue_idle(now) if self._idling and now >= self._idle_at() else None

    def _speech_is_due(self, now: float) -> bool:
        speech_at = self._speech_at()
        return speech_at is not None and now >= speech_at

    def _starve(self, head: Utterance, now: float) -> Output | None:
        if now < self._starved_at():
            return None
        if not self._starvation_told:
            self._starvation_told = True
            return StarvedNotice(
                self.epoch, head.utterance_id, self.last_chunk_index + 1, filled=self._rules.fill_when_starved
            )
        if not self._rules.fill_when_starved:
            return None
        head.break_off(now)
        return self._issue_speech(head, now)

    def _issue_speech(self, utterance: Utterance, now: float) -> TimelineChunk:
        self._starvation_told = False
        speech = utterance.take()
        complete = utterance.closed and not utterance.pending_samples
        ended = utterance.utterance_id if complete else utterance.utterance_id - 1
        self._used = InputPosition(self._used.samples + speech.sample_count, max(ended, self._used.utterances))
        if self._again is not None and self._again.samples == self._used.samples:
            self._used = self._again  # its utterance's end had not come when it was issued before
        self._again = None
        chunk = self._issue(utterance.utterance_id, speech, now)
        self._last_chunk_of[utterance.utterance_id] = chunk.chunk_index
        if complete:
            self._utterances.remove(utterance)
            self._settle(utterance)
        return chunk

    def _issue_idle(self, now: float) -> TimelineChunk:
        ended = self._utterances_begun - (self._open_utterance() is not None)
        self._used = InputPosition(self._used.samples, max(ended, self._used.utterances))
        return self._issue_silence(now)

    def _issue_silence(self, now: float) -> TimelineChunk:
        silence = bytes(self._format.samples_per_chunk * self._format.bytes_per_sample)
        return self._issue(0, SpeechSlice(_SILENCE_S, _NO_LOOKAHEAD_S, silence, 0, now), now)

    def _issue(self, utterance_id: int, speech: SpeechSlice, now: float) -> TimelineChunk:
        self.last_chunk_index += 1
        due_at = max(self._clock.dry_at(now), now) + CHUNK_SECONDS * self._unshown_chunks
        follows = self._unshown_chunks > 0 or self._clock.dry_at(speech.ready_at) > speech.ready_at
        self._in_flight.append(self.last_chunk_index)
        self._unshown_chunks += 1
        return TimelineChunk(
            self.epoch,
            utterance_id,
            self.last_chunk_index,
            speech.samples_S,
            speech.lookahead_S,
            speech.pcm,
            self._used,
            speech.ready_at,
            due_at,
            follows,
        )

    def _settle(self, utterance: Utterance) -> None:
        last_chunk_index = self._last_chunk_of.pop(utterance.utterance_id)
        self._to_end.append(UtteranceEndedNotice(self.epoch, utterance.utterance_id, last_chunk_index))

    def _ended_utterances(self) -> list[UtteranceEndedNotice]:
        written = self._in_flight[0] - 1 if self._in_flight else self.last_chunk_index
        ended = []
        while self._to_end and self._to_end[0].last_chunk_index <= written:
            ended.append(self._to_end.popleft())
        return ended
