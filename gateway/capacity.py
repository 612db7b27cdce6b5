"""How many sessions fit, from the heartbeats of the stages; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.placement import STAGES
from visavis.runtime.registry import StageInstance
from visavis.v1.talking_head_pb2 import GetCapacityResponse, StageCapacity


def summarize_capacity(
    instances: Mapping[str, Sequence[StageInstance]], gateway_free_slots: int
) -> GetCapacityResponse:
    """Slots of each stage, and of the whole: a session needs one of every stage and one of this gateway.

    `slots - used_slots` sessions can start now. Draining instances count nowhere.
    """
    stages = [_stage_capacity(stage, instances.get(stage, ())) for stage in STAGES]
    slots = min(stage.slots for stage in stages)
    free_slots = min(gateway_free_slots, *(stage.slots - stage.used_slots for stage in stages))
    return GetCapacityResponse(slots=slots, used_slots=max(0, slots - free_slots), stages=stages)


def _stage_capacity(stage: str, instances: Sequence[StageInstance]) -> StageCapacity:
    taking = [instance for instance in instances if not instance.draining]
    return StageCapacity(
        stage=stage,
        instances=len(taking),
        slots=sum(instance.slots for instance in taking),
        used_slots=sum(min(instance.used_slots, instance.slots) for instance in taking),
    )
