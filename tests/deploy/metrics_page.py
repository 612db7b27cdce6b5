"""docs/metrics.md as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
_ROW = re.compile(
    r"^\| `(?P<name>visavis_\w+)` \| (?P<kind>\w+)(?P<exemplars>, exemplars)? \| (?P<labels>[^|]*)\|", re.M
)
_SERIES_OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


@dataclass(frozen=True, slots=True)
class DocumentedMetric:
    """One row of the page. `name` is as in a query, for a histogram without _bucket, _sum or _count."""

    name: str
    kind: str
    exemplars: bool
    labels: frozenset[str]


def documented_metrics() -> list[DocumentedMetric]:
    """Every row, in order."""
    return [
        DocumentedMetric(
            row["name"], row["kind"], bool(row["exemplars"]), frozenset(re.findall(r"`(\w+)`", row["labels"]))
        )
        for row in _ROW.finditer(PAGE.read_text())
    ]


def metrics_in(expression: str) -> set[str]:
    """The names of visavis' metrics in a PromQL expression, histograms without _bucket, _sum or _count."""
    found = re.findall(r"\bvisavis_\w+", expression)
    return {
        _SERIES_OF_A_HISTOGRAM.sub("", name) if "_seconds_" in name or "_ratio_" in name else name for name in found
    }
