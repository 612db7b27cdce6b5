"""Faults at random against the real services under talking clients: `make chaos FAULTS=200 SEED=1`.

Every fault comes from the seed; when it happens within the chunk cycle does not, as clients and services run freely.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from PIL import Image
from redis.asyncio import Redis

from tests.faults.cluster import HEARTBEAT_SECONDS, START_SECONDS, Cluster, running_cluster, until
from tests.faults.conversation import Outcome, Persona, converse
from tests.faults.fault_plan import WORKER_FAULTS, Fault, PlannedFault, plan_faults
from tests.faults.link import Link, Weather
from tests.system.parts import portrait_jpeg
from visavis.client import AudioFormat, ClientError, Consent, VideoFormat, VisavisClient
from visavis.client.gateways import Gateways
from visavis.contract import CHUNK_SAMPLES

# Of each client, one at a time: nobody else has them, so that whatever reaches the wrong session is recognised.
_PERSONAS_PER_CLIENT: Final = 2
_RECORDED_CHUNKS: Final = 48
_WEATHER: Final = {
    Fault.DELAY: Weather.DELAY,
    Fault.THROTTLE: Weather.THROTTLE,
    Fault.SPLIT: Weather.SPLIT,
    Fault.HALF_OPEN: Weather.HALF_OPEN,
}
# How long a process may take to be there again before a fault is left out; and before a slot counts as lost.
_SPARE_SECONDS: Final = 20.0
_LEAK_SECONDS: Final = 90.0
# What a Redis may still hold when nobody talks.
_LASTING_KEYS: Final = ("visavis:{avatar",)
# Somebody who still holds a session renews its lease every second and its checkpoint at the latest after ten.
_RENEWAL_SECONDS: Final = 12.0
# What Redis says of a key that has expired meanwhile.
_GONE: Final = -2


@dataclass(slots=True)
class Report:
    """What a run did and found."""

    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    restarts: int = 0
    leaks: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Everything that should not be."""
        found = [f"{each.session_id or 'session'}: {each.error}" for each in self.outcomes if each.error]
        found += [
            f"{each.session_id}: {violation.rule.name}: {violation.detail}"
            for each in self.outcomes
            for violation in each.violations
        ]
        return found + self.leaks

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "faults": dict(sorted(self.faults.items())),
            "faults_total": sum(self.faults.values()),
            "skipped": self.skipped,
            "restarts": self.restarts,
            "sessions": len(self.outcomes),
            "chunks": sum(each.chunks for each in self.outcomes),
            "interruptions": sum(each.interruptions for each in self.outcomes),
            "resumptions": sum(each.resumptions for each in self.outcomes),
            "failures": self.failures,
        }


async def run_chaos(folder: Path, *, seed: int, faults: int, mean_seconds: float, sessions: int) -> Report:
    """A cluster, `sessions` clients at a time that talk and start anew, `faults` faults, and the check of it all."""
    report = Report(seed)
    async with running_cluster(folder, random.Random(seed)) as cluster:
        personas = await register_personas(cluster, sessions)
        stop = asyncio.Event()
        clients = [
            asyncio.create_task(
                talk_on(cluster, own, personas, random.Random(f"{seed} {number}"), report.outcomes, stop)
            )
            for number, own in enumerate(shared_out(personas, sessions))
        ]
        begin = time.monotonic()
        try:
            await _inflict(cluster, plan_faults(seed, mean_seconds), faults, report)
        finally:
            stop.set()
            await asyncio.gather(*clients)
            report.seconds = time.monotonic() - begin
        report.restarts = sum(instance.starts - 1 for instance in cluster.instances)
        report.leaks = await _leaks(cluster)
    return report


