"""The link that misbehaves does what it says, and nothing else."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.link import Link, Weather


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A link to a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Link("echo", server.sockets[0].getsockname()[1], random.Random(0)) as link:
        yield link


async def open_link(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through the link."""
    host, port = link.address.split(":")
    return await asyncio.open_connection(host, int(port))


async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """What comes back."""
    writer.write(data)
    await writer.drain()
    return await reader.readexactly(len(data))


@pytest.mark.parametrize("weather", [Weather.FAIR, Weather.DELAY, Weather.THROTTLE, Weather.SPLIT])
async def test_no_byte_is_lost_or_changed(link: Link, weather: Weather) -> None:
    amounts = {Weather.FAIR: 0.0, Weather.DELAY: 0.01, Weather.THROTTLE: 1e6, Weather.SPLIT: 500}
    link.set_weather(weather, amounts[weather])
    data = random.Random(1).randbytes(50_000)
    assert await echoed(*await open_link(link), data) == data


async def test_a_delay_is_felt_both_ways(link: Link) -> None:
    link.set_weather(Weather.DELAY, 0.1)
    reader, writer = await open_link(link)
    begin = time.monotonic()
    await echoed(reader, writer, b"x")
    assert time.monotonic() - begin >= 0.2


async def test_a_throttle_is_felt(link: Link) -> None:
    link.set_weather(Weather.THROTTLE, 20_000)
    reader, writer = await open_link(link)
    begin = time.monotonic()
    await echoed(reader, writer, bytes(4_000))
    assert time.monotonic() - begin >= 0.4


async def test_half_open_lets_nothing_pass_and_ends_nothing(link: Link) -> None:
    reader, writer = await open_link(link)
    assert await echoed(reader, writer, b"before") == b"before"
    link.set_weather(Weather.HALF_OPEN)
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    link.set_weather(Weather.FAIR)
    assert await reader.readexactly(6) == b"during"


async def test_a_reset_breaks_open_connections_and_lets_new_ones_in(link: Link) -> None:
    reader, writer = await open_link(link)
    await echoed(reader, writer, b"before")
    link.reset()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert await echoed(*await open_link(link), b"after") == b"after"


async def test_nobody_behind_the_link_is_felt_as_nobody() -> None:
    async with Link("nothing", 1, random.Random(0)) as link:
        reader, _ = await open_link(link)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
