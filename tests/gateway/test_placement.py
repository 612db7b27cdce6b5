"""Which instances are tried, and in which order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capacity import summarize_capacity
from gateway.placement import STAGES, place_session, placement_order, served_model
from visavis.runtime.errors import ModelMismatch, StageUnavailable, VisavisError
from visavis.runtime.registry import StageInstance


def instance(
    instance_id: str = "a",
    slots: int = 4,
    used_slots: int = 0,
    draining: bool = False,
    fingerprint: str = "model",
    compatibility: str = "",
) -> StageInstance:
    return StageInstance(
        stage="generator",
        instance_id=instance_id,
        address="127.0.0.1:1",
        slots=slots,
        used_slots=used_slots,
        draining=draining,
        model_name="tiny",
        model_fingerprint=fingerprint,
        random_weights=True,
        width=64,
        height=64,
        frame_rate=25,
        compatibility=compatibility,
    )


def everywhere(*instances: StageInstance) -> dict[str, list[StageInstance]]:
    return {stage: list(instances) for stage in STAGES}


WISHES = ["", "float32", "bfloat16"]
INSTANCE_IDS = st.text("abcdef0123", min_size=1, max_size=6)
INSTANCES = st.lists(
    st.builds(
        instance,
        INSTANCE_IDS,
        st.integers(0, 4),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from(["model", "other"]),
        st.sampled_from(WISHES),
    ),
    unique_by=lambda i: i.instance_id,
    max_size=8,
)


@given(INSTANCES, st.frozensets(INSTANCE_IDS), st.randoms())
def test_the_order_holds_all_that_take_sessions_best_first(
    instances: list[StageInstance], sink_holders: frozenset[str], shuffler: random.Random
) -> None:
    order = placement_order(instances, sink_holders)
    assert {i.instance_id for i in order} == {i.instance_id for i in instances if not i.draining}
    for better, worse in pairwise(order):
        assert better.free_slots > 0 or worse.free_slots == 0
        if better.slots and worse.slots:
            assert better.used_slots / better.slots <= worse.used_slots / worse.slots
            equal = better.used_slots / better.slots == worse.used_slots / worse.slots
            if equal and worse.instance_id in sink_holders:
                assert better.instance_id in sink_holders
    shuffled = list(instances)
    shuffler.shuffle(shuffled)
    assert placement_order(shuffled, sink_holders) == order


@given(INSTANCES, INSTANCES, INSTANCES)
def test_a_session_is_placed_exactly_where_three_stages_fit_together(
    encoders: list[StageInstance], generators: list[StageInstance], decoders: list[StageInstance]
) -> None:
    instances = dict(zip(STAGES, (encoders, generators, decoders), strict=True))
    if any(all(i.draining for i in found) for found in instances.values()):
        with pytest.raises(VisavisError):
            place_session(instances, "model")
        return
    if not _fits(instances):
        with pytest.raises(ModelMismatch):
            place_session(instances, "model")
        return
    candidates = place_session(instances, "model")
    wishes = {i.compatibility for found in candidates.values() for i in found} - {""}
    assert len(wishes) <= 1
    for stage in STAGES:
        assert candidates[stage]
        for found in candidates[stage]:
            assert found in instances[stage]
            assert found.model_fingerprint == "model"
            assert not found.draining


def _fits(instances: Mapping[str, list[StageInstance]]) -> bool:
    usable = {s: [i for i in instances[s] if not i.draining and i.model_fingerprint == "model"] for s in STAGES}
    return any(all(any(i.compatibility in ("", wish) for i in usable[s]) for s in STAGES) for wish in WISHES)


def test_load_counts_before_a_warm_sink_and_a_full_one_is_tried_last() -> None:
    busy, free, full = instance("a", used_slots=3), instance("b"), instance("0", used_slots=4)
    assert placement_order([full, busy, free], frozenset({"a", "0"})) == [free, busy, full]
    warm = instance("c")
    assert placement_order([free, warm], frozenset({"c"})) == [warm, free]


def test_a_generator_that_says_nothing_does_not_bring_strangers_together() -> None:
    mixed = {
        "audio_encoder": [instance(compatibility="float32")],
        "generator": [instance()],
        "decoder": [instance(compatibility="bfloat16")],
    }
    with pytest.raises(ModelMismatch):
        place_session(mixed, "model")


def test_a_missing_stage_is_named() -> None:
    instances = {**everywhere(instance()), "decoder": []}
    with pytest.raises(StageUnavailable, match="decoder"):
        place_session(instances, "model")


def test_another_model_is_a_mismatch() -> None:
    with pytest.raises(ModelMismatch):
        place_session(everywhere(instance(fingerprint="other")), "model")


def test_the_served_model_has_all_stages_and_the_most_slots() -> None:
    small, large = instance("a", slots=1, fingerprint="small"), instance("b", slots=8, fingerprint="large")
    found = served_model(everywhere(small, large))
    assert found is not None
    assert found.model_fingerprint == "large"
    found = served_model({**everywhere(small, large), "decoder": [small]})
    assert found is not None
    assert found.model_fingerprint == "small"
    assert served_model({}) is None


@given(INSTANCES, INSTANCES, INSTANCES, st.integers(0, 9))
def test_capacity_is_what_the_scarcest_stage_has_left(
    encoders: list[StageInstance], generators: list[StageInstance], decoders: list[StageInstance], free_slots: int
) -> None:
    instances = dict(zip(STAGES, (encoders, generators, decoders), strict=True))
    capacity = summarize_capacity(instances, free_slots)
    can_start = min(free_slots, *(sum(i.free_slots for i in found) for found in instances.values()))
    assert capacity.slots - capacity.used_slots == can_start
    assert [stage.stage for stage in capacity.stages] == list(STAGES)
