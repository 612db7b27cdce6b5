"""The page and the JSON of a load run."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.histories import good_run, over
from visavis.bench.capacity_search import SearchStep, find_capacity
from visavis.bench.json_file import write_json
from visavis.bench.load_figures import SloLimits, broken_promises, load_bins, load_figures
from visavis.bench.load_report import load_page
from visavis.bench.load_result import SCHEMA, LoadRequest, LoadResult
from visavis.bench.load_tally import LoadTally
from visavis.bench.load_view import LoadView, print_figures, print_search
from visavis.bench.ramp import RampPoint
from visavis.bench.server_view import MetricsPage, server_view
from visavis.bench.surroundings import surroundings
from visavis.client import Model
from visavis.client.records import ServerInfo

LIMITS = SloLimits(0.99, None, None)
VOID = {"meta", "br", "link", "img", "input", "hr"}


def result_of(tally: LoadTally, *, searched: bool = False) -> LoadResult:
    figures = load_figures(tally)
    page = MetricsPage({("visavis_used_slots", ()): 2.0}, {"visavis_used_slots": "gauge"})
    search = find_capacity(4, lambda n: SearchStep(n, figures, ("3 late",) if n > 2 else ())) if searched else None
    return LoadResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        request=LoadRequest("<b>host</b>:1", (RampPoint(0, 2),), ("a.wav",), "jpeg", "live", 1.0, 0.0, 0.04, 1, 0),
        server=ServerInfo("0.1", Model("mini", "ab", random_weights=True), 256, 256, 25, 0.96),
        limits=LIMITS,
        broken=tuple(broken_promises(figures, LIMITS)),
        figures=figures,
        bins=tuple(load_bins(tally)),
        server_views=(server_view("http://gateway/metrics", [page]),),
        search=search,
    )


class Nesting(HTMLParser):
    """Fails on tags that do not close in order; collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("searched", [False, True])
def test_the_page_needs_nothing_from_elsewhere(searched: bool) -> None:
    page = load_page(result_of(good_run(), searched=searched))
    reader = Nesting()
    reader.feed(page)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe"} & reader.tags
    assert all(source.startswith("#") for source in reader.sources)
    assert "url(http" not in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2 + searched
    for drawing in drawings:
        assert ET.fromstring(drawing).tag.endswith("svg")


def test_what_came_from_elsewhere_is_escaped() -> None:
    tally = good_run()
    tally.add(over(1, "failed", "<script>alert(1)</script>", started=False))
    page = load_page(result_of(tally))
    assert "<b>host</b>" not in page
    assert "<script>" not in page
    assert "Promises broken" in page


def test_a_run_in_which_nothing_came_has_a_page_too() -> None:
    assert "no chunk came" in load_page(result_of(LoadTally()))


def test_the_json_names_its_schema_and_has_every_field(tmp_path: Path) -> None:
    result = result_of(good_run(), searched=True)
    write_json(result, tmp_path / "deep" / "a.json")
    found = json.loads((tmp_path / "deep" / "a.json").read_text())
    assert found["schema"] == "visavis.load/1"
    assert set(found) == {field.name for field in fields(result)}
    assert found["search"]["sustained_sessions"] == 2
    assert found["figures"]["chunk_seconds"]["p95"] == 0.3
    assert found["server_views"][0]["gauges"][0]["highest"] == 2.0


def test_the_terminal_shows_the_same() -> None:
    console = Console(record=True, width=160)
    result = result_of(good_run(), searched=True)
    print_figures(result.figures, console)
    assert result.search is not None
    print_search(result.search, console)
    text = console.export_text()
    assert re.search(r"chunk +│ +200 │ 300 ms", text)
    assert "sessions sustained     2" in text


def test_a_slow_client_is_told() -> None:
    console = Console(record=True, width=300)
    figures = load_figures(good_run())
    slow = replace(figures, clients=(replace(figures.clients[0], send_lag_p95_seconds=0.5),))
    print_figures(slow, console)
    assert "The client was too slow itself" in console.export_text()


def test_the_live_view_draws_on_a_terminal() -> None:
    console = Console(record=True, width=120, force_terminal=True)
    with LoadView(console, "2 session(s)", 100.0) as view:
        view.look(good_run(), 50.0)
        view.look(LoadTally(), -1.0)
    text = console.export_text()
    assert "50 of 100 s" in text
    assert "the clients start" in text
