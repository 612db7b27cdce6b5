"""What the server itself says about a run: its Prometheus metrics before, while and after."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

FETCH_SECONDS: Final = 10.0
PREFIX: Final = "visavis_"
ALSO: Final = ("process_cpu_seconds_total", "process_resident_memory_bytes")

Labels: TypeAlias = tuple[tuple[str, str], ...]


class MetricsUnreachable(Exception):
    """An endpoint did not answer with metrics. The message names it and says why."""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """One scrape: samples by name and labels. kinds: of each family, by the names of its samples' stem."""

    samples: Mapping[tuple[str, Labels], float]
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HistogramChange:
    """What a histogram took in during the run. Percentiles are interpolated inside a bucket; None where it is empty or
    the value lies above the last bound."""

    name: str
    labels: Mapping[str, str]
    count: int
    mean: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class CounterChange:
    """By how much a counter grew."""

    name: str
    labels: Mapping[str, str]
    growth: float


@dataclass(frozen=True, slots=True)
class GaugeRange:
    """A gauge's last value and its highest of all scrapes."""

    name: str
    labels: Mapping[str, str]
    last: float
    highest: float


@dataclass(frozen=True, slots=True)
class ServerView:
    """One endpoint over the run."""

    url: str
    histograms: tuple[HistogramChange, ...]
    counters: tuple[CounterChange, ...]
    gauges: tuple[GaugeRange, ...]


def fetch_metrics(url: str) -> MetricsPage:
    """Reads an endpoint. MetricsUnreachable when it gives none."""
    address = url if "://" in url else f"http://{url}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=FETCH_SECONDS) as answer:
            return parse_metrics(answer.read().decode())
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise MetricsUnreachable(f"no metrics at {address}: {error}") from error


def parse_metrics(text: str) -> MetricsPage:
    """Reads Prometheus' text format. ValueError for anything else."""
    samples: dict[tuple[str, Labels], float] = {}
    kinds: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX) or sample.name in ALSO:
                samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
                kinds[sample.name] = family.type
    return MetricsPage(samples, kinds)


def server_view(url: str, pages: Sequence[MetricsPage]) -> ServerView:
    """What changed from the first scrape to the last, at least one."""
    first, last = pages[0], pages[-1]
    return ServerView(
        url=url,
        histograms=tuple(_histograms(first, last)),
        counters=tuple(_counters(first, last)),
        gauges=tuple(_gauges(pages)),
    )


def bucket_percentile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """The value below which a share (0 to 1) of a histogram lies.

    buckets: (upper bound, count up to it), ascending, the last bound infinite. As Prometheus' histogram_quantile,
    it interpolates evenly inside a bucket; None for an empty histogram or a value above the last finite bound.
    """
    ordered = list(buckets)
    if not ordered or ordered[-1][1] <= 0:
        return None
    rank = share * ordered[-1][1]
    lower, below = 0.0, 0.0
    for upper, up_to in ordered:
        if up_to >= rank and up_to > below:
            return None if math.isinf(upper) else lower + (upper - lower) * (rank - below) / (up_to - below)
        lower, below = upper, up_to
    return None


def _histograms(first: MetricsPage, last: MetricsPage) -> Iterable[HistogramChange]:
    for (name, labels), _ in last.samples.items():
        if last.kinds[name] != "histogram" or not name.endswith("_count"):
            continue
        stem = name.removesuffix("_count")
        count = _growth(first, last, name, labels)
        if count <= 0:
            continue
        buckets = sorted(
            (float(dict(found)["le"]), _growth(first, last, each, found))
            for each, found in last.samples
            if each == f"{stem}_bucket" and _without_bound(found) == labels
        )
        yield HistogramChange(
            stem,
            dict(labels),
            round(count),
            _growth(first, last, f"{stem}_sum", labels) / count,
            *(bucket_percentile(buckets, share) for share in (0.5, 0.95, 0.99)),
        )


def _counters(first: MetricsPage, last: MetricsPage) -> Iterable[CounterChange]:
    for name, labels in last.samples:
        if last.kinds[name] == "counter" and not name.endswith("_created"):
            growth = _growth(first, last, name, labels)
            if growth:
                yield CounterChange(name, dict(labels), growth)


def _gauges(pages: Sequence[MetricsPage]) -> Iterable[GaugeRange]:
    last = pages[-1]
    for name, labels in last.samples:
        if last.kinds[name] == "gauge" and not name.endswith("_created"):
            values = [page.samples.get((name, labels), 0.0) for page in pages]
            yield GaugeRange(name, dict(labels), values[-1], max(values))


def _growth(first: MetricsPage, last: MetricsPage, name: str, labels: Labels) -> float:
    """A counter that is smaller than before began anew: its process was restarted."""
    before, after = first.samples.get((name, labels), 0.0), last.samples.get((name, labels), 0.0)
    return after - before if after >= before else after


def _without_bound(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "le")
