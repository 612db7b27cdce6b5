"""From what one session costs to what a thousand GPUs need, and what breaks first; pure, every step shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.bench.placement_cost import PlacementCost
from visavis.bench.redis_use import RedisUse
from visavis.contract import CHUNK_SECONDS, FRAME_RATE

STAGES: Final = 3
MOST_GPUS: Final = 10_000_000
# The default of VISAVIS_HEARTBEAT_SECONDS: so long a gateway keeps a list of instances.
LIST_KEPT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not measured.

    sessions_per_gpu: running at once. session_seconds: length of a session. nic_bits_per_second: of the node
    of a gateway or of Redis, each way. redis_memory_bytes: of one Redis.
    """

    gpus: int
    sessions_per_gpu: float
    session_seconds: float
    nic_bits_per_second: float
    redis_memory_bytes: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What is. Commands as in `redis_traffic`, per second or once, summed up.

    instance_commands_per_second: of one running service. redis_cpu_seconds: of one command of that mix, with the small
    values of `tiny`. redis: what a gateway causes there at the true sizes, see `gateway_cost`.
    gateway_cpu_seconds: of a gateway, per second of one session. out_bytes: what a gateway sends in a chunk of one
    session, to its client and to the stages.
    """

    instance_commands_per_second: float
    session_commands_per_second: float
    session_commands_once: float
    redis_cpu_seconds: float
    redis: RedisUse
    gateway_cpu_seconds: float
    placement: Sequence[PlacementCost]
    out_bytes: float


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that can run out.

    needed: units for all GPUs. unit: what one is. breaks_at_gpus: how many GPUs fill the first unit. arithmetic: how
    `needed` comes about. splits: whether more units help (a second gateway does, a second Redis needs a cluster).
    """

    name: str
    unit: str
    needed: float
    breaks_at_gpus: int
    arithmetic: str
    splits: bool


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """Resources in the order in which they break."""

    sessions: float
    starts_per_second: float
    instances: int
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    gpus: float
    sessions: float
    starts: float
    instances: float

    @classmethod
    def of(cls, gpus: float, assumed: Assumptions) -> _Scale:
        sessions = gpus * assumed.sessions_per_gpu
        return cls(gpus, sessions, sessions / assumed.session_seconds, gpus * STAGES)


def plan_capacity(measured: Measured, assumed: Assumptions) -> CapacityPlan:
    """What so many GPUs need."""
    scale = _Scale.of(assumed.gpus, assumed)
    found = sorted(_resources(measured, assumed, scale), key=lambda each: each.breaks_at_gpus)
    return CapacityPlan(scale.sessions, scale.starts, round(scale.instances), tuple(found))


def sum_of(rates: Mapping[str, float]) -> float:
    """All commands together."""
    return sum(rates.values())


def lookup_seconds(placement: Sequence[PlacementCost], instances: float, of: Callable[[PlacementCost], float]) -> float:
    """A cost of one lookup for any number of instances: a straight line between the measured ones, and on beyond."""
    ordered = sorted(placement, key=lambda each: each.instances)
    upper = next((i for i, each in enumerate(ordered) if each.instances >= instances), len(ordered) - 1)
    one, two = ordered[max(0, upper - 1)], ordered[max(1, upper)]
    slope = (of(two) - of(one)) / (two.instances - one.instances)
    return max(0.0, of(one) + slope * (instances - one.instances))


