"""Messages on a TCP connection with as little as possible around them: four bytes of length, then the message."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from visavis.contract import MAX_MESSAGE_BYTES

_HEADER: Final = struct.Struct("!I")


def framed(payload: bytes) -> bytes:
    """A message as it travels."""
    return _HEADER.pack(len(payload)) + payload


class RawConnection:
    """One end of a connection; takes the socket over. Nothing waits for company on it, as gRPC sets it too."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._buffer = bytearray(2 * (MAX_MESSAGE_BYTES + _HEADER.size))
        self._taken = 0
        self._filled = 0

    async def send(self, message: bytes | memoryview) -> None:
        """Sends a framed message."""
        await asyncio.get_running_loop().sock_sendall(self._connection, message)

    async def receive(self) -> memoryview:
        """The next message, framed; valid until the next call. ConnectionError when the other side has closed."""
        # What came behind the message before moves to the front; one recv then mostly brings a whole small message.
        rest = self._filled - self._taken
        self._buffer[:rest] = self._buffer[self._taken : self._filled]
        self._filled = rest
        await self._fill(_HEADER.size)
        self._taken = _HEADER.size + _HEADER.unpack_from(self._buffer)[0]
        await self._fill(self._taken)
        return memoryview(self._buffer)[: self._taken]

    async def _fill(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        while self._filled < size:
            received = await loop.sock_recv_into(self._connection, memoryview(self._buffer)[self._filled :])
            if not received:
                raise ConnectionError("the other side has closed the connection")
            self._filled += received
