"""A session's place at one instance of a stage."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic

from gateway.stage_dialect import RequestT, ResponseT
from gateway.stage_stream import StageStream
from visavis.runtime.registry import StageInstance


@dataclass(frozen=True, slots=True)
class OpenStage(Generic[RequestT, ResponseT]):
    """An open stream, the instance at its other end and what that said at the beginning."""

    stream: StageStream[RequestT, ResponseT]
    instance: StageInstance
    ready: Any
    """`EncodeReady`, `GenerateReady` or `DecodeReady`."""
    held: ExitStack
    """The stream and its channel."""

    def close(self) -> None:
        """End the session there at once, if it has not ended; give the channel back."""
        self.held.close()
