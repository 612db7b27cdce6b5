"""Chunk times by stage, as figures and as a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from rich.table import Table

from visavis.bench.measured_session import ChunkRecord
from visavis.bench.percentiles import Percentiles

STAGES: Final = ("audio_encoder", "generator", "decoder")


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Seconds per chunk.

    computed, queued: by stage. total: from the arrival of the last audio that the chunk needs to the sending of its
    last frame.
    """

    computed: Mapping[str, Percentiles]
    queued: Mapping[str, Percentiles]
    total: Percentiles

    @classmethod
    def of(cls, chunks: Iterable[ChunkRecord]) -> Self:
        """Of any number of chunks."""
        timings = [chunk.timing for chunk in chunks]
        by_stage = {
            "audio_encoder": [timing.audio_encoder for timing in timings],
            "generator": [timing.generator for timing in timings],
            "decoder": [timing.decoder for timing in timings],
        }
        return cls(
            computed={name: Percentiles.of([each.computed_seconds for each in of]) for name, of in by_stage.items()},
            queued={name: Percentiles.of([each.queued_seconds for each in of]) for name, of in by_stage.items()},
            total=Percentiles.of([timing.total_seconds for timing in timings]),
        )


def stage_table(figures: StageFigures, title: str) -> Table:
    """A table for the terminal, in milliseconds."""
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for heading in ("p50", "p95", "p99", "waited p95"):
        table.add_column(heading, justify="right")
    for stage in STAGES:
        computed, queued = figures.computed[stage], figures.queued[stage]
        table.add_row(stage.replace("_", " "), _ms(computed.p50), _ms(computed.p95), _ms(computed.p99), _ms(queued.p95))
    total = figures.total
    table.add_row("whole chunk", _ms(total.p50), _ms(total.p95), _ms(total.p99), "", style="bold")
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
