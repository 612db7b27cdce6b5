"""Measurements as JSON between the clients' process and the benchmark."""

from collections.abc import Mapping
from typing import Any

from visavis.bench.measured_session import ChunkRecord, SessionMeasurement
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_result import InProcessFigures, ModelRun
from visavis.client.events import ChunkTiming, StageTiming


def measurement_from_json(found: Mapping[str, Any]) -> SessionMeasurement:
    """The reverse of `dataclasses.asdict`. KeyError or TypeError for anything else."""
    chunks = tuple(ChunkRecord(**{**chunk, "timing": _timing_from_json(chunk["timing"])}) for chunk in found["chunks"])
    return SessionMeasurement(**{**found, "chunks": chunks})


def _timing_from_json(found: Mapping[str, Any]) -> ChunkTiming:
    return ChunkTiming(
        audio_encoder=StageTiming(**found["audio_encoder"]),
        generator=StageTiming(**found["generator"]),
        decoder=StageTiming(**found["decoder"]),
        total_seconds=found["total_seconds"],
    )


def in_process_from_json(found: Mapping[str, Any]) -> InProcessFigures:
    """The reverse of `dataclasses.asdict`. KeyError or TypeError for anything else."""
    parts = {"run": ModelRun(**found["run"]), "chunk_seconds": Percentiles(**found["chunk_seconds"])}
    return InProcessFigures(**{**found, **parts})
