"""The network policies allow exactly the arrows of the design, and who may not talk cannot."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.deploy.containers import NAMESPACED_OVERLAYS, ROLES, of_kind

STAGES: Final = ("audio-encoder", "generator", "decoder")
PORTS: Final = {"audio-encoder": 50051, "generator": 50052, "decoder": 50053}
ALL_PORTS: Final = (53, 80, 443, 4317, 6379, 6380, 6443, 9464, 26379, 50050, 50051, 50052, 50053, 50060)
Arrow = tuple[str, str, int]


@dataclass(frozen=True)
class Peer:
    """Somebody on the network: a pod with its namespace, or an address outside of the cluster."""

    name: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


def pod(name: str, namespace: str = "visavis", label: str = "app.kubernetes.io/name") -> Peer:
    return Peer(name, namespace, ((label, name),))


PEERS: Final = (
    *(pod(role) for role in ROLES),
    pod("redis"),
    pod("stranger"),
    pod("kube-dns", "kube-system", "k8s-app"),
    pod("prometheus", "monitoring"),
    pod("opentelemetry-collector", "monitoring"),
    pod("client", "elsewhere"),
    Peer("private", address="10.20.30.40"),
    Peer("internet", address="203.0.113.7"),
    Peer("metadata", address="169.254.169.254"),
)


def arrows(overlay: str) -> set[Arrow]:
    """Every connection that the policies let through: out of the one and into the other."""
    policies = [resource["spec"] for resource in of_kind(overlay, "NetworkPolicy")]
    pairs = ((source, target) for source in PEERS for target in PEERS if source.namespace or target.namespace)
    return {
        (source.name, target.name, port)
        for source, target in pairs
        if "visavis" in (source.namespace, target.namespace)
        for port in ALL_PORTS
        if passes(policies, "egress", "to", source, target, port)
        and passes(policies, "ingress", "from", target, source, port)
    }


def passes(policies: list[Any], direction: str, key: str, own: Peer, other: Peer, port: int) -> bool:
    if own.namespace != "visavis":
        return True
    matching = [
        each for each in policies if selects(each["podSelector"], own) and direction.title() in each["policyTypes"]
    ]
    if not matching:
        return True
    rules = (rule for policy in matching for rule in policy.get(direction, ()))
    return any(
        port in [allowed["port"] for allowed in rule["ports"]]
        and (key not in rule or any(is_peer(peer, other) for peer in rule[key]))
        for rule in rules
    )


def is_peer(peer: dict[str, Any], other: Peer) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ipaddress.ip_address(other.address) if other.address else None
        inside = address is not None and address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", ()))
    if other.address:
        return False
    if "namespaceSelector" in peer:
        namespace = Peer("", "", (("kubernetes.io/metadata.name", other.namespace),))
        return selects(peer["namespaceSelector"], namespace) and selects(peer.get("podSelector", {}), other)
    return other.namespace == "visavis" and selects(peer["podSelector"], other)


def selects(selector: dict[str, Any], peer: Peer) -> bool:
    labels = dict(peer.labels)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def arrows_of_the_design() -> Iterator[Arrow]:
    for stage in STAGES:
        yield ("gateway", stage, PORTS[stage])
    yield ("generator", "generator", 50052)
    for peer in PEERS:
        yield (peer.name, "gateway", 50050)
    for peer in PEERS:
        if peer.namespace == "visavis":
            yield (peer.name, "kube-dns", 53)


def arrows_of(overlay: str) -> Iterator[Arrow]:
    yield from arrows_of_the_design()
    for role in ROLES:
        if overlay == "alternatives":
            yield from ((role, "private", port) for port in (6379, 6380, 26379))
        else:
            yield (role, "redis", 6379)
        if overlay in ("a100", "h100"):
            yield ("prometheus", role, 9464)
            yield (role, "opentelemetry-collector", 4317)
            yield from ((role, "private", port) for port in (443, 6443))
    if overlay in ("a100", "h100"):
        for stage in STAGES:
            yield from ((stage, place, 443) for place in ("private", "internet"))


@pytest.mark.parametrize("overlay", NAMESPACED_OVERLAYS)
def test_exactly_the_arrows_of_the_design(overlay: str) -> None:
    # Everyone may call the public port; whoever is in the namespace needs leave to call at all.
    closed = {(name, "gateway", 50050) for name in (*ROLES, "redis", "stranger")}
    redis = {("redis", target, port) for _, target, port in arrows_of(overlay) if target == "kube-dns"}
    expected = (set(arrows_of(overlay)) - closed) | redis
    if overlay == "alternatives":
        expected = {arrow for arrow in expected if "redis" not in arrow} | {("redis", "kube-dns", 53)}
    assert arrows(overlay) == expected
