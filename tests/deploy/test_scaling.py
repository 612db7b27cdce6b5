"""What the autoscaler asks Prometheus exists, and means what it should; shrinking waits for drained pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import STAGES, GatewayMetrics
from tests.deploy.containers import ROLES, named, of_kind
from tests.deploy.rules import promtool
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.telemetry import Metrics

# Labels that Prometheus adds to what it scrapes.
TARGET_LABELS = {"namespace", "instance"}
every_role = pytest.mark.parametrize("role", ROLES)


def triggers(role: str) -> dict[str, dict[str, Any]]:
    return {trigger["name"]: trigger for trigger in named("a100", "ScaledObject", role)["spec"]["triggers"]}


def query(role: str, name: str) -> str:
    text: str = triggers(role)[name]["metadata"]["query"]
    return text


@cache
def samples(stage: str) -> dict[str, list[dict[str, str]]]:
    """What a service of this stage exports: sample names with their labels."""
    metrics = Metrics(stage)
    if stage == "gateway":
        GatewayMetrics(metrics)
    found: dict[str, list[dict[str, str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def selected(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, labels in re.findall(r"(visavis_\w+)\{([^}]*)\}", text):
        yield name, dict(re.findall(r'(\w+)="([^"]*)"', labels))


@every_role
def test_queries_ask_for_what_the_code_exports(role: str) -> None:
    for name, trigger in triggers(role).items():
        text = trigger["metadata"]["query"]
        assert set(re.findall(r"visavis_\w+", text)) == {metric for metric, _ in selected(text)}, name
        for metric, labels in selected(text):
            assert labels["namespace"] == "visavis"
            own = {label: value for label, value in labels.items() if label not in TARGET_LABELS}
            exporter = "gateway" if metric.startswith("visavis_gateway_") else role.replace("-", "_")
            exported = samples(exporter)[metric]
            assert any(own.items() <= there.items() for there in exported), (metric, own)


@every_role
def test_late_is_what_players_waited_for_and_a_stage_had_longer_than_it_plays(role: str) -> None:
    assert "visavis_gateway_late_chunks_total" in query(role, "late-chunks")
    assert f'le="{CHUNK_SECONDS}"' in query(role, "late-chunks")


@every_role
def test_shrinking_takes_one_pod_and_waits_until_it_has_drained(role: str) -> None:
    behaviour = named("a100", "ScaledObject", role)["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (policy,) = behaviour["scaleDown"]["policies"]
    grace = named("a100", "Deployment", role)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] >= grace


@pytest.mark.parametrize("overlay", ["a100", "h100"])
def test_the_autoscaler_alone_says_how_many(overlay: str) -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(overlay, "ScaledObject")}
    assert scaled == set(ROLES)
    for role in ROLES:
        assert "replicas" not in named(overlay, "Deployment", role)["spec"]
        assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in triggers(role).values())


def test_queries_have_the_values_that_they_should(tmp_path: Path) -> None:
    """Evaluated by promtool: a full and a draining pod; chunks late, slow or both; no chunks, and no data at all."""
    labels = 'namespace="visavis",stage="generator"'

    def pod(instance: str, used: int, draining: int) -> list[dict[str, str]]:
        own = f'{labels},instance="{instance}"'
        return [
            {"series": f"visavis_slots{{{own}}}", "values": "4x10"},
            {"series": f"visavis_used_slots{{{own}}}", "values": f"{used}x10"},
            {"series": f"visavis_draining{{{own}}}", "values": f"{draining}x10"},
        ]

    def chunks(number: int, *, late: int, slow: Mapping[str, int]) -> list[dict[str, str]]:
        """Chunks a minute of two gateways together: all, those that players waited for, those slow in each stage."""
        counts = {"chunks_total": number, "late_chunks_total": late}
        for stage in STAGES:
            counts[f'stage_seconds_count,stage="{stage}"'] = number
            counts[f'stage_seconds_bucket,le="0.96",stage="{stage}"'] = number - slow.get(stage, 0)
        found = []
        for name, count in counts.items():
            metric, _, own = name.partition(",")
            for gateway in ("a", "b"):
                series = f'visavis_gateway_{metric}{{namespace="visavis",instance="{gateway}",{own}}}'
                found.append({"series": series, "values": f"0+{count // 2}x10"})
        return found

    def case(series: list[dict[str, str]], name: str, value: float | None, role: str = "generator") -> dict[str, Any]:
        expected = [] if value is None else [{"labels": "{}", "value": value}]
        # promtool compares every bit.
        ask = {"expr": f"round({query(role, name)}, 0.0001)", "eval_time": "8m", "exp_samples": expected}
        return {"interval": "1m", "input_series": series, "promql_expr_test": [ask]}

    (tmp_path / "cases.yaml").write_text(
        yaml.safe_dump(
            {
                "tests": [
                    case(pod("a", 3, 0) + pod("b", 1, 0), "used-slots", 0.5),
                    case(pod("a", 3, 0) + pod("b", 4, 1), "used-slots", 0.75),
                    case([], "used-slots", None),
                    # Files wait in the queue; nobody waits for them.
                    case(chunks(800, late=0, slow={"generator": 800}), "late-chunks", 0.0),
                    case(chunks(800, late=0, slow={"generator": 800}), "late-chunks", 0.0, "gateway"),
                    # The generator's: as many as are late, and twice the pods at most.
                    case(chunks(800, late=10, slow={"generator": 400}), "late-chunks", 0.0125),
                    case(chunks(800, late=400, slow={"generator": 400}), "late-chunks", 0.02),
                    case(chunks(800, late=400, slow={"generator": 400}), "late-chunks", 0.0, "decoder"),
                    case(chunks(800, late=400, slow={"generator": 400}), "late-chunks", 0.0, "gateway"),
                    # Not more than are slow there; nobody else's but the gateways'.
                    case(chunks(800, late=400, slow={"decoder": 4}), "late-chunks", 0.0),
                    case(chunks(800, late=14, slow={"decoder": 4}), "late-chunks", 0.005, "decoder"),
                    case(chunks(800, late=14, slow={"decoder": 4}), "late-chunks", 0.0125, "gateway"),
                    case(chunks(0, late=0, slow={}), "late-chunks", 0.0),
                    case([], "late-chunks", 0.0),
                    case([], "late-chunks", 0.0, "gateway"),
                ],
            }
        )
    )
    done = promtool("test", "rules", tmp_path / "cases.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
