"""The PromQL of every panel and variable of the committed dashboards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """Where it stands and what it asks."""

    dashboard: str
    panel: str
    expression: str

    def concrete(self, *, rate_interval: str) -> str:
        """With Grafana's variables filled in: all namespaces, one interval."""
        text = self.expression.replace("$namespace", ".*").replace("$__rate_interval", rate_interval)
        assert "$" not in text, text
        return text


def read_dashboards() -> dict[str, dict[str, Any]]:
    """The committed dashboards by file name without its end."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels_of(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, also those inside rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def panel_queries() -> list[PanelQuery]:
    """Of the panels that ask Prometheus."""
    return [
        PanelQuery(name, panel["title"], target["expr"])
        for name, dashboard in read_dashboards().items()
        for panel in panels_of(dashboard)
        for target in panel["targets"]
        if panel["datasource"]["type"] == "prometheus"
    ]
