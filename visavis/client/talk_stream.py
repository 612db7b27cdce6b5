"""One gRPC stream of a session; a session that was resumed has had several."""

import asyncio
from contextlib import suppress
from typing import Final

import grpc
import grpc.aio

from visavis.client.errors import (
    ClientError,
    ServerError,
    ServerUnavailable,
    SessionClosed,
    error_from_status,
)
from visavis.client.status_details import read_status_details
from visavis.final_status import StatusWatch
from visavis.v1 import talking_head_pb2

# Between a server's last response and its status; a network that loses just that is not waited for.
_STATUS_SECONDS: Final = 1.0

TalkCall = grpc.aio.StreamStreamCall[talking_head_pb2.TalkRequest, talking_head_pb2.TalkResponse]


class TalkStream:
    """Writes and reads in their order, and survives callers that give up: grpc.aio cancels a whole call with one read.

    Errors of every method: the server's, typed; `SessionClosed` once the stream is closed or has ended.
    """

    def __init__(self, call: TalkCall) -> None:
        self._call = call
        self._watch = StatusWatch(call)
        self._closed = False
        self._reading: asyncio.Task[talking_head_pb2.TalkResponse] | None = None

    async def write(self, request: talking_head_pb2.TalkRequest) -> None:
        """Send one request, waiting while the server does not read; `end_of_audio` is the last.

        Who cancels it has given the whole stream up.
        """
        try:
            await self._call.write(request)
            if request.HasField("end_of_audio"):
                await self._call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError) as error:
            raise self._failure() from error
        except asyncio.CancelledError as error:
            if _is_given_up():
                raise
            raise SessionClosed("the session was closed") from error

    async def read(self) -> talking_head_pb2.TalkResponse:
        """The next response. A reader that is cancelled loses neither stream nor response."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_now())
        response = await asyncio.shield(self._reading)
        self._reading = None
        return response

    async def finish(self) -> None:
        """Take the status of a stream whose last response has come, so that the server does not see it cancelled."""
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(_STATUS_SECONDS):
                await self.read()

    async def close(self) -> None:
        """End the stream at once. Idempotent."""
        self._closed = True
        self._call.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_now(self) -> talking_head_pb2.TalkResponse:
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failure() from error
        except asyncio.CancelledError as error:
            raise SessionClosed("the session was closed") from error
        if not isinstance(response, talking_head_pb2.TalkResponse):
            raise SessionClosed("the server closed the session without saying that it ended")
        return response

    def _failure(self) -> ClientError:
        status = self._watch.status
        if status is None or status.code is grpc.StatusCode.OK:
            return SessionClosed("the session has ended; nothing more can be sent")
        if self._closed and status.code is grpc.StatusCode.CANCELLED:
            return SessionClosed("the session was closed")
        return error_from_status(status.code, status.message, read_status_details(status.trailing_metadata))


def _is_given_up() -> bool:
    """Whether it is the caller who is cancelled; grpc.aio raises the same where the call is."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def stream_was_broken(error: ClientError) -> bool:
    """Whether a stream ended by an accident that another stream can mend, not by what the server decided."""
    if isinstance(error, ServerUnavailable):
        return True
    # The transport's own: the server gives a reason with everything it says.
    from_transport = error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    return from_transport and not error.reason and isinstance(error, ServerError)
