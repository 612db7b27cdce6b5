"""The session's timeline as a state machine without clock or network: audio events in, chunks and notices out.

An utterance starts at a chunk border. Chunk i (the first is 1) holds samples [15360 (i - 1), 15360 i) at 16 kHz, which
are samples [N (i - 1), N i) of the client's, N = 24 rate / 25; each of its 24 frames owns rate / 25 of them.
Every method that needs the time takes it as `now`, seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.audio_format import PcmFormat
from gateway.playout import PlayoutClock
from gateway.utterance import SpeechSlice, Utterance
from visavis.contract import CHUNK_SAMPLES, CHUNK_SECONDS

_SILENCE_S: Final = np.zeros(CHUNK_SAMPLES, np.float32)
_NO_LOOKAHEAD_S: Final = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class TimelineRules:
    """What the session decided about silence and starvation, and the bounds the server sets."""

    live_when_idle: bool
    fill_when_starved: bool
    window_chunks: int
    """Chunks that may be in the pipeline at once, counted until their frames are written."""
    speech_buffer_seconds: float
    """Speech kept before `accepts_audio` turns false."""
    idle_lead_seconds: float
    """How long before its playout an idle chunk is issued."""
    idle_start_seconds: float
    """How long a new session waits for speech before its first idle chunk."""
    starvation_grace_seconds: float
    """Speech has run dry when the next chunk is due and nothing arrived for this long."""


@dataclass(frozen=True, slots=True)
class TimelineChunk:
    """One chunk as it enters the pipeline."""

    epoch: int
    utterance_id: int
    """0 for an idle chunk."""
    chunk_index: int
    samples_S: NDArray[np.float32]
    """[15360], 16 kHz mono."""
    lookahead_S: NDArray[np.float32]
    """[up to 1280], 16 kHz mono."""
    pcm: bytes
    """The client's bytes of the whole chunk, in the client's format."""
    ready_at: float
    """When the last audio arrived that the chunk needs; for an idle chunk, when it was issued."""
    due_at: float
    """When its first frame should be shown."""
    follows: bool
    """Whether it should be shown right behind its predecessor, so that it can be late."""

    @property
    def idle(self) -> bool:
        return self.utterance_id == 0


@dataclass(frozen=True, slots=True)
class StarvedNotice:
    """Speech ran dry inside an utterance at this chunk, which was filled with silence or waits."""

    epoch: int
    utterance_id: int
    chunk_index: int
    filled: bool


@dataclass(frozen=True, slots=True)
class UtteranceEndedNotice:
    """Every frame of the utterance has been written."""

    epoch: int
    utterance_id: int
    last_chunk_index: int


Output = TimelineChunk | StarvedNotice | UtteranceEndedNotice


class Timeline:
    """Decides which chunk comes next and when.

    Events: `feed`, `end_utterance`, `interrupt`, `end_audio` from the client; `first_frame_written` and
    `chunk_finished` from the pipeline. After any event, and at `wake_at`, `advance` gives what is to be done now.
    """

    def __init__(self, audio_format: PcmFormat, rules: TimelineRules, now: float) -> None:
        self.epoch = 1
        self.chunks_issued = 0
        self._format = audio_format
        self._rules = rules
        self._utterances: deque[Utterance] = deque()
        self._utterances_begun = 0
        self._last_chunk_of: dict[int, int] = {}
        self._to_end: deque[UtteranceEndedNotice] = deque()
        self._in_flight: deque[int] = deque()
        self._unshown_chunks = 0
        self._clock = PlayoutClock(CHUNK_SECONDS)
        self._started_at = now
        self._last_audio_at = now
        self._starvation_told = False
        self._ending = False

    @property
    def pending_seconds(self) -> float:
        """Speech that no chunk has taken yet."""
        return sum(u.pending_samples for u in self._utterances) / self._format.sample_rate_hz

    @property
    def accepts_audio(self) -> bool:
        """False while the speech buffer is full: stop reading from the client."""
        return self.pending_seconds < self._rules.speech_buffer_seconds

    @property
    def chunks_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def finished(self) -> bool:
        """Whether audio has ended and everything that was pending has been written and told."""
        return self._ending and not self._utterances and not self._in_flight and not self._to_end

    def feed(self, pcm: bytes, now: float) -> None:
        """Speech of the open utterance; opens the next one where none is. Errors: `InvalidInput`, nothing kept."""
        assert not self._ending
        utterance = self._open_utterance()
        if utterance is None:
            utterance = Utterance(self._utterances_begun + 1, self._format)
            utterance.feed(pcm, now)
            self._utterances_begun += 1
            self._utterances.append(utterance)
        else:
            utterance.feed(pcm, now)
        self._last_audio_at = now

    def end_utterance(self, now: float) -> None:
        """The open utterance is complete; nothing happens where none is open."""
        utterance = self._open_utterance()
        if utterance is None:
            return
        utterance.close(now)
        if not utterance.pending_samples:
            self._utterances.remove(utterance)
            self._settle(utterance)

    def interrupt(self, now: float) -> int:
        """Drop what is pending, also in the player; gives the new epoch. Chunks in flight stay in flight."""
        self.epoch += 1
        self._utterances.clear()
        self._last_chunk_of.clear()
        self._to_end.clear()
        self._starvation_told = False
        self._unshown_chunks = 0
        self._clock.stop(now)
        return self.epoch

    def end_audio(self, now: float) -> None:
        """No audio follows: the open utterance is complete, no idle chunk is issued any more."""
        self.end_utterance(now)
        self._ending = True

    def first_frame_written(self, chunk: TimelineChunk, now: float) -> bool:
        """The client got the first frame of `chunk`. Gives whether it came too late to follow its predecessor."""
        if chunk.epoch != self.epoch:
            return False
        self._unshown_chunks -= 1
        return self._clock.write(now) and chunk.follows

    def chunk_finished(self, chunk_index: int) -> None:
        """All frames of the chunk were written, or dropped; chunks finish in order."""
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
        if self._in_flight:
            return None
        if self._starving and not self._starvation_told:
            return self._starved_at()
        return self._idle_at() if self._idling else None

    @property
    def _head(self) -> Utterance | None:
        return next((u for u in self._utterances if u.pending_samples), None)

    @property
    def _starving(self) -> bool:
        head = self._head
        return head is not None and not head.ready

    @property
    def _idling(self) -> bool:
        return self._rules.live_when_idle and not self._ending and self._head is None

    def _open_utterance(self) -> Utterance | None:
        return self._utterances[-1] if self._utterances and not self._utterances[-1].closed else None

    def _starved_at(self) -> float:
        return max(self._clock.dry_at(self._started_at), self._last_audio_at + self._rules.starvation_grace_seconds)

    def _idle_at(self) -> float:
        if self._clock.playing:
            return self._clock.dry_at(self._started_at) - self._rules.idle_lead_seconds
        return self._started_at + self._rules.idle_start_seconds

    def _next_output(self, now: float) -> Output | None:
        head = self._head
        if head is not None and head.ready:
            if self.chunks_in_flight >= self._rules.window_chunks:
                return None
            return self._issue_speech(head, head.take(), now)
        if self._in_flight:
            return None
        if head is not None:
            return self._starve(head, now)
        return self._issue_idle(now) if self._idling and now >= self._idle_at() else None

    def _starve(self, head: Utterance, now: float) -> Output | None:
        if now < self._starved_at():
            return None
        if not self._starvation_told:
            self._starvation_told = True
            return StarvedNotice(
                self.epoch, head.utterance_id, self.chunks_issued + 1, filled=self._rules.fill_when_starved
            )
        return self._issue_speech(head, head.take_unready(now), now) if self._rules.fill_when_starved else None

    def _issue_speech(self, utterance: Utterance, speech: SpeechSlice, now: float) -> TimelineChunk:
        self._starvation_told = False
        chunk = self._issue(utterance.utterance_id, speech, now)
        self._last_chunk_of[utterance.utterance_id] = chunk.chunk_index
        if utterance.closed and not utterance.pending_samples:
            self._utterances.remove(utterance)
            self._settle(utterance)
        return chunk

    def _issue_idle(self, now: float) -> TimelineChunk:
        silence = bytes(self._format.samples_per_chunk * self._format.bytes_per_sample)
        return self._issue(0, SpeechSlice(_SILENCE_S, _NO_LOOKAHEAD_S, silence, now), now)

    def _issue(self, utterance_id: int, speech: SpeechSlice, now: float) -> TimelineChunk:
        self.chunks_issued += 1
        due_at = max(self._clock.dry_at(now), now) + CHUNK_SECONDS * self._unshown_chunks
        follows = self._unshown_chunks > 0 or self._clock.dry_at(speech.ready_at) > speech.ready_at
        self._in_flight.append(self.chunks_issued)
        self._unshown_chunks += 1
        return TimelineChunk(
            self.epoch,
            utterance_id,
            self.chunks_issued,
            speech.samples_S,
            speech.lookahead_S,
            speech.pcm,
            speech.ready_at,
            due_at,
            follows,
        )

    def _settle(self, utterance: Utterance) -> None:
        last_chunk_index = self._last_chunk_of.pop(utterance.utterance_id)
        self._to_end.append(UtteranceEndedNotice(self.epoch, utterance.utterance_id, last_chunk_index))

    def _ended_utterances(self) -> list[UtteranceEndedNotice]:
        written = self._in_flight[0] - 1 if self._in_flight else self.chunks_issued
        ended = []
        while self._to_end and self._to_end[0].last_chunk_index <= written:
            ended.append(self._to_end.popleft())
        return ended
