"""The admission policy, evaluated: a pod of visavis may write its own deletion cost and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import celpy
import pytest
from celpy import celtypes
from celpy.adapter import json_to_cel

from tests.deploy.containers import named
from visavis.runtime.pod_deletion_cost import ANNOTATION

POD: dict[str, Any] = {
    "metadata": {
        "name": "generator-a",
        "labels": {"app.kubernetes.io/name": "generator"},
        "annotations": {"kubernetes.io/psp": "x"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "generator"}],
    },
    "spec": {"containers": [{"name": "generator", "image": "visavis/generator:1"}]},
}
PODS_NAME = "authentication.kubernetes.io/pod-name"
ITSELF = {"username": "system:serviceaccount:visavis:generator", "extra": {PODS_NAME: ["generator-a"]}}

Change = Callable[[dict[str, Any]], object]


def write_cost(pod: dict[str, Any]) -> None:
    pod["metadata"].setdefault("annotations", {})[ANNOTATION] = "3"


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression)).evaluate(variables)


def verdict(change: Change, user: dict[str, Any], pod: dict[str, Any] = POD) -> str:
    """ "allowed", the message of a denial, or "not concerned"."""
    after = copy.deepcopy(pod)
    change(after)
    policy = named("cluster", "ValidatingAdmissionPolicy", "visavis-own-pod-deletion-cost")["spec"]
    given: dict[str, Any] = {"object": after, "oldObject": pod, "request": {"userInfo": user}}
    known = {name: json_to_cel(value) for name, value in given.items()}
    if not all(evaluate(condition["expression"], known) for condition in policy["matchConditions"]):
        return "not concerned"
    own = celtypes.MapType()
    for variable in policy["variables"]:
        own[celtypes.StringType(variable["name"])] = evaluate(variable["expression"], {**known, "variables": own})
    for validation in policy["validations"]:
        if not evaluate(validation["expression"], {**known, "variables": own}):
            return str(validation["message"])
    return "allowed"


def test_a_pod_writes_its_own_cost() -> None:
    assert verdict(write_cost, ITSELF) == "allowed"
    bare = {**POD, "metadata": {"name": "generator-a"}}
    assert verdict(write_cost, ITSELF, bare) == "allowed"
    assert (
        verdict(write_cost, ITSELF, {**POD, "metadata": {**POD["metadata"], "annotations": {ANNOTATION: "1"}}})
        == "allowed"
    )


@pytest.mark.parametrize("extra", [{}, {PODS_NAME: ["generator-b"]}, {PODS_NAME: []}])
def test_not_that_of_another(extra: dict[str, list[str]]) -> None:
    assert "itself only" in verdict(write_cost, {**ITSELF, "extra": extra})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pod: pod["spec"]["containers"][0].update(image="evil"), "specification"),
        (lambda pod: pod["metadata"]["labels"].update({"app.kubernetes.io/name": "gateway"}), "labels"),
        (lambda pod: pod["metadata"].pop("labels"), "labels"),
        (lambda pod: pod["metadata"]["annotations"].update(other="1"), "annotation"),
        (lambda pod: pod["metadata"].pop("annotations"), "annotation"),
        (lambda pod: pod["metadata"].pop("ownerReferences"), "owner"),
        (lambda pod: pod["metadata"]["ownerReferences"].clear(), "owner"),
        (lambda pod: pod["metadata"].update(finalizers=["stay"]), "finalizers"),
    ],
)
def test_nothing_else_of_itself(change: Change, reason: str) -> None:
    assert reason in verdict(change, ITSELF)


def test_nobody_else_is_concerned() -> None:
    assert (
        verdict(lambda pod: pod["metadata"].pop("labels"), {"username": "system:node:a", "extra": {}})
        == "not concerned"
    )


def test_the_policy_is_bound() -> None:
    binding = named("cluster", "ValidatingAdmissionPolicyBinding", "visavis-own-pod-deletion-cost")["spec"]
    assert binding["policyName"] == "visavis-own-pod-deletion-cost"
    assert "Deny" in binding["validationActions"]
