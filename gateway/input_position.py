"""A place in what a client sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from visavis.v1 import talking_head_pb2


@dataclass(frozen=True, slots=True)
class InputPosition:
    """How much of a session's input lies before a chunk border."""

    samples: int = 0
    """Of all audio, counted by frames of all channels; includes what interruptions dropped."""
    utterances: int = 0
    """Utterances that have ended, by an end or by an interruption."""

    @classmethod
    def from_message(cls, message: talking_head_pb2.InputPosition) -> InputPosition:
        """Reads the contract's form."""
        return cls(message.samples, message.utterances)

    def to_message(self) -> talking_head_pb2.InputPosition:
        """The position as the contract says it."""
        return talking_head_pb2.InputPosition(samples=self.samples, utterances=self.utterances)


BEGINNING: Final = InputPosition()
