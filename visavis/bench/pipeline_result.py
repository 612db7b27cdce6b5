"""What `visavis bench pipeline` finds.

- Fast: all speech is there ahead, so the real-time factor (wall seconds, from the first audio to the last frame, per
  second of video of all sessions together) is what the pipeline can sustain: below 1, it can be live.
- Paced: callers as those of `visavis load`, one utterance each; figures as in `load_figures`. Its real-time factor is
  the time that players took, standing still included, per second of video: 1 when the pipeline kept up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from visavis.bench.capacity_search import CapacityResult
from visavis.bench.generator_result import Precision
from visavis.bench.load_figures import LoadFigures
from visavis.bench.measured_session import SessionMeasurement
from visavis.bench.percentiles import Percentiles
from visavis.bench.resources import MachineUse, ResourceUse
from visavis.bench.stage_table import StageFigures
from visavis.bench.surroundings import Surroundings
from visavis.client.records import Model
from visavis.contract import CHUNK_SECONDS

# What the services may cost over the same models in one process.
OVERHEAD_TARGET = 0.05


@dataclass(frozen=True, slots=True)
class FastFigures:
    """All sessions of the fast run."""

    real_time_factor: float
    time_to_first_frame_seconds: Percentiles
    stages: StageFigures
    chunks: int
    resources: Mapping[str, ResourceUse]
    machine: MachineUse


@dataclass(frozen=True, slots=True)
class PacedFigures:
    """All sessions of the paced run."""

    real_time_factor: float
    load: LoadFigures
    resources: Mapping[str, ResourceUse]
    machine: MachineUse


@dataclass(frozen=True, slots=True)
class ModelRun:
    """How models are run, each in the words of its setting (docs/settings.md). Two runs are compared only if equal."""

    device: str
    dtype: str
    sampling: str
    execution: str

    def differences(self, other: ModelRun) -> list[str]:
        """What differs, in words; `other` is what ours is not."""
        return [
            f"{field.name} {getattr(self, field.name)}, not {getattr(other, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


@dataclass(frozen=True, slots=True)
class InProcessFigures:
    """The same models called one after the other in one process, without services.

    real_time_factor: seconds per second of video. threads: of torch. precision: of the transformer's large products.
    matrix_operations_per_second: the best of several products of two large matrices in that precision, in the same
    process; a shared machine's speed changes by the hour.
    """

    run: ModelRun
    precision: Precision
    real_time_factor: float
    chunk_seconds: Percentiles
    cpu_seconds_per_chunk: float
    threads: int
    matrix_operations_per_second: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the services cost over the same models in one process.

    cpu_share: processor time of a chunk in all services (fast run, Valkey included) over that in one process, minus 1.
    between_seconds: of a paced chunk's time, what it spent neither computed by a stage nor waiting for one: transport,
    relaying, pipes to workers. between_share: of that, over the chunk's time in one process.
    """

    cpu_share: float
    between_seconds: float
    between_share: float


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """One benchmark.

    settings: of the services, the variables of the environment that say anything. run: how the services run the models.
    playout_buffer_seconds: what the players of the paced clients hold. search, in_process: None when not asked for.
    overhead: None without in_process, or when that ran the models in another way.
    """

    surroundings: Surroundings
    preset: str
    model: Model
    sessions: int
    speech_seconds: float
    playout_buffer_seconds: float
    settings: tuple[str, ...]
    run: ModelRun
    fast: FastFigures
    paced: PacedFigures
    search: CapacityResult | None
    in_process: InProcessFigures | None
    overhead: Overhead | None


def fast_figures(
    sessions: Sequence[SessionMeasurement], resources: Mapping[str, ResourceUse], machine: MachineUse
) -> FastFigures:
    """Sums up the sessions of the fast run."""
    chunks = [chunk for session in sessions for chunk in session.chunks]
    wall_seconds = max(session.wall_seconds for session in sessions)
    return FastFigures(
        real_time_factor=wall_seconds / sum(session.video_seconds for session in sessions),
        time_to_first_frame_seconds=Percentiles.of([each.time_to_first_frame_seconds for each in sessions]),
        stages=StageFigures.of(chunks),
        chunks=len(chunks),
        resources=resources,
        machine=machine,
    )


def paced_figures(load: LoadFigures, resources: Mapping[str, ResourceUse], machine: MachineUse) -> PacedFigures:
    """Sums up the paced run."""
    return PacedFigures(
        real_time_factor=1 + load.stalled_seconds / load.video_seconds if load.video_seconds else float("nan"),
        load=load,
        resources=resources,
        machine=machine,
    )


def overhead_of(fast: FastFigures, paced: PacedFigures, run: ModelRun, alone: InProcessFigures) -> Overhead | None:
    """Compares; see `Overhead`. None when the services, which ran as `run` says, ran other products or steps."""
    if run != alone.run:
        return None
    cpu_seconds = sum(use.cpu_seconds for use in fast.resources.values()) / fast.chunks
    stages = paced.load.stages
    in_stages = sum(of.mean for of in (*stages.computed.values(), *stages.queued.values()))
    between_seconds = stages.total.mean - in_stages
    return Overhead(
        cpu_share=cpu_seconds / alone.cpu_seconds_per_chunk - 1,
        between_seconds=between_seconds,
        between_share=between_seconds / (alone.real_time_factor * CHUNK_SECONDS),
    )
