"""The order of a client's requests: config or resume once and first, end of audio last; pure."""

from __future__ import annotations

from enum import Enum, auto

from visavis.runtime.errors import InvalidInput
from visavis.v1.talking_head_pb2 import TalkRequest


class _Phase(Enum):
    OPENING = auto()
    TALKING = auto()
    ENDED = auto()


class RequestOrder:
    """Accepts one request after the other, or says which rule it breaks."""

    def __init__(self) -> None:
        self._phase = _Phase.OPENING

    @property
    def ended(self) -> bool:
        """Whether `end_of_audio` has come: half-closing is no abort any more."""
        return self._phase is _Phase.ENDED

    def accept(self, request: TalkRequest) -> None:
        """Take the next request. Errors: `InvalidInput` for one that may not come now, or that holds nothing."""
        kind = request.WhichOneof("request")
        if kind is None:
            raise InvalidInput("the request is empty; set one of its fields", "request")
        if self._phase is _Phase.OPENING:
            if kind not in ("config", "resume"):
                raise InvalidInput(f"{kind} came before config; config or resume comes first", kind)
            self._phase = _Phase.TALKING
        elif kind in ("config", "resume"):
            raise InvalidInput(f"{kind} came in a running session; open another stream for it", kind)
        elif self._phase is _Phase.ENDED:
            raise InvalidInput(f"{kind} came after end_of_audio, which is the last request", kind)
        elif kind == "end_of_audio":
            self._phase = _Phase.ENDED
        elif kind == "interrupt" and request.interrupt.played_samples < 0:
            raise InvalidInput("interrupt.played_samples is negative", "interrupt.played_samples")
