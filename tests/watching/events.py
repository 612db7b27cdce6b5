"""What must happen in a system so that its metrics have something to say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tests.system.parts import RATE_HZ, eventually, page, until_free, value_on, voice
from tests.watching.conftest import GENERATOR_SLOTS, WatchedSystem
from visavis.client import AudioFormat, CapacityExhausted, Interrupted, Segment, Starved, VisavisClient

MONO = AudioFormat.s16(RATE_HZ)


async def cause_events(watched: WatchedSystem, wait_for_look: Callable[[], None]) -> None:
    """Speech, an interruption, an utterance that runs dry, a session that finds no room.

    wait_for_look: until somebody has seen the metrics as they are.
    """
    async with VisavisClient(watched.system.gateway_address) as client:
        await _converse(client, watched.avatar_id)
        await _starve(client, watched.avatar_id)
        await until_free(watched.system)
        await _crowd(client, watched, wait_for_look)


async def _converse(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=MONO, idle="pause") as session:
        await session.send(voice(20.0).pcm)
        events = session.events()
        while not isinstance(await anext(events), Segment):
            pass
        await session.interrupt()
        while not isinstance(await anext(events), Interrupted):
            pass
        await session.send(voice(2.0, seed=1).pcm)
        await session.end()
        async for _ in events:
            pass


async def _starve(client: VisavisClient, avatar_id: str) -> None:
    async with client.talk(avatar_id, audio_format=MONO, idle="pause", starvation="wait") as session:
        await session.send(voice(0.5).pcm)
        async for event in session.events():
            if isinstance(event, Starved):
                await session.end()


async def _crowd(client: VisavisClient, watched: WatchedSystem, wait_for_look: Callable[[], None]) -> None:
    async def full() -> bool:
        text = await asyncio.to_thread(page, watched.system, "generator")
        return value_on(text, "visavis_used_slots") == GENERATOR_SLOTS

    async with contextlib.AsyncExitStack() as sessions:
        for _ in range(GENERATOR_SLOTS):
            session = await sessions.enter_async_context(client.talk(watched.avatar_id, audio_format=MONO, idle="live"))
            await session.send(voice(1.0).pcm)
            await session.end_utterance()
        with contextlib.suppress(CapacityExhausted):
            async with client.talk(watched.avatar_id, audio_format=MONO):
                raise AssertionError("there was room for one more")
        assert await eventually(full)
        await asyncio.to_thread(wait_for_look)
