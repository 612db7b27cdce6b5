"""The few kinds of panel that the dashboards are made of, over Grafana's own typed builders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, heatmap, logs, loki, prometheus, stat, table, tempo, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

METRICS: Final = models.DataSourceRef(type_val="prometheus", uid="${metrics}")
TRACES: Final = models.DataSourceRef(type_val="tempo", uid="${traces}")
LOGS: Final = models.DataSourceRef(type_val="loki", uid="${logs}")
# Rows are 24 wide.
THIRD: Final = 8
HALF: Final = 12
WHOLE: Final = 24


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """From this value on, a panel is red."""

    value: float
    # Whether high values are the bad ones.
    above: bool = True


def lines(
    title: str, text: str, unit: str, *queries: Query, limit: Limit | None = None, width: int = THIRD
) -> timeseries.Panel:
    """Values over time; a dashed line at the limit."""
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .datasource(METRICS)
        .line_width(1)
        .fill_opacity(8)
        .tooltip(tooltip)
    )
    for name, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_target(name, query).exemplar(query is queries[0]))
    if limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(limit)).thresholds_style(style)
    return panel


def number(title: str, text: str, unit: str, query: Query, limit: Limit | None = None, width: int = 4) -> stat.Panel:
    """One value, as it is now."""
    panel = (
        stat.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .span(width)
        .height(4)
        .datasource(METRICS)
        .with_target(_target("A", query))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return panel if limit is None else panel.thresholds(_thresholds(limit))


def spread(title: str, text: str, histogram: str, matchers: str, width: int = HALF) -> heatmap.Panel:
    """How the values of a histogram are spread over time; its exemplars lead to traces."""
    expression = f"sum by (le) (increase({histogram}_bucket{{{matchers}}}[$__rate_interval]))"
    target = _target("A", Query(expression, "{{le}}")).format(prometheus_models.PromQueryFormat.HEATMAP).exemplar(True)
    return (
        heatmap.Panel()
        .title(title)
        .description(text)
        .span(width)
        .height(8)
        .datasource(METRICS)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .color(heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Oranges").steps(32))
        .with_target(target)
    )


def spans(title: str, text: str, query: str, width: int = WHOLE) -> table.Panel:
    """Spans that a TraceQL query finds."""
    target = tempo.TempoQuery().ref_id("A").query(query).query_type("traceql").limit(500).datasource(TRACES)
    return table.Panel().title(title).description(text).span(width).height(10).datasource(TRACES).with_target(target)


def log_lines(title: str, text: str, query: str, width: int = WHOLE) -> logs.Panel:
    """Log lines that a LogQL query finds."""
    target = loki.Dataquery().ref_id("A").expr(query).datasource(LOGS)
    return (
        logs.Panel()
        .title(title)
        .description(text)
        .span(width)
        .height(12)
        .datasource(LOGS)
        .show_time(True)
        .wrap_log_message(True)
        .with_target(target)
    )


def dashboard(uid: str, title: str, text: str) -> dashboards.Dashboard:
    """An empty dashboard with the choice of its data sources and of the namespace."""
    return (
        dashboards.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["visavis"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboards.DashboardLink("visavis")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["visavis"])
            .as_dropdown(True)
        )
        .with_variable(dashboards.DatasourceVariable("metrics").label("Metrics").type("prometheus"))
        .with_variable(
            dashboards.QueryVariable("namespace")
            .label("Namespace")
            .datasource(METRICS)
            .query("label_values(visavis_build_info, namespace)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            # Without Kubernetes there is no such label, and this fits what is not there.
            .all_value(".*")
        )
    )


def row(title: str) -> dashboards.Row:
    """The heading of the panels that follow."""
    return dashboards.Row(title)


def _target(name: str, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(name).expr(query.expression).legend_format(query.legend).datasource(METRICS)


def _thresholds(limit: Limit) -> dashboards.ThresholdsConfig:
    below, above = ("green", "red") if limit.above else ("red", "green")
    steps = [models.Threshold(None, below), models.Threshold(limit.value, above)]
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
