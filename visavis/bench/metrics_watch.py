"""Scrapes metrics endpoints in the background while a load runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from visavis.bench.server_view import MetricsPage, MetricsUnreachable, ServerView, fetch_metrics, server_view

SCRAPE_SECONDS: Final = 2.0
# Of one endpoint, spread over the run: what lies between the first and the last is for the highest of gauges only.
MAX_PAGES: Final = 600


class MetricsWatch:
    """For `with`. Entering raises MetricsUnreachable; what cannot be reached later is left out of `views`."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._pages: dict[str, list[MetricsPage]] = {url: [fetch_metrics(url)] for url in urls}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._scrape_until_stopped, name="visavis-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._scrape()

    @property
    def views(self) -> tuple[ServerView, ...]:
        """Of every endpoint, after the run."""
        return tuple(server_view(url, pages) for url, pages in self._pages.items())

    def _scrape_until_stopped(self) -> None:
        while not self._stop.wait(SCRAPE_SECONDS):
            self._scrape()

    def _scrape(self) -> None:
        for url, pages in self._pages.items():
            try:
                page = fetch_metrics(url)
            except MetricsUnreachable:
                continue
            if len(pages) >= MAX_PAGES:
                del pages[1]
            pages.append(page)
