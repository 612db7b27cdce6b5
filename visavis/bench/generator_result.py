"""What `visavis bench generator` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visavis.bench.generator_work import Rates
from visavis.bench.percentiles import Percentiles
from visavis.bench.surroundings import Surroundings
from visavis.contract import CHUNK_FRAMES, CHUNK_SECONDS

SCHEMA = "visavis.generator/1"

# parity: the preset's own steps and guidance. fast: half as many steps, no guidance.
Mode = Literal["parity", "fast"]
# Of products. In int8 and fp8 those of large weights alone; others are float32 or, on a GPU, bfloat16.
Precision = Literal["float32", "bfloat16", "int8", "fp8"]


@dataclass(frozen=True, slots=True)
class SessionsFigures:
    """One batch: a chunk of each of so many sessions.

    chunk_seconds: until all chunks and the contexts for the next ones are there. bound_seconds: the least that this can
    take at the rates of the run. memory_bytes: on a GPU the most that was allocated, weights included; on a CPU the
    resident memory of the process. one_by_one_seconds: the same sessions one after the other. plain_seconds,
    diffusers_seconds: the comparisons. decode_seconds: the pictures of the same chunks, alone. beside_seconds: chunks
    and the pictures of the chunks before, at the same time. What was not measured is None.
    """

    sessions: int
    chunk_seconds: Percentiles
    bound_seconds: float
    operations: float
    moved_bytes: float
    memory_bytes: int
    one_by_one_seconds: Percentiles | None
    plain_seconds: Percentiles | None
    diffusers_seconds: Percentiles | None
    decode_seconds: Percentiles | None
    beside_seconds: Percentiles | None

    @property
    def bound_share(self) -> float:
        """How much of what the device can do is used."""
        return self.bound_seconds / self.chunk_seconds.p50

    @property
    def frames_per_second(self) -> float:
        """Of all sessions together."""
        return self.sessions * CHUNK_FRAMES / self.chunk_seconds.p50

    @property
    def keeps_up(self) -> bool:
        """Whether so many sessions can be live, nearly always."""
        return self.chunk_seconds.p95 < CHUNK_SECONDS

    def faster_than(self, other: Percentiles | None) -> float | None:
        """How many times."""
        return None if other is None else other.p50 / self.chunk_seconds.p50


@dataclass(frozen=True, slots=True)
class ModeFigures:
    """One preset in one mode.

    blocks: transformer blocks that were run; the preset has preset_blocks. plain_error: relative difference between
    the plain generator's second chunk and ours, which should be rounding (None: not compared).
    """

    preset: str
    mode: Mode
    picture_size: int
    blocks: int
    preset_blocks: int
    steps: int
    branches: int
    random_weights: bool
    plain_error: float | None
    sessions: tuple[SessionsFigures, ...]


@dataclass(frozen=True, slots=True)
class GeneratorResult:
    """One benchmark. gpu: its name; None where none was measured."""

    schema: str
    surroundings: Surroundings
    gpu: str | None
    threads: int
    execution: str
    precision: Precision
    rates: Rates
    seconds: float
    modes: tuple[ModeFigures, ...]
