"""A rolling update under talking clients: both generators, then the pods of every other service."""

import asyncio
import random
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.chaos import register_personas, shared_out, talk_on
from tests.faults.cluster import START_SECONDS, Instance, running_cluster, until
from tests.faults.conversation import Outcome


async def replace(instance: Instance) -> None:
    """SIGTERM, as Kubernetes sends it, and the next pod is awaited."""
    process, starts = instance.process(), instance.starts
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert await until(lambda: instance.starts > starts, START_SECONDS), "it drains and ends by itself"
    await instance.wait_ready()


async def replace_each(instances: Sequence[Instance]) -> None:
    """One after the other, as one Deployment does it."""
    for instance in instances:
        await replace(instance)


async def metric(instance: Instance, name: str) -> float:
    """The sum of a metric over its labels."""

    def read() -> str:
        text: str = urllib.request.urlopen(f"http://{instance.metrics_address}/metrics", timeout=60).read().decode()
        return text

    text = await asyncio.to_thread(read)
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def first_that_serves(instances: Sequence[Instance]) -> Instance:
    """One that has a session now; it is waited for."""
    found: list[Instance] = []

    async def serving() -> bool:
        found[:] = [instance for instance in instances if await metric(instance, "visavis_used_slots") > 0]
        return bool(found)

    assert await until(serving, START_SECONDS)
    return found[0]


@pytest.mark.system
@pytest.mark.timeout(900)
async def test_everything_is_replaced_under_load_and_no_chunk_is_lost(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    async with running_cluster(tmp_path, random.Random(0)) as cluster:
        personas = await register_personas(cluster, clients=2)
        stop = asyncio.Event()
        clients = [
            asyncio.create_task(talk_on(cluster, own, personas, random.Random(number), outcomes, stop, chunks=25))
            for number, own in enumerate(shared_out(personas, 2))
        ]
        generators = cluster.of("generator")
        while generators:
            instance = await first_that_serves(generators)
            await replace(instance)
            generators.remove(instance)
        exact_name = 'visavis_gateway_hand_overs_total{kind="exact",stage="generator"}'
        exact = sum([await metric(gateway, exact_name) for gateway in cluster.of("gateway")])
        # A gateway's end waits for its sessions, a stage's new start for the processor: these go on side by side.
        await asyncio.gather(
            replace_each(cluster.of("gateway")),
            replace_each(cluster.of("audio-encoder") + cluster.of("decoder")),
        )
        stop.set()
        await asyncio.gather(*clients)
        restarts = {instance.name: instance.starts - 1 for instance in cluster.instances}
    print(f"{len(outcomes)} sessions, {sum(each.chunks for each in outcomes)} chunks, {exact:.0f} exact hand-overs")
    assert all(count == 1 for count in restarts.values()), restarts
    assert exact >= 1
    assert [each.error for each in outcomes if each.error] == []
    assert [violation for each in outcomes for violation in each.violations] == []
