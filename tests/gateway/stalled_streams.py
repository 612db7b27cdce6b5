"""Streams to stages that owe an answer: a test ends the gateway's wait for it instead of sitting it out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.stage_stream import StageStream
from tests.gateway.stage_servers import StageServer
from tests.gateway.talk_client import eventually

# Nobody waits that long: a stage is lost when a test says so, however busy the machine is.
NEVER = {"STAGE_STALL_SECONDS": "3600"}


class StalledStreams:
    """The streams that gateways have opened since; for gateways with `NEVER`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._streams: list[StageStream[Any, Any]] = []
        streams = self._streams

        class ListedStream(StageStream[Any, Any]):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                streams.append(self)

        monkeypatch.setattr("gateway.stages.StageStream", ListedStream)

    async def stall(self, hanging: StageServer) -> None:
        """Waits until the server hangs and owes an answer, then lets the time for it be over."""
        await eventually(hanging.hanging.is_set)
        await eventually(lambda: self._time_out(hanging.stage))

    def _time_out(self, stage: str) -> bool:
        now = asyncio.get_running_loop().time()
        due = [waiting for stream in self._streams if stream._stage == stage and (waiting := stream._waiting)]
        for waiting in due:
            if (when := waiting.when()) is not None and not waiting.expired():
                assert 0 < when - now <= 3600, "it has the whole time for each message"
                waiting.reschedule(now)
                return True
        return False
