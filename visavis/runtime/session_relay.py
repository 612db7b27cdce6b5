"""What flows in one session's stream after `ready`: items and rewinds in, outputs and notices out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

from visavis.runtime.boundary import next_request, write
from visavis.runtime.chunk_order import ChunkPosition
from visavis.runtime.errors import InvalidInput
from visavis.runtime.session_watch import SessionWatch
from visavis.runtime.slots import SlotPool
from visavis.runtime.stream_rules import StreamRules
from visavis.runtime.worker import WorkerSession
from visavis.v1.chunk_pb2 import Draining


class WritingContext(Protocol):
    """What the handler needs of grpc.aio's servicer context."""

    async def write(self, message: Any) -> None: ...

    def invocation_metadata(self) -> Any: ...

    async def abort(self, code: Any, details: str, trailing_metadata: Any) -> Any: ...


class SessionRelay:
    """Relays one session between its stream and the worker; `run` ends with the session, or raises what ends it.

    At most `max_in_flight` items are in the stage. One more may have been read and waits; what comes behind it, a
    rewind too, waits in the stream. A rewind gives back the places of the items that it drops.
    """

    def __init__(
        self,
        requests: AsyncIterator[Any],
        context: WritingContext,
        rules: StreamRules,
        session: WorkerSession,
        watch: SessionWatch,
        slots: SlotPool,
        *,
        start: ChunkPosition,
        max_in_flight: int,
    ) -> None:
        self._requests = requests
        self._context = context
        self._rules = rules
        self._session = session
        self._watch = watch
        self._slots = slots
        self._position = start
        self._max_in_flight = max_in_flight
        self._places = asyncio.Semaphore(max_in_flight)
        # gRPC takes one message at a time.
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Returns when the requests have ended and every item is answered."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_requests())
                noticing = group.create_task(self._announce_draining())
                await self._write_outputs()
                async with self._writing:  # a notice that is under way is written to its end
                    noticing.cancel()
        finally:
            self._watch.close()

    async def _read_requests(self) -> None:
        while (request := await next_request(self._requests)) is not None:
            kind = request.WhichOneof("request")
            if kind == "rewind":
                self._rewind(request.rewind)
            elif kind == self._rules.item_field:
                await self._take_item(getattr(request, kind))
            else:
                raise _unexpected(kind, self._rules)
        for _ in range(self._max_in_flight):  # all places are free: every item is answered
            await self._places.acquire()
        self._session.finish()

    async def _take_item(self, item: Any) -> None:
        self._position = self._position.advance(item.header, field=self._rules.item_field)
        self._rules.check_item(item)
        with self._watch.blocked("read"):
            await self._places.acquire()
        if not self._session.failed:  # else the writer says so, after the outputs that are there
            self._watch.arrived(item.header)
            self._session.submit(item)

    def _rewind(self, rewind: Any) -> None:
        self._position = self._position.go_back(rewind.border, field="rewind.border")
        if not self._session.failed:
            self._session.rewind(rewind)
            for _ in range(self._watch.drop_all()):
                self._places.release()

    async def _write_outputs(self) -> None:
        output: Any  # a message of the stage's own type
        async for output in self._session:
            completes = self._rules.completes_item(output)
            self._rules.on_output(output)
            if completes:
                self._watch.answered(output.timing)
            with self._watch.blocked("write"):
                await self._write(**{self._rules.output_field: output})
            if completes:
                self._places.release()

    async def _announce_draining(self) -> None:
        await self._slots.wait_draining()
        draining = Draining()
        draining.time_left.FromMilliseconds(round(self._slots.drain_seconds_left * 1000))
        await self._write(draining=draining)

    async def _write(self, **response: Any) -> None:
        async with self._writing:
            await write(self._context, self._rules.response_type(**response))


def _unexpected(kind: str | None, rules: StreamRules) -> InvalidInput:
    if kind == "config":
        return InvalidInput("config comes once, as the first message", "config")
    return InvalidInput(f"the message holds no {rules.item_field}", "request")
