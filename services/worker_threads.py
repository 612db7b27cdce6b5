"""How many threads torch gets in a stage's worker where the settings leave it open."""

from __future__ import annotations

from dataclasses import replace

from visavis.runtime.settings import ServiceSettings


def with_default_threads(settings: ServiceSettings, threads: int) -> ServiceSettings:
    """Returns the settings with `threads` in place of 0 ("leave it open").

    The generator computes most of a chunk, so it takes every core; the other stages take one, or they would all stand
    in each other's way on a small machine. A worker that is pinned takes no more than it has processors.
    """
    if settings.worker.threads:
        return settings
    threads = min(threads, len(settings.worker.processors) or threads)
    return replace(settings, worker=replace(settings.worker, threads=threads))