async def register_personas(cluster: Cluster, clients: int) -> list[Persona]:
    """Avatars, each with a seed, for so many clients, and what they look like when nothing disturbs them."""
    async with VisavisClient(cluster.gateway_addresses) as client:
        # Services are ready a moment before the gateways have heard all of them say what they speak.
        assert await until(lambda: _all_known(client, cluster), START_SECONDS)
        await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        consent = Consent.synthetic_person("the fault bench", "a drawing")
        count = _PERSONAS_PER_CLIENT * clients
        # No more at a time than are there later: for these the cluster has room.
        room = asyncio.Semaphore(clients)

        async def record(number: int) -> Persona:
            async with room:
                return await recorded(number)

        async def recorded(number: int) -> Persona:
            avatar = await client.register_avatar(_portrait(number, count), consent)
            seed = 1000 + number
            silence = np.zeros(CHUNK_SAMPLES * _RECORDED_CHUNKS, np.int16)
            pictures = []
            async with client.talk(
                avatar, audio_format=AudioFormat.s16(16_000), video_format=VideoFormat.raw(), seed=seed, idle="pause"
            ) as session:
                session.send_in_background(_once(silence.tobytes()))
                async for segment in session:
                    pictures.append(session.pictures(segment))
            return Persona(f"persona {number}", avatar.avatar_id, seed, np.concatenate(pictures))

        return await asyncio.gather(*(record(number) for number in range(count)))


def shared_out(personas: Sequence[Persona], clients: int) -> list[Sequence[Persona]]:
    """To each client its own."""
    return [personas[number::clients] for number in range(clients)]


