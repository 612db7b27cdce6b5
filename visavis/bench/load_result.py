"""What `visavis load` writes as JSON, field by field (`json_file`). benchmarks/README.md documents it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from visavis.bench.capacity_search import CapacityResult
from visavis.bench.load_figures import LoadBin, LoadFigures, SloLimits
from visavis.bench.ramp import RampPoint
from visavis.bench.server_view import ServerView
from visavis.bench.surroundings import Surroundings
from visavis.client.records import ServerInfo

# Grows when a field changes its meaning or goes; fields are added without.
SCHEMA: Final = "visavis.load/1"


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What was asked for."""

    target: str
    ramp: tuple[RampPoint, ...]
    speech_files: tuple[str, ...]
    codec: str
    idle: str
    pause_seconds: float
    interrupts_per_minute: float
    playout_buffer_seconds: float
    processes: int
    seed: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One `visavis load`.

    broken: promises that were missed, in words; empty when all were kept. figures and bins: of the run; of a search, of
    its best step, or of its only one when none was good. search: None without --find-capacity.
    """

    schema: str
    surroundings: Surroundings
    request: LoadRequest
    server: ServerInfo
    limits: SloLimits
    broken: tuple[str, ...]
    figures: LoadFigures
    bins: tuple[LoadBin, ...]
    server_views: tuple[ServerView, ...]
    search: CapacityResult | None
