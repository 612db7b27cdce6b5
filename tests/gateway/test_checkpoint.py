"""Checkpoints of this version, of others, and of none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import checkpoint_store
from gateway.checkpoint import (
    VERSION,
    Checkpoint,
    checkpoint_state,
    chunk_indices,
    chunk_values,
    read_checkpoint,
    was_left,
)
from gateway.input_position import InputPosition
from gateway.kept_chunk import KeptChunk
from gateway.resume_token import ResumeToken
from tests.gateway.gateway_harness import GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.recorded_talk import RecordedTalk, recorded_talk
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import MONO_16K, TalkStream, eventually
from visavis.client import AudioFormat, Resumed, Segment, VisavisClient
from visavis.contract import CHUNK_SAMPLES
from visavis.runtime.errors import CheckpointUnreadable, Draining, VisavisError
from visavis.v1.talking_head_pb2 import SessionConfig
from visavis.v1.tensor_pb2 import Tensor

SPEECH = noise_pcm(MONO_16K, 6 * CHUNK_SAMPLES, 1)
CONFIG = SessionConfig(avatar_id="a", seed=7)
SAMPLES = bytes(4 * CHUNK_SAMPLES)

# As version 0.1.0 first wrote it: it did not know `left`, and nothing that came later.
FIRST_STATE = {
    "version": 1,
    "avatar_id": "a",
    "epoch": 2,
    "epoch_border": 1,
    "epoch_position": [15360, 0],
    "last_written": 3,
    "chunks_written": 3,
    "frames_written": 72,
    "started_unix_seconds": 1_790_000_000.5,
    "gateway_id": "g1",
    "generator_id": "generator-1",
    "replay_chunks": {"audio_encoder": 4, "generator": 10, "decoder": 6},
    "chunks": {"2": [30720, 0], "3": [46080, 0]},
}


def kept(index: int) -> KeptChunk:
    latents = Tensor(shape=[1], data=b"1234")
    return KeptChunk(2, 1, index, False, InputPosition(15_360 * index, 0), SAMPLES, b"", latents, latents)


VALUES: dict[str, bytes | None] = {**chunk_values(kept(2)), **chunk_values(kept(3))}


def read(state: Any, values: dict[str, bytes | None] = VALUES) -> Checkpoint:
    return read_checkpoint(json.dumps(state).encode(), CONFIG.SerializeToString(), values)


def test_the_first_version_is_read() -> None:
    checkpoint = read(FIRST_STATE)
    assert (checkpoint.epoch, checkpoint.last_written, checkpoint.left) == (2, 3, False)
    assert checkpoint.chunks == (kept(2), kept(3))
    assert read(json.loads(checkpoint_state(checkpoint))) == checkpoint


def test_fields_of_other_versions_are_passed_over_or_have_a_default() -> None:
    known = read(FIRST_STATE)
    assert read({**FIRST_STATE, "a_field_of_tomorrow": {"x": [1]}}) == known
    needed = {"version", "epoch", "epoch_border", "epoch_position", "last_written"}
    least = read({name: value for name, value in FIRST_STATE.items() if name in needed})
    assert (least.chunks_written, least.frames_written, least.chunks, least.replay_chunks) == (3, 72, (), {})
    for name in needed:
        with pytest.raises(ValueError, match=name):
            read({key: value for key, value in FIRST_STATE.items() if key != name})


def test_a_version_that_this_gateway_would_misread_is_left_to_another() -> None:
    with pytest.raises(CheckpointUnreadable):
        read({**FIRST_STATE, "version": VERSION + 1, "epoch": "of another kind"})


def test_a_broken_chunk_counts_as_missing_and_so_do_those_before_it() -> None:
    for broken in (None, b"", b"\xff\xff", b"x" * 100_000):
        assert read(FIRST_STATE, {**VALUES, "heard:3": broken}).chunks == ()
        assert read(FIRST_STATE, {**VALUES, "made:2": broken}).chunks == (kept(3),)
    assert read(FIRST_STATE, {**VALUES, "heard:3": VALUES["heard:2"]}).chunks == ()
    with_gap = {**FIRST_STATE, "chunks": {"1": [0, 0], "3": [46080, 0]}}
    assert read(with_gap, {**VALUES, **chunk_values(kept(1))}).chunks == (kept(3),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("1"), inner, max_size=3),
    max_leaves=6,
)
STATES = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*FIRST_STATE, "left", "new"]), JSON, min_size=1, max_size=3).map(
        lambda changes: json.dumps({**FIRST_STATE, **changes}).encode()
    ),
)


@given(STATES, st.binary(max_size=20) | st.just(CONFIG.SerializeToString()), st.binary(max_size=20))
def test_any_bytes_are_a_checkpoint_or_none(state: bytes, config: bytes, value: bytes) -> None:
    was_left(state)
    try:
        checkpoint = read_checkpoint(state, config, {**VALUES, "heard:3": value})
    except (ValueError, CheckpointUnreadable):
        return
    assert read_checkpoint(checkpoint_state(checkpoint), config, VALUES).epoch == checkpoint.epoch


# At a gateway ---------------------------------------------------------------------------------------------------------


async def broken_off(talk: RecordedTalk) -> str:
    """A session that can be resumed; gives the key of its state."""
    await talk.speak(SPEECH)
    await talk.until_chunk(3)
    talk.break_off()
    await eventually(lambda: talk.gateway.runtime.slots.used_slots == 0)
    return f"visavis:{{{ResumeToken.parse(talk.token).session_id}}}:session"


async def answer_to_resuming(talk: RecordedTalk) -> VisavisError | None:
    stream = TalkStream(talk.gateway.stub.Talk())
    try:
        await stream.send(talk.progress.request(talk.token))
        assert (await stream.next()).HasField("resumed")
    except grpc.aio.AioRpcError:
        return await stream.failure()
    finally:
        stream.call.cancel()
    return None


async def rewrite(gateway: GatewayUnderTest, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    state = json.loads(await gateway.redis.get(key) or b"")
    change(state)
    await gateway.redis.set(key, json.dumps(state), keepttl=True)


async def test_a_session_passes_between_adjacent_versions(redis_url: str) -> None:
    """What an older gateway left out, and what a newer one added."""
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        key = await broken_off(talk)
        await rewrite(gateway, key, lambda state: state.pop("left"))
        await talk.resume()
        await talk.until_chunk(4)
        talk.break_off()
        await eventually(lambda: gateway.runtime.slots.used_slots == 0)
        await rewrite(gateway, key, lambda state: state.update(mood="cheerful"))
        await talk.resume()
        await talk.end_audio()
        await talk.finish()
        talk.check()


async def test_the_sdk_comes_again_until_a_gateway_can_read_the_checkpoint(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = 0

    def read_by_older_gateways_first(state: bytes) -> list[int]:
        nonlocal refusals
        refusals += 1
        if refusals <= 3:
            newer = {**json.loads(state), "version": VERSION + 1}
            return chunk_indices(json.dumps(newer).encode())
        return chunk_indices(state)

    monkeypatch.setattr(checkpoint_store, "chunk_indices", read_by_older_gateways_first)
    stages = one_of_each()
    stages[1].faults.chunk_seconds = 0.1
    async with running_gateway(redis_url, stages) as gateway:
        avatar_id = await gateway.register_avatar()
        async with (
            VisavisClient(gateway.address) as client,
            client.talk(avatar_id, audio_format=AudioFormat.s16(16_000), idle="pause") as session,
        ):
            await session.send(SPEECH)
            await session.end()
            frames, resumed = 0, 0
            async for event in session.events():
                if isinstance(event, Segment):
                    if not frames:
                        gateway.runtime.slots.evict_all(Draining("rolled", 0.0))
                    frames += len(event.frames)
                resumed += isinstance(event, Resumed)
            assert (frames, resumed) == (24 * 6, 1)
        assert refusals == 4
        assert gateway.metric("visavis_gateway_resumed_sessions_total", result="refused") == 3


async def test_whatever_is_stored_a_client_gets_a_proper_status(redis_url: str) -> None:
    chance = random.Random(1)
    async with running_gateway(redis_url) as gateway, recorded_talk(gateway) as talk:
        key = await broken_off(talk)
        redis: Any = gateway.redis
        names = sorted(name.decode() for name in await redis.keys(key.removesuffix("session") + "*"))
        saved = {name: await redis.dump(name) for name in names}
        spoilt = [name for name in names if name.rpartition(":")[2] in ("session", "config", "3")]
        told: set[str] = set()
        for _ in range(60):
            for name, value in saved.items():
                await redis.restore(name, 3_600_000, value, replace=True)
            name = chance.choice(spoilt)
            stored = bytearray(await redis.get(name))
            for _ in range(chance.randint(1, 8)):
                stored[chance.randrange(len(stored))] = chance.randrange(256)
            await redis.set(name, bytes(stored), keepttl=True)
            error = await answer_to_resuming(talk)
            told.add("OK" if error is None else error.code.name)
            await eventually(lambda: gateway.runtime.slots.used_slots == 0)
        assert told <= {"OK", "NOT_FOUND", "UNAVAILABLE", "INVALID_ARGUMENT"}, told
        assert {"OK", "NOT_FOUND"} <= told