def _portrait(number: int, count: int) -> bytes:
    """A drawn face whose colours and position no other of `count` has."""
    hue, saturation, value = Image.open(io.BytesIO(portrait_jpeg())).convert("HSV").split()
    turned = hue.point([(level + 256 * number // count) % 256 for level in range(256)])
    drawing = Image.merge("HSV", (turned, saturation, value)).convert("RGB").rotate(360 * number / count)
    buffer = io.BytesIO()
    drawing.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


async def _once(pcm: bytes) -> AsyncIterator[bytes]:
    yield pcm


async def talk_on(
    cluster: Cluster,
    own: Sequence[Persona],
    personas: Sequence[Persona],
    chance: random.Random,
    outcomes: list[Outcome],
    stop: asyncio.Event,
    *,
    chunks: int | None = None,
) -> None:
    """One session after the other, each as one of `own`, of `chunks` chunks or of any length, until `stop` is set.

    personas: everybody's, to tell whom a frame shows that is not the session's.
    """
    while not stop.is_set():
        addresses = list(cluster.gateway_addresses)
        chance.shuffle(addresses)
        gateways = Gateways(addresses, None)
        try:
            persona = chance.choice(own)
            length = chunks or chance.randint(3, 25)
            outcomes.append(await converse(gateways, persona, personas, chance, stop, chunks=length))
        finally:
            await gateways.close()


async def _inflict(cluster: Cluster, plan: Iterator[PlannedFault], count: int, report: Report) -> None:
    """`count` faults one after the other; those that last run on beside the next ones."""
    lasting: set[asyncio.Task[None]] = set()
    try:
        while (number := sum(report.faults.values()) + 1) <= count:
            fault = next(plan)
            await asyncio.sleep(fault.after_seconds)
            if not await _possible(cluster, fault):
                report.skipped += 1
                continue
            report.faults[f"{fault.fault.value}, {fault.service}"] += 1
            print(f"{number:4} {fault.service}-{fault.copy + 1}: {fault.fault.value}", flush=True)
            task = asyncio.create_task(_do(cluster, fault))
            lasting.add(task)
            task.add_done_callback(lasting.discard)
        await asyncio.gather(*lasting)
    finally:
        for link in cluster.links:
            link.set_weather(Weather.FAIR)
        for task in lasting:
            task.cancel()


async def _possible(cluster: Cluster, fault: PlannedFault) -> bool:
    """Processes end or freeze only where the other instance serves, as a cluster with spare pods promises."""
    if fault.service == "redis" or fault.fault in (Fault.RESET, *_WEATHER):
        return True
    other, instance = cluster.of(fault.service)[1 - fault.copy], cluster.of(fault.service)[fault.copy]
    there = instance.worker if fault.fault in WORKER_FAULTS else instance.process
    return await until(lambda: other.ready, _SPARE_SECONDS) and instance.ready and there() is not None


async def _do(cluster: Cluster, fault: PlannedFault) -> None:
    if fault.service == "redis":
        await _do_to_redis(cluster, fault)
        return
    instance = cluster.of(fault.service)[fault.copy]
    match fault.fault:
        case Fault.KILL:
            _signal(instance.process(), signal.SIGKILL)
        case Fault.TERMINATE:
            _signal(instance.process(), signal.SIGTERM)
        case Fault.KILL_WORKER:
            _signal(instance.worker(), signal.SIGKILL)
        case Fault.FREEZE:
            await _freeze(instance.process(), fault.seconds)
        case Fault.FREEZE_WORKER:
            await _freeze(instance.worker(), fault.seconds)
        case _:
            await _disturb(instance.link, fault)


async def _do_to_redis(cluster: Cluster, fault: PlannedFault) -> None:
    match fault.fault:
        case Fault.KILL:
            _signal(_process(cluster.redis.process_id), signal.SIGKILL)
            await asyncio.sleep(min(fault.seconds, 3.0))
            if not cluster.redis.is_running():
                await cluster.redis.start()
        case Fault.FREEZE:
            await _freeze(_process(cluster.redis.process_id), fault.seconds)
        case _:
            await _disturb(cluster.redis_link, fault)


async def _disturb(link: Link, fault: PlannedFault) -> None:
    if fault.fault is Fault.RESET:
        link.reset()
        return
    link.set_weather(_WEATHER[fault.fault], fault.amount)
    await asyncio.sleep(fault.seconds)
    link.set_weather(Weather.FAIR)


async def _freeze(process: psutil.Process | None, seconds: float) -> None:
    _signal(process, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    _signal(process, signal.SIGCONT)


def _process(pid: int | None) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid) if pid is not None else None
    return None


def _signal(process: psutil.Process | None, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process is not None:
            process.send_signal(number)


async def _leaks(cluster: Cluster) -> list[str]:
    """Slots that stay taken, and keys that do not expire or are renewed, although nobody talks."""
    await asyncio.gather(*(instance.wait_ready() for instance in cluster.instances))
    found = []
    async with VisavisClient(cluster.gateway_addresses) as client:
        if not await until(lambda: _all_known(client, cluster, free=True), _LEAK_SECONDS):
            found.append(f"slots stay taken: {await client.capacity()}")
    before = await _expiries(cluster)
    await asyncio.sleep(_RENEWAL_SECONDS)
    after = await _expiries(cluster)
    if kept := [key for key, expiry in after.items() if expiry < 0 or before.get(key) != expiry]:
        found.append(f"keys stay behind: {kept}")
    return found


async def _all_known(client: VisavisClient, cluster: Cluster, *, free: bool = False) -> bool:
    """Whether the gateway knows every instance, and with `free` that none of them serves anybody."""
    try:
        stages = (await client.capacity()).stages
    except ClientError:
        return False
    complete = all(stage.instances == len(cluster.of("generator")) for stage in stages)
    return complete and not (free and any(stage.used_slots for stage in stages))


async def _expiries(cluster: Cluster) -> dict[str, int]:
    """The keys of sessions, and when they expire (Unix milliseconds); -1: never."""
    async with Redis.from_url(cluster.redis.url) as redis:
        keys = [key.decode() async for key in redis.scan_iter("visavis:{*", count=1000)]
        expiries = {key: int(await redis.pexpiretime(key)) for key in keys if not key.startswith(_LASTING_KEYS)}
    return {key: expiry for key, expiry in expiries.items() if expiry != _GONE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and reports; 1 when anything was found."""
    parser = argparse.ArgumentParser(description="Faults at random against the real services under talking clients.")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mean-seconds", type=float, default=1.2, help="between two faults")
    parser.add_argument("--sessions", type=int, default=3, help="clients at a time")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--folder", type=Path, help="keep the services' logs here")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="visavis-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = asyncio.run(
        run_chaos(
            folder,
            seed=options.seed,
            faults=options.faults,
            mean_seconds=options.mean_seconds,
            sessions=options.sessions,
        )
    )
    text = json.dumps(report.as_dict(), indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    print(f"logs: {folder}" if report.failures else "nothing lost")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
