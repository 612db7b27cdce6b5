"""In which order instances of the stages are tried for a new session; pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.sampling import ANY_SAMPLING, SamplingWish, sampling_of
from visavis.runtime.errors import ModelMismatch, StageUnavailable, VisavisError
from visavis.runtime.registry import StageInstance

AUDIO_ENCODER: Final = "audio_encoder"
GENERATOR: Final = "generator"
DECODER: Final = "decoder"
STAGES: Final = (AUDIO_ENCODER, GENERATOR, DECODER)


def placement_order(
    instances: Iterable[StageInstance], sink_holders: frozenset[str] = frozenset(), gateway_id: str = ""
) -> list[StageInstance]:
    """The instances that take sessions, the best first.

    Draining ones are left out. The least loaded goes first (used share of slots); of equally loaded ones an instance
    in `sink_holders`, which has the avatar's sink already; of those each gateway prefers another, always the same, so
    that gateways with equally old lists do not all go to one instance, and the order never depends on the order of
    heartbeats. Those that look full come last but stay in: a heartbeat is old news, only the instance itself knows.
    """

    def preference(instance: StageInstance) -> tuple[float, bool, int, str]:
        liking = zlib.crc32(f"{gateway_id} {instance.instance_id}".encode()) if gateway_id else 0
        return _load(instance), instance.instance_id not in sink_holders, liking, instance.instance_id

    return sorted((instance for instance in instances if not instance.draining), key=preference)


def place_session(
    instances: Mapping[str, Sequence[StageInstance]],
    fingerprint: str,
    sink_holders: frozenset[str] = frozenset(),
    gateway_id: str = "",
    sampling: SamplingWish = ANY_SAMPLING,
) -> dict[str, list[StageInstance]]:
    """Candidates of each stage for a session of the model `fingerprint`, in the order in which to try them.

    All candidates run that model and understand each other (`compatibility`); all generators sample in one way, that
    of the best one. Errors: `StageUnavailable` names a stage that no instance serves, or none in the way in which the
    session was sampled so far; `ModelMismatch` when a stage serves other models only, or no generator samples in the
    way that a new session asks for.
    """
    usable = {
        stage: _usable(stage, placement_order(instances.get(stage, ()), sink_holders, gateway_id), fingerprint)
        for stage in STAGES
    }
    usable[GENERATOR] = _allowed(usable[GENERATOR], sampling)
    # What the best generator speaks comes first; one that says nothing goes with what the other stages speak.
    for wish in _spoken(usable) or [""]:
        fitting = {stage: _fitting(usable[stage], wish) for stage in STAGES}
        if all(fitting.values()):
            return {**fitting, GENERATOR: _sampling(fitting[GENERATOR], sampling_of(fitting[GENERATOR][0]))}
    raise _no_common_model()


def spoken_by(candidates: Mapping[str, Sequence[StageInstance]]) -> str:
    """What the candidates that `place_session` found speak (`compatibility`); "" where none of them cares."""
    return next(iter(_spoken(candidates)), "")


def fitting_instances(
    instances: Sequence[StageInstance], fingerprint: str, spoken: str, sampling: str, gateway_id: str = ""
) -> list[StageInstance]:
    """Instances of one stage that can join a running session, in the order in which to try them.

    sampling: of the session; it concerns generators alone.
    """
    ordered = placement_order(instances, gateway_id=gateway_id)
    usable = [instance for instance in ordered if instance.model_fingerprint == fingerprint]
    if usable and usable[0].stage == GENERATOR:
        usable = _sampling(usable, sampling)
    return _fitting(usable, spoken) if spoken else usable


def served_model(instances: Mapping[str, Sequence[StageInstance]]) -> StageInstance | None:
    """A decoder instance of the model that new sessions and avatars use, or None while no model has all three stages.

    Where several models are served it is the one with the most generator slots.
    """
    slots: dict[str, int] = {}
    for generator in placement_order(instances.get(GENERATOR, ())):
        slots[generator.model_fingerprint] = slots.get(generator.model_fingerprint, 0) + generator.slots
    for fingerprint in sorted(slots, key=lambda f: (-slots[f], f)):
        try:
            return place_session(instances, fingerprint)[DECODER][0]
        except (StageUnavailable, ModelMismatch):
            continue
    return None


def nothing_served(instances: Mapping[str, Sequence[StageInstance]]) -> VisavisError:
    """The error where `served_model` finds none: `StageUnavailable` names a stage; else `ModelMismatch`."""
    missing = (stage_missing(stage) for stage in STAGES if not placement_order(instances.get(stage, ())))
    return next(missing, _no_common_model())


def stage_missing(stage: str) -> StageUnavailable:
    """The error for a stage that nothing serves; says its name and nothing else."""
    return StageUnavailable(f"the stage {stage} is not available; try again")


def _load(instance: StageInstance) -> float:
    return instance.used_slots / instance.slots if instance.slots else 1.0


def _spoken(instances: Mapping[str, Sequence[StageInstance]]) -> list[str]:
    every = [instance.compatibility for stage in (GENERATOR, AUDIO_ENCODER, DECODER) for instance in instances[stage]]
    return [*dict.fromkeys(filter(None, every))]


def _no_common_model() -> ModelMismatch:
    return ModelMismatch("the stages that are running cannot work together; start them with the same model settings")


def _usable(stage: str, ordered: Sequence[StageInstance], fingerprint: str) -> list[StageInstance]:
    if not ordered:
        raise stage_missing(stage)
    usable = [instance for instance in ordered if instance.model_fingerprint == fingerprint]
    if not usable:
        raise ModelMismatch("the avatar belongs to another model than the one that is served; register it again")
    return usable


def _allowed(generators: Sequence[StageInstance], wish: SamplingWish) -> list[StageInstance]:
    allowed = [generator for generator in generators if wish.allows(generator)]
    if allowed:
        return allowed
    if wish.pinned:
        raise stage_missing(GENERATOR)
    raise ModelMismatch(
        "no generator samples in the way that config.sampling asks for; GetServerInfo lists those there are"
    )


def _sampling(generators: Sequence[StageInstance], sampling: str) -> list[StageInstance]:
    return [generator for generator in generators if sampling_of(generator) == sampling]


def _fitting(instances: Sequence[StageInstance], wish: str) -> list[StageInstance]:
    return [instance for instance in instances if instance.compatibility in ("", wish)]
