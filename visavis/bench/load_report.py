"""One load result as a page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2

from visavis.bench.charts import capacity_chart, latency_chart, sessions_chart
from visavis.bench.load_result import LoadResult
from visavis.bench.load_words import load_counts
from visavis.bench.units import milliseconds, percent


def write_html(result: LoadResult, path: Path) -> None:
    """Writes the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(load_page(result))


def load_page(result: LoadResult) -> str:
    """The report as HTML. What came from elsewhere is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(ms=milliseconds, percent=percent, number=_number, labels=_labels)
    figures = result.figures
    return environment.get_template("load_report.html").render(
        result=result,
        figures=figures,
        charts={
            "latency": latency_chart(result.bins),
            "sessions": sessions_chart(result.bins),
            "capacity": capacity_chart(result.search.steps) if result.search else "",
        },
        latencies=[
            ("chunk", figures.chunk_seconds),
            ("first frame of an utterance", figures.first_frame_seconds),
            ("interruption", figures.interruption_seconds),
            ("session start", figures.start_seconds),
        ],
        counts=load_counts(figures),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}={value}" for name, value in labels.items()) + "}" if labels else ""
