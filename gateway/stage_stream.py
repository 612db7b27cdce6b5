"""One session's stream to one stage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Generic, TypeVar, cast

import grpc

from gateway.metrics import GatewayMetrics, Hop
from visavis.runtime.errors import DeadlineMissed, StageUnavailable, VisavisError, error_from_rpc
from visavis.v1 import audio_encoder_pb2, decoder_pb2, generator_pb2

logger = logging.getLogger(__name__)

RequestT = TypeVar(
    "RequestT", audio_encoder_pb2.EncodeRequest, generator_pb2.GenerateRequest, decoder_pb2.DecodeRequest
)
ResponseT = TypeVar(
    "ResponseT", audio_encoder_pb2.EncodeResponse, generator_pb2.GenerateResponse, decoder_pb2.DecodeResponse
)


class StageStream(Generic[RequestT, ResponseT]):
    """Sends chunks and receives answers, with a deadline on each answer that is owed.

    Always `cancel` it in the end: an abandoned call is never collected. Errors while opening are those of the stage;
    once open, whatever goes wrong is `StageUnavailable` and names the stage only, the log has the rest.
    """

    def __init__(
        self,
        stage: Hop,
        session_id: str,
        call: grpc.aio.StreamStreamCall[RequestT, ResponseT],
        answer_seconds: float,
        metrics: GatewayMetrics,
    ) -> None:
        self.stage: Hop = stage
        self._metrics = metrics
        self._session_id = session_id
        self._call: grpc.aio.StreamStreamCall[RequestT, ResponseT] = call
        self._answer_seconds = answer_seconds
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
            raise DeadlineMissed(f"the stage {self.stage} did not answer in time") from None
        except asyncio.InvalidStateError:  # the call ended while we wrote: its status says why
            raise await self._ended_with() from None
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        if answer is grpc.aio.EOF:
            raise StageUnavailable(f"the stage {self.stage} closed the stream; try again")
        return cast(ResponseT, answer)

    async def send(self, request: RequestT) -> None:
        """Send one chunk; waits while the stage does not read. The stage owes an answer from now on."""
        self._owe(1)
        if self._waiting is not None and self._waiting.when() is None:
            self._waiting.reschedule(self._answer_due())
        began = asyncio.get_running_loop().time()
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise self._failed(await self._ended_with()) from None
        finally:
            self._metrics.hop_blocked(self.stage, asyncio.get_running_loop().time() - began)

    async def receive(self) -> ResponseT | None:
        """The next message of the stage; None once the stage has ended the session after `finish`.

        A stage that owes an answer has `answer_seconds` for each message.
        """
        try:
            async with asyncio.timeout_at(self._answer_due() if self._owed else None) as self._waiting:
                answer = await self._call.read()
            if answer is not grpc.aio.EOF:
                return cast(ResponseT, answer)
            cause: VisavisError = StageUnavailable("the stage ended the stream")
        except TimeoutError:
            cause = DeadlineMissed("no answer in time")
        except grpc.aio.AioRpcError as error:
            cause = error_from_rpc(error)
        finally:
            self._waiting = None
        if self._finishing:
            return None
        raise self._failed(cause)

    def answered(self) -> None:
        """The answer to the oldest unanswered chunk is complete."""
        if not self._owed:
            raise self._failed(StageUnavailable("an answer that nothing asked for"))
        self._owe(-1)

    def protocol_broken(self, what: str) -> StageUnavailable:
        """The error for a stage that does not keep to the contract."""
        return self._failed(StageUnavailable(what))

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
        self._metrics.hop_depth(self.stage, change)

    def _answer_due(self) -> float:
        return asyncio.get_running_loop().time() + self._answer_seconds

    async def _ended_with(self) -> VisavisError:
        try:
            await self._call.read()
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error)
        except asyncio.InvalidStateError:
            pass
        return StageUnavailable("the stage ended the stream")

    def _failed(self, cause: VisavisError) -> StageUnavailable:
        logger.warning(
            "stage failed",
            extra={
                "failed_stage": self.stage,
                "session_id": self._session_id,
                "reason": cause.reason,
                "cause": cause.message,
            },
        )
        return StageUnavailable(f"the stage {self.stage} failed; start a new session")
