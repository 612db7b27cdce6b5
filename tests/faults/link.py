"""A network connection that misbehaves on demand: a TCP proxy between two parts of the system."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_PIECE_BYTES: Final = 16 * 1024


class Weather(StrEnum):
    """How a link treats what passes."""

    FAIR = "fair"
    DELAY = "delay"
    THROTTLE = "throttle"
    SPLIT = "split"
    HALF_OPEN = "half-open"


@dataclass(slots=True, eq=False)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter

    def reset(self) -> None:
        """Ends both sides with RST, so that neither gets a polite end."""
        for writer in (self.near, self.far):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Link:
    """Forwards connections to `port` on this machine; `async with` serves, `address` is where.

    DELAY: every piece waits `amount` seconds. THROTTLE: `amount` bytes a second. SPLIT: pieces of 1 to 7 bytes for the
    first `amount` bytes, so that every length and header is cut somewhere. HALF_OPEN: nothing passes, nothing ends.
    """

    def __init__(self, name: str, port: int, chance: random.Random) -> None:
        self.name: Final = name
        self._port: Final = port
        self._chance: Final = chance
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._weather = Weather.FAIR
        self._amount = 0.0
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """host:port of the near end."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def set_weather(self, weather: Weather, amount: float = 0.0) -> None:
        """From now on, for open and for new connections."""
        self._weather, self._amount = weather, amount
        if weather is Weather.HALF_OPEN:
            self._passes.clear()
        else:
            self._passes.set()

    def reset(self) -> None:
        """Breaks every open connection."""
        for connection in list(self._connections):
            connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # nobody listens: so it is for the near side too
            near.transport.abort()
            return
        connection = _Connection(near, far)
        self._connections.add(connection)
        directions = [
            asyncio.create_task(self._forward(reader, far)),
            asyncio.create_task(self._forward(far_reader, near)),
        ]
        try:
            await asyncio.gather(*directions)
        except (OSError, asyncio.CancelledError):  # asyncio's streams print a cancelled handler as an error
            pass
        finally:
            for direction in directions:
                direction.cancel()
            self._connections.discard(connection)
            connection.reset()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            await self._passes.wait()
            await self._write(piece, writer)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        match self._weather:
            case Weather.DELAY:
                await asyncio.sleep(self._amount)
            case Weather.THROTTLE:
                await asyncio.sleep(len(piece) / self._amount)
            case Weather.SPLIT:
                piece = await self._write_split(piece, writer)
        writer.write(piece)
        await writer.drain()

    async def _write_split(self, piece: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Writes crumbs and gives the rest."""
        crumbs = min(len(piece), int(self._amount))
        start = 0
        while start < crumbs:
            end = start + self._chance.randint(1, 7)
            writer.write(piece[start:end])
            await writer.drain()
            await asyncio.sleep(0)
            start = end
        return piece[start:]
