"""The operations service: what an operator asks of a running process."""

from collections.abc import Callable
from typing import Any

from visavis.runtime.slots import SlotPool
from visavis.v1.operations_pb2 import DrainRequest, DrainResponse
from visavis.v1.operations_pb2_grpc import OperationsServiceServicer


class Operations(OperationsServiceServicer):
    """Asks nobody who calls: it belongs on a port that only operators reach."""

    def __init__(self, slots: SlotPool, begin_drain: Callable[[], None], *, drain_seconds: float) -> None:
        self._slots = slots
        self._begin_drain = begin_drain
        self._drain_seconds = drain_seconds

    async def Drain(self, request: DrainRequest, context: Any) -> DrainResponse:
        """Begins the drain, or finds that it has begun."""
        self._begin_drain()
        answer = DrainResponse(sessions=self._slots.used_slots)
        seconds = self._slots.drain_seconds_left if self._slots.draining else self._drain_seconds
        answer.time_left.FromMilliseconds(round(seconds * 1000))
        return answer
