"""What one client sent and received in a session, over all its streams, and the rules that any such history keeps.

A client keeps a `History` while it talks: `send` for each request (once, however often it is repeated after a break),
`receive` for each response that it accepts. `check` finds what was lost, repeated, mixed up or made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from visavis.contract import CHUNK_FRAMES
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import TalkRequest, TalkResponse, VideoSegment


class Rule(StrEnum):
    """What a violation broke."""

    ORDER = "within an epoch every frame of every chunk comes exactly once and in order"
    SEGMENT = "a segment lies within its chunk and says where that ends"
    AUDIO_RANGE = "audio ranges are contiguous and belong to the frames"
    PCM = "sound is what was sent, in order, or silence"
    EPOCH = "after an interruption was acknowledged no frame of an older epoch comes"
    POSITION = "the input position never falls, and is that of something sent"
    IDENTITY = "every frame shows the session's avatar"
    COMPLETE = "a session that ended has used all input and finished its last chunk"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule, with what was seen."""

    rule: Rule
    detail: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """An interrupt that the client sent."""

    epoch: int
    """The epoch that begins with it."""
    samples: int
    """Samples sent before it."""


@dataclass(slots=True)
class History:
    """Everything one client sent and accepted, in order."""

    bytes_per_sample: int
    """Of all channels."""
    samples_per_frame: int
    sent_pcm: bytearray = field(default_factory=bytearray)
    sent_utterances: int = 0
    """Utterances ended by the client, by an end or by an interruption."""
    interruptions: list[Interruption] = field(default_factory=list)
    received: list[TalkResponse] = field(default_factory=list)
    ended_audio: bool = False
    speaking: bool = False

    def send(self, request: TalkRequest) -> None:
        """Note a request that goes out for the first time."""
        match request.WhichOneof("request"):
            case "audio":
                self.sent_pcm += request.audio.pcm
                self.speaking = True
            case "end_of_utterance" | "end_of_audio" as kind:
                self._end_utterance()
                self.ended_audio = kind == "end_of_audio"
            case "interrupt":
                self._end_utterance()
                self.interruptions.append(Interruption(len(self.interruptions) + 2, self.sent_samples))

    def receive(self, response: TalkResponse) -> None:
        """Note a response that the client accepted."""
        self.received.append(response)

    @property
    def sent_samples(self) -> int:
        return len(self.sent_pcm) // self.bytes_per_sample

    @property
    def segments(self) -> list[VideoSegment]:
        return [response.segment for response in self.received if response.HasField("segment")]

    def _end_utterance(self) -> None:
        self.sent_utterances += self.speaking
        self.speaking = False


def check(history: History, *, shows_avatar: Callable[[bytes], bool] = lambda picture: True) -> list[Violation]:
    """Every violation in a history; empty for a good one.

    shows_avatar: whether a frame's data shows the avatar that the session was opened with.
    """
    return [*_Walk(history, shows_avatar).violations()]


@dataclass(slots=True)
class _Chunk:
    """What has come of the chunk that is being received."""

    index: int
    pcm: bytes
    samples: int
    """The input position at its end."""
    start_samples: int
    """The input position at its beginning."""


