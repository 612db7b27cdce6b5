"""The gateways that a client knows: one connection each, the next one where one is full or cannot be reached."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import grpc
import grpc.aio

from visavis.client.errors import (
    CapacityExhausted,
    ClientError,
    RetryLater,
    ServerError,
    ServerUnavailable,
    SessionClosed,
    error_from_rpc,
)
from visavis.client.talk_stream import TalkStream, stream_was_broken
from visavis.client.tls import Tls
from visavis.contract import MAX_MESSAGE_BYTES
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2_grpc import TalkingHeadServiceStub

_Answer = TypeVar("_Answer")

# A peer that vanished without a word is noticed after their sum. Servers allow a ping every 5 s.
_KEEPALIVE_MILLISECONDS: Final = 10_000
_KEEPALIVE_ANSWER_MILLISECONDS: Final = 5_000
_SHORTEST_PAUSE_SECONDS: Final = 0.1


class Gateways:
    """Calls go to the gateway that answered last; every address is tried before `CapacityExhausted` or, where none was
    full, `ServerUnavailable` is raised.

    A server that says it is unavailable and when to come again is asked again, for `patience_seconds` in all.
    Raises ValueError when there is no address, or for TLS settings that cannot be.
    """

    def __init__(self, addresses: Sequence[str], tls: Tls | None, *, patience_seconds: float = 0.0) -> None:
        if not addresses:
            raise ValueError("a client needs the address of a gateway")
        self._patience_seconds = patience_seconds
        self._addresses: Final = tuple(addresses)
        self._channels: Final = [_open_channel(address, tls) for address in self._addresses]
        self._current = 0

    async def close(self) -> None:
        """Close the connections; streams that still run are dropped."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def wait_until_reachable(self, timeout_seconds: float) -> None:
        """Wait for a connection to any gateway. ServerUnavailable when there is none in time."""
        ready = [asyncio.ensure_future(channel.channel_ready()) for channel in self._channels]
        try:
            done, _ = await asyncio.wait(ready, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in ready:
                waiting.cancel()
            await asyncio.gather(*ready, return_exceptions=True)
        if not done:
            raise ServerUnavailable(f"no server answers at {' or '.join(self._addresses)}")
        self._current = next(index for index, waiting in enumerate(ready) if waiting in done)

    async def call(self, start: Callable[[TalkingHeadServiceStub], Awaitable[_Answer]]) -> _Answer:
        """The answer to a unary call; raises its failure as a typed error."""

        async def attempt(channel: grpc.aio.Channel) -> _Answer:
            try:
                return await start(TalkingHeadServiceStub(channel))
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

        return await self._patiently(attempt)

    async def open_talk(self, first: talking_head_pb2.TalkRequest) -> tuple[TalkStream, talking_head_pb2.TalkResponse]:
        """A `Talk` stream that begins with `first` (`config` or `resume`), and the server's `started` or `resumed`.

        Whoever resumes has a patience of its own.
        """
        open_once = self._first_that_takes if first.HasField("resume") else self._patiently
        return await open_once(lambda channel: _open_talk(channel, first))

    async def _patiently(self, attempt: Callable[[grpc.aio.Channel], Awaitable[_Answer]]) -> _Answer:
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + self._patience_seconds
        while True:
            try:
                return await self._first_that_takes(attempt)
            except ServerUnavailable as error:
                pause_seconds = max(error.retry_after_seconds or 0.0, _SHORTEST_PAUSE_SECONDS)
                if error.retry_after_seconds is None or loop.time() + pause_seconds > gives_up_at:
                    raise
            await asyncio.sleep(pause_seconds)

    async def _first_that_takes(self, attempt: Callable[[grpc.aio.Channel], Awaitable[_Answer]]) -> _Answer:
        refusal: RetryLater | None = None
        for _ in self._channels:
            try:
                return await attempt(self._channels[self._current])
            except CapacityExhausted as full:
                refusal = full
            except ServerUnavailable as unavailable:
                refusal = refusal if isinstance(refusal, CapacityExhausted) else unavailable
            self._current = (self._current + 1) % len(self._channels)
        assert refusal is not None, "there is an address"
        raise refusal


async def _open_talk(
    channel: grpc.aio.Channel, first: talking_head_pb2.TalkRequest
) -> tuple[TalkStream, talking_head_pb2.TalkResponse]:
    expected = "resumed" if first.HasField("resume") else "started"
    stream = TalkStream(TalkingHeadServiceStub(channel).Talk())
    try:
        with suppress(ClientError):  # the call has failed already; reading says why
            await stream.write(first)
        response = await stream.read()
        if response.WhichOneof("response") != expected:
            raise SessionClosed(f"the server did not answer with {expected!r}")
    except ServerError as error:
        await stream.close()
        if stream_was_broken(error):  # nothing has begun, so any gateway will do
            raise ServerUnavailable(str(error), code=error.code) from error
        raise
    except BaseException:
        await stream.close()
        raise
    return stream, response


def _open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MILLISECONDS),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)
