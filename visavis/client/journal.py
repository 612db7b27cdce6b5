"""What a client has sent and the server has not used yet: what a resumed session needs again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from visavis.v1 import talking_head_pb2


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a session's input: samples (of all channels) and ended utterances before it."""

    samples: int = 0
    utterances: int = 0

    @classmethod
    def from_message(cls, message: talking_head_pb2.InputPosition) -> Position:
        """Reads the contract's form."""
        return cls(message.samples, message.utterances)

    def to_message(self) -> talking_head_pb2.InputPosition:
        """The position as the contract says it."""
        return talking_head_pb2.InputPosition(samples=self.samples, utterances=self.utterances)


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: Literal["audio", "end_of_utterance", "interrupt", "end_of_audio"]
    number: int
    """Counts the entries of a session, from 1."""
    end: Position
    """Just behind the entry."""
    epoch: int
    """Of the session just behind the entry."""
    pcm: bytes = b""
    played_samples: int | None = None


class InputJournal:
    """The requests of one session in order, from the last position that the server confirmed.

    `record` what is sent; `confirm` what the server has used, which forgets it; `after` gives what to send again.
    An utterance ends by `end_of_utterance` or by an interruption; ending one that has no speech counts for nothing,
    on the server as here.
    """

    def __init__(self, bytes_per_sample: int) -> None:
        self.epoch = 1
        """Of the session behind everything that was recorded."""
        self.recorded = 0
        """The number of the last entry."""
        self._bytes_per_sample = bytes_per_sample
        self._entries: deque[_Entry] = deque()
        self._end = Position()
        self._speaking = False

    @property
    def pending_bytes(self) -> int:
        """Speech that is kept."""
        return sum(len(entry.pcm) for entry in self._entries)

    def record(self, request: talking_head_pb2.TalkRequest) -> None:
        """Keep a request that is being sent."""
        match request.WhichOneof("request"):
            case "audio":
                pcm = request.audio.pcm
                self._speaking = True
                self._end = Position(self._end.samples + len(pcm) // self._bytes_per_sample, self._end.utterances)
                self._append("audio", pcm=pcm)
            case "end_of_utterance" if self._speaking:
                self._end_utterance()
                self._append("end_of_utterance")
            case "interrupt":
                if self._speaking:
                    self._end_utterance()
                self.epoch += 1
                message = request.interrupt
                played = message.played_samples if message.HasField("played_samples") else None
                self._append("interrupt", played_samples=played)
            case "end_of_audio":
                self._append("end_of_audio")

    def confirm(self, epoch: int, position: Position) -> None:
        """The server is in `epoch` and has used the input before `position`: both are never needed again."""
        while self._entries and _used(self._entries[0], epoch, position):
            self._entries.popleft()

    def position_of_epoch(self, epoch: int) -> Position:
        """Where the input of `epoch` begins: just behind its interruption. `KeyError` when that is not kept."""
        for entry in self._entries:
            if entry.kind == "interrupt" and entry.epoch == epoch:
                return entry.end
        raise KeyError(epoch)

    def after(self, epoch: int, position: Position, number: int = 0) -> list[talking_head_pb2.TalkRequest]:
        """What a server in `epoch`, which has used the input before `position`, has not seen; behind entry `number`."""
        unseen = [entry for entry in self._entries if entry.number > number and not _used(entry, epoch, position)]
        return [self._again(entry, position) for entry in unseen]

    def _append(
        self,
        kind: Literal["audio", "end_of_utterance", "interrupt", "end_of_audio"],
        *,
        pcm: bytes = b"",
        played_samples: int | None = None,
    ) -> None:
        self.recorded += 1
        self._entries.append(_Entry(kind, self.recorded, self._end, self.epoch, pcm, played_samples))

    def _end_utterance(self) -> None:
        self._end = Position(self._end.samples, self._end.utterances + 1)
        self._speaking = False

    def _again(self, entry: _Entry, position: Position) -> talking_head_pb2.TalkRequest:
        match entry.kind:
            case "interrupt":
                message = talking_head_pb2.Interrupt(played_samples=entry.played_samples)
                return talking_head_pb2.TalkRequest(interrupt=message)
            case "end_of_utterance":
                return talking_head_pb2.TalkRequest(end_of_utterance=talking_head_pb2.EndOfUtterance())
            case "end_of_audio":
                return talking_head_pb2.TalkRequest(end_of_audio=talking_head_pb2.EndOfAudio())
        unused = min((entry.end.samples - position.samples) * self._bytes_per_sample, len(entry.pcm))
        return talking_head_pb2.TalkRequest(audio=talking_head_pb2.AudioInput(pcm=entry.pcm[len(entry.pcm) - unused :]))


def _used(entry: _Entry, epoch: int, position: Position) -> bool:
    """Whether a server in `epoch` that has used the input before `position` needs the entry no more."""
    match entry.kind:
        case "interrupt":
            return entry.epoch <= epoch
        case "end_of_utterance":
            return entry.epoch < epoch or entry.end.utterances <= position.utterances
        case "audio":
            return entry.epoch < epoch or entry.end.samples <= position.samples
        case "end_of_audio":
            return False