class _Walk:
    """Goes through a history once."""

    def __init__(self, history: History, shows_avatar: Callable[[bytes], bool]) -> None:
        self._history = history
        self._shows_avatar = shows_avatar
        self._epoch = 1
        self._next_frame = 1
        self._position = (0, 0)
        self._border_samples = 0
        self._chunk: _Chunk | None = None

    def violations(self) -> Iterator[Violation]:
        for response in self._history.received:
            match response.WhichOneof("response"):
                case "segment":
                    yield from self._segment(response.segment)
                case "interrupted":
                    yield from self._interrupted(response.interrupted.epoch, response.interrupted.last_chunk_index)
                case "resumed":
                    yield from self._resumed(response.resumed)
                case "dropped":
                    yield from self._dropped(response.dropped)
                case "ended":
                    yield from self._ended(response.ended)
        if self._chunk is not None:
            yield from self._check_pcm(self._chunk)

    def _segment(self, segment: VideoSegment) -> Iterator[Violation]:
        name = f"epoch {segment.epoch} chunk {segment.chunk_index} frame {segment.first_frame_index}"
        if segment.epoch != self._epoch:
            yield Violation(Rule.EPOCH, f"{name} came in epoch {self._epoch}")
            return
        if segment.first_frame_index != self._next_frame:
            yield Violation(Rule.ORDER, f"{name} came in place of frame {self._next_frame}")
        yield from self._check_shape(segment, name)
        yield from self._check_position(segment, name)
        self._next_frame = segment.first_frame_index + len(segment.frames)
        yield from self._collect_sound(segment)
        for number, frame in enumerate(segment.frames):
            if not self._shows_avatar(frame.data):
                yield Violation(Rule.IDENTITY, f"{name}, picture {number}")

    def _check_shape(self, segment: VideoSegment, name: str) -> Iterator[Violation]:
        first, last = segment.first_frame_index, segment.first_frame_index + len(segment.frames) - 1
        end_of_chunk = CHUNK_FRAMES * segment.chunk_index
        if not end_of_chunk - CHUNK_FRAMES < first <= last <= end_of_chunk:
            yield Violation(Rule.SEGMENT, f"{name} to {last} is not inside its chunk")
        if segment.last_in_chunk != (last == end_of_chunk):
            yield Violation(Rule.SEGMENT, f"{name} to {last} says last_in_chunk={segment.last_in_chunk}")
        spf = self._history.samples_per_frame
        if (segment.audio_start_sample, segment.audio_end_sample) != ((first - 1) * spf, last * spf):
            yield Violation(Rule.AUDIO_RANGE, f"{name}: [{segment.audio_start_sample}, {segment.audio_end_sample})")
        if len(segment.pcm) != len(segment.frames) * spf * self._history.bytes_per_sample:
            yield Violation(Rule.AUDIO_RANGE, f"{name}: {len(segment.pcm)} bytes of sound")

    def _check_position(self, segment: VideoSegment, name: str) -> Iterator[Violation]:
        position = (segment.input_position.samples, segment.input_position.utterances)
        if position[0] < self._position[0] or position[1] < self._position[1]:
            yield Violation(Rule.POSITION, f"{name}: {position} after {self._position}")
        if position[0] > self._history.sent_samples or position[1] > self._history.sent_utterances:
            yield Violation(
                Rule.POSITION,
                f"{name}: {position}, sent were {self._history.sent_samples}, {self._history.sent_utterances}",
            )
        if self._chunk is not None and self._chunk.index == segment.chunk_index and self._chunk.samples != position[0]:
            yield Violation(Rule.POSITION, f"{name}: {position[0]}, before in its chunk {self._chunk.samples}")
        self._position = position

    def _collect_sound(self, segment: VideoSegment) -> Iterator[Violation]:
        if self._chunk is None or self._chunk.index != segment.chunk_index:
            if self._chunk is not None:
                yield from self._check_pcm(self._chunk)
            self._chunk = _Chunk(segment.chunk_index, b"", segment.input_position.samples, self._border_samples)
        self._chunk.pcm += segment.pcm
        if segment.last_in_chunk:
            yield from self._check_pcm(self._chunk)
            self._border_samples, self._chunk = segment.input_position.samples, None

    def _check_pcm(self, chunk: _Chunk) -> Iterator[Violation]:
        """The chunk's input and silence behind it; of a chunk that came in part the beginning of that."""
        size = self._history.bytes_per_sample
        chunk_bytes = CHUNK_FRAMES * self._history.samples_per_frame * size
        spoken = bytes(self._history.sent_pcm[chunk.start_samples * size : chunk.samples * size])
        if len(spoken) > chunk_bytes or not spoken.ljust(chunk_bytes, b"\0").startswith(chunk.pcm):
            yield Violation(Rule.PCM, f"chunk {chunk.index}: not samples {chunk.start_samples} to {chunk.samples}")

    def _interrupted(self, epoch: int, last_chunk_index: int) -> Iterator[Violation]:
        if CHUNK_FRAMES * last_chunk_index >= self._next_frame:
            yield Violation(Rule.ORDER, f"epoch {epoch} begins behind chunk {last_chunk_index}, which never came")
        yield from self._enter_epoch(epoch, last_chunk_index)

    def _enter_epoch(self, epoch: int, last_chunk_index: int) -> Iterator[Violation]:
        if epoch <= self._epoch:
            yield Violation(Rule.EPOCH, f"epoch {epoch} was acknowledged in epoch {self._epoch}")
        cause = next((each for each in self._history.interruptions if each.epoch == epoch), None)
        if cause is None:
            yield Violation(Rule.EPOCH, f"epoch {epoch} was acknowledged and never asked for")
        if self._chunk is not None:
            yield from self._check_pcm(self._chunk)
        self._epoch, self._chunk = epoch, None
        self._next_frame = CHUNK_FRAMES * last_chunk_index + 1
        self._border_samples = cause.samples if cause is not None else self._history.sent_samples

    def _resumed(self, resumed: talking_head_pb2.SessionResumed) -> Iterator[Violation]:
        """A newer epoch stands for an acknowledgement that was lost with the old stream, and frames before it."""
        if resumed.epoch > self._epoch:
            yield from self._enter_epoch(resumed.epoch, (resumed.next_frame_index - 1) // CHUNK_FRAMES)
        if resumed.epoch == self._epoch and resumed.next_frame_index != self._next_frame:
            yield Violation(
                Rule.ORDER, f"resumed at frame {resumed.next_frame_index} in place of frame {self._next_frame}"
            )

    def _dropped(self, dropped: talking_head_pb2.ChunksDropped) -> Iterator[Violation]:
        name = f"chunks {dropped.first_chunk_index} to {dropped.last_chunk_index} were dropped"
        if dropped.epoch != self._epoch:
            yield Violation(Rule.EPOCH, f"{name} in epoch {dropped.epoch}, not {self._epoch}")
            return
        if CHUNK_FRAMES * (dropped.first_chunk_index - 1) + 1 != self._next_frame:
            yield Violation(Rule.ORDER, f"{name} in place of frame {self._next_frame}")
        self._next_frame = CHUNK_FRAMES * dropped.last_chunk_index + 1
        self._position = (dropped.input_position.samples, dropped.input_position.utterances)
        self._border_samples = dropped.input_position.samples

    def _ended(self, ended: talking_head_pb2.SessionEnded) -> Iterator[Violation]:
        if ended.reason != talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO:
            return
        if (self._next_frame - 1) % CHUNK_FRAMES:
            yield Violation(Rule.COMPLETE, f"the last frame is {self._next_frame - 1}, inside a chunk")
        used = self._border_samples
        if not self._history.ended_audio or used != self._history.sent_samples:
            yield Violation(Rule.COMPLETE, f"{used} of {self._history.sent_samples} samples were used")
