"""A rolling update: both generators, then everything else, replaced one after the other under talking clients."""

import asyncio
import random
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.faults.chaos import register_personas, shared_out, talk_on
from tests.faults.cluster import Cluster, Instance, running_cluster, until
from tests.faults.conversation import Outcome

SERVICES = ("generator", "audio-encoder", "decoder", "gateway")


async def replace(instance: Instance) -> None:
    """SIGTERM, as Kubernetes sends it, and the next pod is awaited."""
    process, starts = instance.process(), instance.starts
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert await until(lambda: instance.starts > starts, 60), "it drains and ends by itself"
    await instance.wait_ready()


def metric(cluster: Cluster, name: str) -> float:
    """The sum of a metric over the gateways that run now, and over its labels."""
    total = 0.0
    for gateway in cluster.of("gateway"):
        text = urllib.request.urlopen(f"http://{gateway.metrics_address}/metrics", timeout=10).read().decode()
        total += sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))
    return total


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
        await asyncio.sleep(3)
        for instance in cluster.of("generator"):
            await replace(instance)
        exact = metric(cluster, 'visavis_gateway_hand_overs_total{kind="exact",stage="generator"}')
        for service in ("audio-encoder", "decoder", "gateway"):
            for instance in cluster.of(service):
                await replace(instance)
        stop.set()
        await asyncio.gather(*clients)
        restarts = {instance.name: instance.starts - 1 for instance in cluster.instances}
    print(f"{len(outcomes)} sessions, {sum(each.chunks for each in outcomes)} chunks, {exact:.0f} exact hand-overs")
    assert all(count == 1 for count in restarts.values()), restarts
    assert exact >= 1
    assert [each.error for each in outcomes if each.error] == []
    assert [violation for each in outcomes for violation in each.violations] == []
