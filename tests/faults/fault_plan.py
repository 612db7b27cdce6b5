"""Which faults happen when: a pure function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

STAGES: Final = ("audio-encoder", "generator", "decoder")
_REDIS: Final = "redis"


class Fault(StrEnum):
    """What is done to a part."""

    KILL = "kill -9 of the service"
    KILL_WORKER = "kill -9 of the worker"
    TERMINATE = "SIGTERM of the service"
    FREEZE = "SIGSTOP of the service"
    FREEZE_WORKER = "SIGSTOP of the worker"
    RESET = "connections reset"
    DELAY = "packets delayed"
    THROTTLE = "link throttled"
    SPLIT = "packets split"
    HALF_OPEN = "link half-open"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault.

    after_seconds: since the fault before. copy: which instance of the service, 0 or 1. seconds: how long it lasts
    (freezes and weather). amount: of a weather, see `Link`.
    """

    fault: Fault
    service: str
    copy: int
    after_seconds: float
    seconds: float
    amount: float


# How often, relative to each other.
_WEIGHTS: Final = {
    Fault.KILL: 4,
    Fault.KILL_WORKER: 2,
    Fault.TERMINATE: 4,
    Fault.FREEZE: 2,
    Fault.FREEZE_WORKER: 2,
    Fault.RESET: 6,
    Fault.DELAY: 3,
    Fault.THROTTLE: 2,
    Fault.SPLIT: 3,
    Fault.HALF_OPEN: 3,
}
WORKER_FAULTS: Final = (Fault.KILL_WORKER, Fault.FREEZE_WORKER)
# Draining is asked of Redis by nobody who wants to keep it.
_NOT_FOR_REDIS: Final = (Fault.TERMINATE, *WORKER_FAULTS)


def plan_faults(seed: int, mean_seconds: float) -> Iterator[PlannedFault]:
    """Faults without end, `mean_seconds` apart on average; the same ones for the same seed."""
    chance = random.Random(seed)
    while True:
        yield _plan_one(chance, mean_seconds)


def _plan_one(chance: random.Random, mean_seconds: float) -> PlannedFault:
    fault = chance.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    services = [*STAGES, "gateway", _REDIS]
    if fault in WORKER_FAULTS:
        services = [*STAGES]
    elif fault in _NOT_FOR_REDIS:
        services.remove(_REDIS)
    service = chance.choice(services)
    amount = {
        Fault.DELAY: chance.uniform(0.02, 0.3),
        Fault.THROTTLE: chance.uniform(2e5, 2e6),
        Fault.SPLIT: float(chance.choice([200, 2_000, 20_000])),
    }.get(fault, 0.0)
    return PlannedFault(
        fault=fault,
        service=service,
        copy=chance.randrange(2),
        after_seconds=chance.uniform(0.2, 1.8) * mean_seconds,
        seconds=chance.choice([0.3, 1.0, 3.0, 9.0]),
        amount=amount,
    )
