"""In which order instances of a stage are tried for a new session; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What placement needs to know about an instance; the registry's heartbeats tell it."""

    @property
    def instance_id(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def used_slots(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...


CandidateT = TypeVar("CandidateT", bound=Candidate)


def placement_order(
    instances: Iterable[CandidateT], fingerprint: str, sink_holders: frozenset[str] = frozenset()
) -> list[CandidateT]:
    """Instances that may take a session of the model `fingerprint`, the best first.

    Draining instances, other models and instances without a free slot are left out. Among the rest the least loaded
    goes first (used share of slots); of equally loaded ones an instance in `sink_holders`, which has the avatar's sink
    already; of those the one with the smaller id, so that the order never depends on the order of heartbeats.
    """
    usable = [i for i in instances if not i.draining and i.fingerprint == fingerprint and i.used_slots < i.slots]
    return sorted(usable, key=lambda i: (i.used_slots / i.slots, i.instance_id not in sink_holders, i.instance_id))
