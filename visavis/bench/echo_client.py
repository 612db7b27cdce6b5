"""Sends messages to an echo server and times their return."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf import message

from visavis.bench.raw_messages import RawConnection, framed
from visavis.runtime.channels import channel_options

# Messages on their way at once where throughput is measured.
WINDOW: Final = 4
WARM_UP_MESSAGES: Final = 20


class EchoStream(Protocol):
    """One open stream: what is written comes back in order."""

    async def write(self) -> None:
        """Sends the message once."""
        ...

    async def read(self) -> None:
        """Waits for the next echo."""
        ...


class RawStream:
    """A TCP connection."""

    def __init__(self, connection: socket.socket, payload: bytes) -> None:
        self._connection = RawConnection(connection)
        self._message = framed(payload)

    async def write(self) -> None:
        """Sends length and message."""
        await self._connection.send(self._message)

    async def read(self) -> None:
        """Reads one message back."""
        await self._connection.receive()


class GrpcStream:
    """A bidirectional gRPC call."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Any, Any], item: Any) -> None:
        self._call, self._item = call, item

    async def write(self) -> None:
        """Sends the message."""
        await self._call.write(self._item)

    async def read(self) -> None:
        """Reads one message back."""
        if await self._call.read() is grpc.aio.EOF:
            raise ConnectionError("the echo server closed the stream")


@asynccontextmanager
async def raw_stream(port: int, item: message.Message) -> AsyncIterator[EchoStream]:
    """A stream to `echo_server raw`."""
    with socket.socket() as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        yield RawStream(connection, item.SerializeToString())


@asynccontextmanager
async def grpc_stream(port: int, item: message.Message, *, as_bytes: bool) -> AsyncIterator[EchoStream]:
    """A stream to `echo_server grpc`; `as_bytes` leaves protobuf out."""
    name = "bytes" if as_bytes else item.DESCRIPTOR.full_name
    write: Callable[[Any], bytes] = bytes if as_bytes else type(item).SerializeToString
    read: Callable[[bytes], Any] = bytes if as_bytes else type(item).FromString
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel:
        call = channel.stream_stream(f"/echo/{name}", write, read)()
        try:
            yield GrpcStream(call, item.SerializeToString() if as_bytes else item)
        finally:
            call.cancel()


async def round_trips(stream: EchoStream, seconds: float) -> list[float]:
    """Times of messages sent one after the other for so long; the first ones warm up and do not count."""
    for _ in range(WARM_UP_MESSAGES):
        await stream.write()
        await stream.read()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await stream.write()
        await stream.read()
        found.append(time.perf_counter() - begin)
    return found


async def messages_per_second(stream: EchoStream, seconds: float) -> float:
    """How many messages make the round with `WINDOW` of them on their way."""
    room = asyncio.Semaphore(WINDOW)
    written = 0
    begin = time.perf_counter()

    async def write() -> None:
        nonlocal written
        while time.perf_counter() < begin + seconds:
            await room.acquire()
            await stream.write()
            written += 1

    writing = asyncio.create_task(write())
    count = 0
    try:
        while not writing.done() or count < written:
            if count < written:
                await stream.read()
                count += 1
                room.release()
            else:
                await asyncio.sleep(0)
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return count / (time.perf_counter() - begin)
