"""The committed dashboards: as the program writes them, as Grafana's own schema knows them, readable and complete."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.metrics_page import documented_metrics, metrics_in
from tests.deploy.panel_queries import panel_queries, panels_of, read_dashboards
from tests.deploy.rules import rules
from tools.dashboards.__main__ import written_dashboards

DASHBOARDS = read_dashboards()


def test_files_are_what_the_program_writes() -> None:
    for path, text in written_dashboards().items():
        assert path.read_text() == text, f"{path.name}: run python -m tools.dashboards"
    assert set(DASHBOARDS) == {path.stem for path in written_dashboards()}


def test_there_is_an_overview_one_for_each_service_and_one_for_a_session() -> None:
    assert set(DASHBOARDS) == {"overview", "gateway", "audio-encoder", "generator", "decoder", "session"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_schema_knows_every_field(name: str) -> None:
    register_default_plugins()
    # What the schema does not know is lost on the way through its classes.
    again = JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARDS[name]))
    assert json.loads(again) == DASHBOARDS[name]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_shows_and_asks_a_source_that_is_there(name: str) -> None:
    sources = {
        f"${{{variable['name']}}}"
        for variable in DASHBOARDS[name]["templating"]["list"]
        if variable["type"] == "datasource"
    }
    panels = list(panels_of(DASHBOARDS[name]))
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith(".")
        assert panel["targets"]
        assert panel["datasource"]["uid"] in sources
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]}
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_covers_another(name: str) -> None:
    for one, other in combinations(DASHBOARDS[name]["panels"], 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARDS[name]["panels"])


def test_queries_use_metrics_and_rules_that_exist() -> None:
    records = {rule["record"] for rule in rules("record")}
    known = {metric.name for metric in documented_metrics()}
    for expression in [query.expression for query in panel_queries()] + [rule["expr"] for rule in rules("alert")]:
        assert set(re.findall(r"visavis:\w+:\w+", expression)) <= records, expression
        assert metrics_in(expression) <= known, expression


def test_every_metric_is_on_a_dashboard() -> None:
    shown = set().union(*(metrics_in(query.expression) for query in panel_queries()))
    recorded = set().union(*(metrics_in(rule["expr"]) for rule in rules("record")))
    assert {metric.name for metric in documented_metrics()} == shown | recorded


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