def _resources(measured: Measured, assumed: Assumptions, scale: _Scale) -> Iterator[Resource]:
    m = measured

    def redis_commands(at: _Scale) -> float:
        return (
            at.sessions * m.session_commands_per_second
            + at.starts * m.session_commands_once
            + at.instances * m.instance_commands_per_second
        )

    def lookups(at: _Scale) -> float:
        """A second; a gateway, of which a core is needed each, reads a list for a start unless it has one."""
        gateways = max(1.0, at.sessions * m.gateway_cpu_seconds)
        return STAGES * min(at.starts, gateways / LIST_KEPT_SECONDS)

    def redis_lookup(at: _Scale) -> float:
        return lookup_seconds(m.placement, at.gpus, lambda each: each.redis_cpu_seconds)

    def gateway_lookup(at: _Scale) -> float:
        return lookup_seconds(m.placement, at.gpus, lambda each: each.gateway_cpu_seconds)

    def network(at: _Scale) -> float:
        return at.sessions * m.out_bytes * 8 / CHUNK_SECONDS / assumed.nic_bits_per_second

    def resource(name: str, unit: str, units: Callable[[_Scale], float], arithmetic: str, splits: bool) -> Resource:
        breaks_at = _breaks_at(lambda gpus: units(_Scale.of(gpus, assumed)))
        return Resource(name, unit, units(scale), breaks_at, arithmetic, splits)

    yield resource(
        "Redis: commands, values as of tiny",
        "core of one Redis",
        lambda at: redis_commands(at) * m.redis_cpu_seconds,
        f"({scale.sessions:.0f} sessions x {m.session_commands_per_second:.2f}/s + {scale.starts:.1f} starts/s x "
        f"{m.session_commands_once:.1f} + {scale.instances:.0f} instances x {m.instance_commands_per_second:.2f}/s) "
        f"= {redis_commands(scale):.0f} commands/s, x {m.redis_cpu_seconds * 1e6:.1f} µs",
        splits=False,
    )
    yield resource(
        "Redis: checkpoints and records",
        "core of one Redis",
        lambda at: at.sessions * m.redis.cpu_seconds,
        f"{scale.sessions:.0f} sessions x {m.redis.cpu_seconds * 1e6:.0f} µs CPU a second, values of the true size",
        splits=False,
    )
    yield resource(
        "Redis: network",
        f"{assumed.nic_bits_per_second / 1e9:.0f} Gbit/s",
        lambda at: at.sessions * m.redis.received_bytes * 8 / assumed.nic_bits_per_second,
        f"{scale.sessions:.0f} sessions x {m.redis.received_bytes / 1e3:.1f} kB a second, received",
        splits=False,
    )
    yield resource(
        "Redis: memory",
        f"{assumed.redis_memory_bytes / 2**30:.0f} GiB",
        lambda at: at.sessions * m.redis.memory_bytes / assumed.redis_memory_bytes,
        f"{scale.sessions:.0f} sessions x {m.redis.memory_bytes / 1e3:.0f} kB",
        splits=False,
    )
    yield resource(
        "Redis: looking up instances",
        "core of one Redis",
        lambda at: lookups(at) * redis_lookup(at),
        f"{lookups(scale):.1f} lookups/s ({scale.starts:.1f} starts/s, {STAGES} stages, a list kept for "
        f"{LIST_KEPT_SECONDS:g} s) x {redis_lookup(scale) * 1e3:.2f} ms for {scale.gpus:.0f} instances each",
        splits=False,
    )
    yield resource(
        "gateways: relaying",
        "core",
        lambda at: at.sessions * m.gateway_cpu_seconds,
        f"{scale.sessions:.0f} sessions x {m.gateway_cpu_seconds * 1e3:.2f} ms CPU a second",
        splits=True,
    )
    yield resource(
        "gateways: looking up instances",
        "core",
        lambda at: lookups(at) * gateway_lookup(at),
        f"{lookups(scale):.1f} lookups/s x {gateway_lookup(scale) * 1e3:.2f} ms for {scale.gpus:.0f} instances each",
        splits=True,
    )
    yield resource(
        "gateways: one lookup holds the event loop",
        "frame (40 ms)",
        lambda at: gateway_lookup(at) * FRAME_RATE,
        f"{gateway_lookup(scale) * 1e3:.1f} ms for {scale.gpus:.0f} instances; more gateways do not shorten it",
        splits=False,
    )
    yield resource(
        "gateways: network",
        f"{assumed.nic_bits_per_second / 1e9:.0f} Gbit/s",
        network,
        f"{scale.sessions:.0f} sessions x {m.out_bytes / 1e3:.0f} kB a chunk of {CHUNK_SECONDS} s, sent",
        splits=True,
    )


def _breaks_at(units: Callable[[float], float]) -> int:
    """The number of GPUs at which one unit is full; `MOST_GPUS` where that is further than anybody goes."""
    low, high = 1, MOST_GPUS
    while low < high:
        middle = (low + high) // 2
        if units(middle) >= 1:
            high = middle
        else:
            low = middle + 1
    return low
