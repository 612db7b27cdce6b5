"""Which instances are tried, and in which order."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.placement import placement_order


@dataclass(frozen=True)
class Instance:
    instance_id: str
    slots: int
    used_slots: int
    draining: bool
    fingerprint: str


INSTANCES = st.lists(
    st.builds(
        Instance,
        st.text("abcdef0123", min_size=1, max_size=6),
        st.integers(0, 4),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from(["model", "other"]),
    ),
    unique_by=lambda i: i.instance_id,
    max_size=8,
)


@given(INSTANCES, st.frozensets(st.text("abcdef0123", min_size=1, max_size=6)), st.randoms())
def test_the_order_holds_exactly_the_usable_instances_best_first(
    instances: list[Instance], sink_holders: frozenset[str], shuffler: random.Random
) -> None:
    order = placement_order(instances, "model", sink_holders)
    assert {i.instance_id for i in order} == {
        i.instance_id for i in instances if i.fingerprint == "model" and not i.draining and i.used_slots < i.slots
    }
    for better, worse in pairwise(order):
        better_load, worse_load = better.used_slots / better.slots, worse.used_slots / worse.slots
        assert better_load <= worse_load
        if better_load == worse_load and worse.instance_id in sink_holders:
            assert better.instance_id in sink_holders
    shuffled = list(instances)
    shuffler.shuffle(shuffled)
    assert placement_order(shuffled, "model", sink_holders) == order


def test_load_counts_before_a_warm_sink() -> None:
    busy = Instance("a", 4, 3, False, "model")
    free = Instance("b", 4, 0, False, "model")
    assert placement_order([busy, free], "model", frozenset({"a"})) == [free, busy]
    equal = Instance("c", 4, 0, False, "model")
    assert placement_order([free, equal], "model", frozenset({"c"})) == [equal, free]
