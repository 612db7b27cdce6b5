"""How old a gateway's list of instances may be, and what follows from it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.known_instances import KnownInstances
from gateway.mismatches import Mismatches
from gateway.placement import placement_order
from tests.gateway.gateway_harness import one_of_each, running_gateway
from tests.gateway.stage_servers import DecoderServer, GeneratorServer
from tests.gateway.talk_client import talking
from tests.gateway.test_placement import instance
from visavis.client import AudioFormat, Consent, VisavisClient
from visavis.runtime.errors import StateStoreUnavailable
from visavis.runtime.registry import StageInstance


@dataclass
class Heartbeats:
    """A registry, and a clock."""

    instances: list[StageInstance] = field(default_factory=lambda: [instance("a")])
    now: float = 100.0
    reads: int = 0
    fails: bool = False

    async def list_instances(self, stage: str) -> list[StageInstance]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.fails:
            raise StateStoreUnavailable("away")
        return list(self.instances)

    def known(self) -> KnownInstances:
        return KnownInstances(self, 2.0, lambda: self.now)


async def test_a_list_is_kept_for_a_heartbeat_and_read_by_one_at_a_time() -> None:
    heartbeats = Heartbeats()
    known = heartbeats.known()
    assert await asyncio.gather(*(known.of("generator") for _ in range(5))) == [heartbeats.instances] * 5
    assert heartbeats.reads == 1
    heartbeats.instances = [instance("a"), instance("b")]
    heartbeats.now += 1.9
    assert len(await known.of("generator")) == 1
    assert len(await known.of("generator", now=True)) == 2
    heartbeats.now += 2.0
    await known.of("generator")
    assert heartbeats.reads == 3
    await known.of("decoder")
    assert heartbeats.reads == 4


async def test_who_is_placed_counts_until_the_next_heartbeat() -> None:
    heartbeats = Heartbeats([instance("a"), instance("b"), instance("c")])
    known = heartbeats.known()
    order = []
    for _ in range(12):
        best = placement_order(await known.of("generator"))[0]
        known.placed(best)
        order.append(best.instance_id)
    assert order == ["a", "b", "c"] * 4
    known.placed(instance("gone"))
    heartbeats.now += 2.0
    assert await known.of("generator") == heartbeats.instances


async def test_another_look_is_worth_it_where_a_list_is_old_and_has_changed() -> None:
    heartbeats = Heartbeats()
    known = heartbeats.known()
    known.placed((await known.of("generator"))[0])
    heartbeats.now += 0.4
    assert not await known.news()
    assert heartbeats.reads == 1
    heartbeats.now += 0.2
    assert not await known.news()
    assert heartbeats.reads == 2
    heartbeats.now += 0.6
    heartbeats.instances = [instance("b")]
    assert await known.news()
    assert [each.instance_id for each in await known.of("generator")] == ["b"]
    assert heartbeats.reads == 3


async def test_one_that_gives_up_leaves_the_reading_to_the_others_and_an_outage_reaches_all() -> None:
    heartbeats = Heartbeats()
    known = heartbeats.known()
    impatient = asyncio.create_task(known.of("generator"))
    patient = asyncio.create_task(known.of("generator"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == heartbeats.instances
    heartbeats.fails, heartbeats.now = True, heartbeats.now + 2
    for outcome in await asyncio.gather(*(known.of("generator") for _ in range(2)), return_exceptions=True):
        assert isinstance(outcome, StateStoreUnavailable)
    heartbeats.fails = False
    assert await known.of("generator") == heartbeats.instances


def test_gateways_with_the_same_list_prefer_different_instances() -> None:
    instances = [instance(f"generator-{number}") for number in range(50)]
    orders = [placement_order(instances, gateway_id=f"gateway-{number}") for number in range(50)]
    assert len({order[0].instance_id for order in orders}) > 25
    assert all(
        sorted(order, key=lambda i: i.instance_id) == sorted(instances, key=lambda i: i.instance_id) for order in orders
    )
    loaded = placement_order([*instances, instance("idle", slots=8)], gateway_id="g")
    busy = placement_order([instance("busy", used_slots=1), *instances], gateway_id="g")
    assert loaded[0].used_slots == 0
    assert busy[-1].instance_id == "busy"


def test_a_mismatch_stands_once_it_was_seen_for_long_enough_without_a_pause() -> None:
    now = 0.0
    mismatches = Mismatches(8.0, lambda: now)

    def look(at: float, model: str = "m") -> bool:
        nonlocal now
        now = at
        return mismatches.stands(model)

    assert [look(at) for at in (0.0, 3.0, 7.9, 8.0, 9.0)] == [False, False, False, True, True]
    # Whatever was in between, nobody looked.
    assert [look(at) for at in (17.1, 25.1)] == [False, True]
    assert not look(25.1, "another")
    mismatches.none("m")
    assert not mismatches.stands("m")


# At a gateway ---------------------------------------------------------------------------------------------------------


async def test_sessions_are_opened_without_looking_each_time(redis_url: str) -> None:
    async with running_gateway(redis_url, HEARTBEAT_SECONDS="60") as gateway:
        await gateway.redis.config_resetstat()
        avatar_id = await gateway.register_avatar()
        for _ in range(3):
            async with talking(gateway, avatar_id=avatar_id) as stream:
                await stream.end_audio()
                await stream.rest()
        lookups = (await gateway.redis.info("commandstats"))["cmdstat_smembers"]["calls"]
        assert lookups == len(gateway.stages)


async def test_where_an_old_list_leads_nowhere_a_new_one_is_read(redis_url: str) -> None:
    """Everybody of a stage was replaced within a heartbeat."""
    stages = one_of_each()
    async with running_gateway(redis_url, stages, HEARTBEAT_SECONDS="2") as gateway:
        avatar_id = await gateway.register_avatar()
        await stages[1].stop()
        await gateway.registry.remove("generator", stages[1].instance_id)
        successor = GeneratorServer(leases=gateway.runtime.leases)
        await successor.start()
        try:
            await successor.register(gateway.registry)
            await asyncio.sleep(0.6)
            async with talking(gateway, avatar_id=avatar_id):
                assert len(successor.sessions) == 1
        finally:
            await successor.stop()


@pytest.mark.parametrize("how", ["missing", "draining", "another model"])
async def test_clients_that_are_there_before_all_stages_are_served(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """At a system's start, and while a stage is replaced: they wait, and nobody hears that models do not fit."""
    # Nothing settles meanwhile, however long this machine takes.
    monkeypatch.setattr("gateway.stages.Mismatches", lambda seconds: Mismatches(seconds, lambda: 0.0))
    stages = one_of_each()
    decoder: DecoderServer = stages.pop()  # type: ignore[assignment]
    async with running_gateway(redis_url, stages, HEARTBEAT_SECONDS="0.5") as gateway:
        await decoder.start()
        try:
            if how != "missing":
                changes = {"draining": True} if how == "draining" else {"model_fingerprint": "cd" * 32}
                await decoder.register(gateway.registry, **changes)
            consent = Consent.synthetic_person("tests", "nobody")
            async with VisavisClient(gateway.address, patience_seconds=60) as client:
                registering = asyncio.create_task(client.register_avatar(b"\xff\xd8", consent))
                await asyncio.sleep(0.3)
                assert not registering.done()
                await decoder.register(gateway.registry)
                avatar = await registering
                async with client.talk(avatar, audio_format=AudioFormat.s16(16_000)):
                    pass
        finally:
            await decoder.stop()
