"""Redis that is down, full or read-only: what runs goes on, what is new is refused, and it recovers by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
import pytest

from gateway.resume_token import ResumeToken
from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.recorded_talk import recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import MONO_16K, eventually, open_stream, session_config
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import VisavisError
from visavis.v1.talking_head_pb2 import TalkRequest

SPEECH = noise_pcm(MONO_16K, 8 * 15_360, 1)
QUICK = {"CHECKPOINT_SECONDS": "0.1", "CHECKPOINT_CHUNKS": "1"}


async def refused_session(gateway: GatewayUnderTest, avatar_id: str) -> VisavisError:
    async with open_stream(gateway) as stream:
        await stream.send(TalkRequest(config=session_config(avatar_id)))
        return await stream.failure()


async def _fill(gateway: GatewayUnderTest) -> None:
    used = (await gateway.redis.info("memory"))["used_memory"]
    await gateway.redis.config_set("maxmemory", str(used // 2))


async def _empty(gateway: GatewayUnderTest) -> None:
    await gateway.redis.config_set("maxmemory", "0")


async def _make_read_only(gateway: GatewayUnderTest) -> None:
    await gateway.redis.execute_command("REPLICAOF", "127.0.0.1", "1")


async def _make_writable(gateway: GatewayUnderTest) -> None:
    await gateway.redis.execute_command("REPLICAOF", "NO", "ONE")


Change: TypeAlias = Callable[[GatewayUnderTest], Awaitable[None]]


@pytest.mark.parametrize(
    ("spoil", "mend"), [(_fill, _empty), (_make_read_only, _make_writable)], ids=["full", "read-only"]
)
async def test_a_store_that_takes_nothing(redis_url: str, spoil: Change, mend: Change) -> None:
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.1
    async with running_gateway(redis_url, stages, **QUICK) as gateway, recorded_talk(gateway) as talk:
        avatar_id = await gateway.register_avatar()
        await talk.speak(SPEECH)
        await talk.until_chunk(1)
        await spoil(gateway)
        try:
            await talk.until_chunk(4)
            await eventually(lambda: gateway.metric("visavis_gateway_checkpoints_total", result="failed") > 0)
            assert (await refused_session(gateway, avatar_id)).code is grpc.StatusCode.UNAVAILABLE
        finally:
            await mend(gateway)
        written = gateway.metric("visavis_gateway_checkpoints_total", result="written")
        await talk.until_chunk(6)
        await eventually(lambda: gateway.metric("visavis_gateway_checkpoints_total", result="written") > written)
        talk.break_off()
        await talk.resume()
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_a_store_that_comes_back_empty(redis_url: str) -> None:
    """What runs makes its checkpoint anew, so that it can be resumed again."""
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.1
    with EmbeddedRedis() as redis:
        async with running_gateway(redis.url, stages, **QUICK) as gateway, recorded_talk(gateway) as talk:
            await talk.speak(SPEECH)
            await talk.until_chunk(1)
            avatar = {key: await gateway.redis.dump(key) for key in await gateway.redis.keys("visavis:{avatars}*")}
            await redis.stop()
            await talk.until_chunk(4)
            await redis.start()
            for key, value in avatar.items():
                await gateway.redis.restore(key, 0, value or b"")
            for stage in stages:
                await stage.register(gateway.registry)
            session_id = ResumeToken.parse(talk.token).session_id
            await eventually(lambda: gateway.redis.exists(f"visavis:{{{session_id}}}:right"))
            talk.break_off()
            await talk.resume()
            await talk.end_audio()
            await talk.finish()
            talk.check()


async def test_checkpoints_are_bounded_and_expire(redis_url: str) -> None:
    # Their life begins anew with each: the next one may be late by as long as three of its intervals.
    settings = {"HISTORY_CHUNKS": "3", "CHECKPOINT_CHUNKS": "1", "CHECKPOINT_SECONDS": "10"}
    async with running_gateway(redis_url, None, **settings) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.end_utterance()
        await talk.until("utterance_ended")

        async def last_is_written() -> bool:
            state = await gateway.redis.get(f"visavis:{{{ResumeToken.parse(talk.token).session_id}}}:session")
            return bool(json.loads(state or b"")["last_written"] == 8)

        await eventually(last_is_written)
        kept = await gateway.redis.keys("visavis:*:made:*")
        assert len(kept) == len(await gateway.redis.keys("visavis:*:heard:*")) == 3
        for key in [
            *kept,
            *await gateway.redis.keys("visavis:*:session"),
            *await gateway.redis.keys("visavis:*:right"),
        ]:
            assert 30_000 < await gateway.redis.pttl(key) <= 60_000
        await talk.interrupt(0)
        await talk.until("interrupted")
        await talk.end_audio()
        await talk.finish()


async def test_without_checkpoints_of_chunks_the_last_one_has_them(redis_url: str) -> None:
    settings = {**QUICK, "CHECKPOINT_CHUNKS": "0"}
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.05
    async with running_gateway(redis_url, stages, **settings) as gateway, recorded_talk(gateway) as talk:
        await talk.speak(SPEECH)
        await talk.until_chunk(3)
        await asyncio.sleep(0.2)
        assert await gateway.redis.keys("visavis:*:made:*") == []
        talk.break_off()
        await eventually(lambda: gateway.runtime.slots.used_slots == 0)
        assert len(await gateway.redis.keys("visavis:*:made:*")) >= 3
        await talk.resume()
        await talk.end_audio()
        await talk.finish()
        talk.check()
