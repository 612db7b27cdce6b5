"""One session's stream to one instance of a stage."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Generic, cast

import grpc

from gateway.metrics import GatewayMetrics, Hop
from gateway.stage_dialect import RequestT, ResponseT
from visavis.final_status import StatusWatch
from visavis.runtime.errors import DeadlineMissed, StageUnavailable, VisavisError, error_from_rpc


class StageStream(Generic[RequestT, ResponseT]):
    """Sends chunks and receives answers, with a deadline on each answer that is owed.

    Always `cancel` it in the end: an abandoned call is never collected. What goes wrong comes out of `open` and
    `receive` as the error that the stage gave, `DeadlineMissed`, or `StageUnavailable`.
    """

    def __init__(
        self,
        stage: Hop,
        call: grpc.aio.StreamStreamCall[RequestT, ResponseT],
        stall_seconds: float,
        metrics: GatewayMetrics,
    ) -> None:
        self._stage: Hop = stage
        self._call: grpc.aio.StreamStreamCall[RequestT, ResponseT] = call
        self._watch = StatusWatch(call)
        self._stall_seconds = stall_seconds
        self._metrics = metrics
        self._owed = 0
        self._finishing = False
        self._waiting: asyncio.Timeout | None = None

    async def open(self, config: RequestT, timeout_seconds: float) -> ResponseT:
        """Send the configuration and give the first answer. Errors: the stage's own, `DeadlineMissed`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._call.write(config)
                answer = await self._call.read()
        except TimeoutError:
            raise DeadlineMissed(f"the stage {self._stage} did not answer in time") from None
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
            raise self._ended_with() from error
        if answer is grpc.aio.EOF:
            raise self._ended_with()
        return cast(ResponseT, answer)

    async def send(self, request: RequestT, *, owes_answer: bool) -> bool:
        """Send a message; waits while the stage does not read. False when the stream has ended: `receive` says why."""
        if owes_answer:
            self._owe(1)
            if self._waiting is not None and self._waiting.when() is None:
                self._waiting.reschedule(self._answer_due())
        began = asyncio.get_running_loop().time()
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        finally:
            self._metrics.hop_blocked(self._stage, asyncio.get_running_loop().time() - began)
        return True

    async def receive(self) -> ResponseT | None:
        """The next message of the stage; None once the stage has ended the session after `finish`.

        A stage that owes an answer has `stall_seconds` for each message.
        """
        try:
            async with asyncio.timeout_at(self._answer_due() if self._owed else None) as self._waiting:
                answer = await self._call.read()
            if answer is not grpc.aio.EOF:
                return cast(ResponseT, answer)
            cause = self._ended_with()
        except TimeoutError:
            cause = DeadlineMissed("no answer in time")
        except grpc.aio.AioRpcError:
            cause = self._ended_with()
        finally:
            self._waiting = None
        if self._finishing:
            return None
        raise cause

    def answered(self) -> None:
        """The answer to the oldest unanswered chunk is complete."""
        assert self._owed, "answers are matched with what was sent"
        self._owe(-1)

    def rewound(self) -> None:
        """Nothing that was sent will be answered."""
        self._owe(-self._owed)
        if self._waiting is not None:
            self._waiting.reschedule(None)

    async def finish(self) -> None:
        """Nothing follows: the stage frees its slot and ends the stream, which `receive` tells."""
        self._finishing = True
        if self._waiting is not None:
            self._waiting.reschedule(self._answer_due())
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def cancel(self) -> None:
        """End the session in the stage at once; does nothing where it has ended."""
        self._call.cancel()
        self._owe(-self._owed)

    def _owe(self, change: int) -> None:
        self._owed += change
        self._metrics.hop_depth(self._stage, change)

    def _answer_due(self) -> float:
        return asyncio.get_running_loop().time() + self._stall_seconds

    def _ended_with(self) -> VisavisError:
        """What the stage, or the transport, said last of the call, which is over."""
        status = self._watch.status
        if status is None or status.code is grpc.StatusCode.OK:
            return StageUnavailable(f"the stage {self._stage} ended the stream; try again")
        return error_from_rpc(status.as_error())
