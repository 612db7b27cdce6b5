"""Recording rules and alerts: valid, firing when they should and only then, each with a page that says what to do."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.containers import NAMESPACED_OVERLAYS, build, environment_of, service_container
from tests.deploy.rules import PROMETHEUS, ROOT, promtool, rules, write_rule_file

RUNBOOKS = ROOT / "docs" / "runbooks"
# The Prometheus operator's default.
EVALUATION_SECONDS = 30
CASES = sorted(PROMETHEUS.glob("rules-test-*.yaml"))


def seconds(duration: str) -> int:
    """Of one number with its unit."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    write_rule_file(tmp_path / "rules.yaml")
    done = promtool("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules('alert')) + len(rules('record'))} rules found" in done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_rules_fire_when_they_should_and_only_then(cases: Path, tmp_path: Path) -> None:
    write_rule_file(tmp_path / "rules.yaml")
    shutil.copy(cases, tmp_path)
    done = promtool("test", "rules", tmp_path / cases.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: set[str] = set()
    stays_quiet: set[str] = set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case.get("alert_rule_test", ()):
                (fires if expected["exp_alerts"] else stays_quiet).add(expected["alertname"])
            if any(expected["expr"] == "count(ALERTS)" for expected in case.get("promql_expr_test", ())):
                stays_quiet.update(rule["alert"] for rule in rules("alert"))
    names = {rule["alert"] for rule in rules("alert")}
    assert fires == names
    assert stays_quiet == names


@pytest.mark.parametrize("overlay", NAMESPACED_OVERLAYS)
@pytest.mark.parametrize("role", ["audio-encoder", "generator", "decoder"])
def test_a_stuck_drain_is_told_while_it_lasts(overlay: str, role: str, tmp_path: Path) -> None:
    (alert,) = [rule for rule in rules("alert") if rule["alert"] == "VisavisDrainStuck"]
    (monitor,) = yaml.safe_load((PROMETHEUS / "pod-monitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    settings, _ = build(role, environment_of(overlay, service_container(overlay, role)), tmp_path)
    waits = math.ceil(seconds(alert["for"]) / EVALUATION_SECONDS) * EVALUATION_SECONDS
    assert seconds(monitor["interval"]) + EVALUATION_SECONDS + waits < settings.drain_seconds


def test_each_alert_leads_to_its_page_and_each_page_to_an_alert() -> None:
    for rule in rules("alert"):
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in ("page", "ticket")
    pages = {path.stem: path.read_text() for path in RUNBOOKS.glob("*.md")}
    assert set(pages) == {rule["alert"] for rule in rules("alert")}
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n")
        assert "## What it means" in text
        assert "## Where to look" in text
        assert "## What to do" in text
