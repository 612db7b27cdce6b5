"""The rules of the PrometheusRule as a plain rule file, and promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"


def rule_groups() -> list[dict[str, Any]]:
    """The groups of deploy/prometheus/prometheus-rule.yaml."""
    groups: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "prometheus-rule.yaml").read_text())["spec"]["groups"]
    return groups


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules that are an "alert" or a "record"."""
    return [rule for group in rule_groups() for rule in group["rules"] if kind in rule]


def write_rule_file(path: Path) -> None:
    """What Prometheus reads without the operator."""
    path.write_text(yaml.safe_dump({"groups": rule_groups()}))


def program(name: str) -> str:
    """promtool or prometheus; where it is missing, the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here: `make prometheus` installs Debian's, as root")
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs it; the output is whole in an error message."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
