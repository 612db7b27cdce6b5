"""What `visavis bench pipeline` finds.

- Real-time factor: wall seconds, from the first audio to the last frame, per second of video of all sessions together.
- Fast: all speech is there ahead, so the factor is what the pipeline can sustain: below 1, it can be live.
- Paced: speech comes as from a live engine, 40 ms packets in real time, so the factor is at least about 1; how far
  above says whether the pipeline kept up.
- Late chunks and time to first frame as in `measured_session`, seen by the client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from visavis.bench.measured_session import SessionMeasurement
from visavis.bench.percentiles import Percentiles
from visavis.bench.resources import MachineUse, ResourceUse
from visavis.bench.stage_table import StageFigures
from visavis.bench.surroundings import Surroundings
from visavis.client.records import Model

Pace = Literal["fast", "paced"]


@dataclass(frozen=True, slots=True)
class PaceFigures:
    """Of all sessions of one run."""

    pace: Pace
    real_time_factor: float
    time_to_first_frame_seconds: Percentiles
    stages: StageFigures
    chunks: int
    late_chunks: int
    resources: Mapping[str, ResourceUse]
    machine: MachineUse


@dataclass(frozen=True, slots=True)
class InProcessFigures:
    """The same models called one after the other in one process, without services.

    real_time_factor: seconds per second of video. threads: of torch. matrix_operations_per_second: of a product of two
    2048 x 2048 matrices in the models' compute type, in the same process; a shared machine's speed changes by the hour.
    """

    real_time_factor: float
    chunk_seconds: Percentiles
    threads: int
    matrix_operations_per_second: float


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """One benchmark.

    threads: of each service's worker, as VISAVIS_WORKER_THREADS says. in_process: None when not asked for.
    """

    surroundings: Surroundings
    preset: str
    model: Model
    sessions: int
    speech_seconds: float
    threads: str
    fast: PaceFigures
    paced: PaceFigures
    in_process: InProcessFigures | None


def pace_figures(
    pace: Pace,
    sessions: Sequence[SessionMeasurement],
    resources: Mapping[str, ResourceUse],
    machine: MachineUse,
) -> PaceFigures:
    """Sums up the sessions of one run."""
    chunks = [chunk for session in sessions for chunk in session.chunks]
    stages = StageFigures.of(chunks)
    wall_seconds = max(session.wall_seconds for session in sessions)
    return PaceFigures(
        pace=pace,
        real_time_factor=wall_seconds / sum(session.video_seconds for session in sessions),
        time_to_first_frame_seconds=Percentiles.of([each.time_to_first_frame_seconds for each in sessions]),
        stages=stages,
        chunks=len(chunks),
        late_chunks=sum(session.late_chunks for session in sessions),
        resources=resources,
        machine=machine,
    )
