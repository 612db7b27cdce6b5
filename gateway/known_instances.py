"""The living instances of each stage as this gateway knows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from visavis.runtime.registry import StageInstance

# What asks for news gets a list that is at most this part of a heartbeat old: heartbeats say no more.
_NEWS_OF_HEARTBEAT: Final = 0.25


class InstanceLister(Protocol):
    """Who has the heartbeats; see `visavis.runtime.registry.Registry`."""

    async def list_instances(self, stage: str) -> list[StageInstance]: ...


@dataclass(frozen=True, slots=True)
class _Known:
    read_at: float
    listed: Sequence[StageInstance]
    instances: dict[str, StageInstance]
    """The same, with what was placed since."""


class KnownInstances:
    """Reads the list of a stage at most once in a heartbeat, and by one reader at a time.

    A list may be old because only an instance itself knows its capacity: it refuses what it cannot take, and another
    one is tried. So that a gateway with an old list does not send everybody to one instance, what it has placed since
    counts as used. Where everything on a list fails, `news` says whether another look changes anything.
    """

    def __init__(
        self, registry: InstanceLister, heartbeat_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._reading: dict[str, asyncio.Task[_Known]] = {}

    async def of(self, stage: str, *, now: bool = False) -> list[StageInstance]:
        """The instances of a stage, by their ids; `now`: as the registry has them.

        Errors: `StateStoreUnavailable`.
        """
        known = self._known.get(stage)
        if now or known is None or self._clock() - known.read_at >= self._heartbeat_seconds:
            known = await self._read(stage)
        return [*known.instances.values()]

    def placed(self, instance: StageInstance) -> None:
        """A session has gone to an instance; its next heartbeat says so too."""
        known = self._known.get(instance.stage)
        if known is not None and (listed := known.instances.get(instance.instance_id)) is not None:
            known.instances[instance.instance_id] = replace(listed, used_slots=listed.used_slots + 1)

    async def news(self) -> bool:
        """Reads what is old enough to be worth another look; whether anything has changed.

        Errors: `StateStoreUnavailable`.
        """
        oldest = self._clock() - _NEWS_OF_HEARTBEAT * self._heartbeat_seconds
        old = {stage: known for stage, known in self._known.items() if known.read_at <= oldest}
        new = await asyncio.gather(*(self._read(stage) for stage in old))
        return any(known.listed != old[stage].listed for stage, known in zip(old, new, strict=True))

    async def _read(self, stage: str) -> _Known:
        """Whoever comes while somebody reads shares what comes of it; a reader that gives up leaves it to them."""
        reading = self._reading.get(stage)
        if reading is None:
            reading = self._reading[stage] = asyncio.create_task(self._read_now(stage))
            reading.add_done_callback(lambda done: self._end_reading(stage, done))
        return await asyncio.shield(reading)

    async def _read_now(self, stage: str) -> _Known:
        began = self._clock()
        listed = await self._registry.list_instances(stage)
        known = self._known[stage] = _Known(began, listed, {instance.instance_id: instance for instance in listed})
        return known

    def _end_reading(self, stage: str, reading: asyncio.Task[_Known]) -> None:
        del self._reading[stage]
        if not reading.cancelled():
            reading.exception()  # everybody who waited may have gone
