"""Percentiles, late chunks, and measurements on their way between processes."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.bench.measured_session import ChunkRecord, SessionMeasurement, count_late
from visavis.bench.measurement_json import measurement_from_json
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline_result import Pace, pace_figures
from visavis.bench.resources import MachineUse
from visavis.client import ChunkTiming, StageTiming

STAGE = StageTiming(queued_seconds=0.01, computed_seconds=0.2)
QUIET = MachineUse(
    available_cpu_seconds=10.0, services_cpu_seconds=4.0, clients_cpu_seconds=1.0, others_cpu_seconds=0.1
)
TIMING = ChunkTiming(audio_encoder=STAGE, generator=STAGE, decoder=STAGE, total_seconds=0.48)


def chunk(index: int, first_frame_seconds: float) -> ChunkRecord:
    return ChunkRecord(index, first_frame_seconds, first_frame_seconds + 0.1, TIMING)


def session(*chunks: ChunkRecord) -> SessionMeasurement:
    return SessionMeasurement(
        speech_seconds=0.96 * len(chunks),
        frames=24 * len(chunks),
        time_to_first_frame_seconds=0.4,
        wall_seconds=chunks[-1].last_frame_seconds,
        late_chunks=count_late(list(chunks)),
        chunks=chunks,
    )


def test_percentiles_are_figures_that_were_measured() -> None:
    found = Percentiles.of([float(value) for value in range(1, 101)])
    assert (found.p50, found.p95, found.p99, found.maximum, found.mean) == (50, 95, 99, 100, 50.5)
    assert Percentiles.of([7.0]).p99 == 7.0
    assert math.isnan(Percentiles.of([]).p50)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_ascend_and_are_among_the_values(values: list[float]) -> None:
    found = Percentiles.of(values)
    assert found.p50 <= found.p95 <= found.p99 <= found.maximum == max(values)
    assert {found.p50, found.p95, found.p99} <= set(values)


def test_a_chunk_is_late_when_its_playout_has_begun_without_it() -> None:
    on_time = [chunk(1, 1.0), chunk(2, 1.5), chunk(3, 2.92)]
    assert count_late(on_time) == 0
    assert count_late([*on_time, chunk(4, 3.89)]) == 1
    assert count_late([]) == 0


def test_a_measurement_survives_json() -> None:
    measured = session(chunk(1, 1.0), chunk(2, 2.0))
    assert measurement_from_json(json.loads(json.dumps(dataclasses.asdict(measured)))) == measured


@pytest.mark.parametrize("pace", ["fast", "paced"])
def test_the_factor_is_wall_time_per_second_of_all_video(pace: Pace) -> None:
    one = session(chunk(1, 0.5), chunk(2, 0.86))
    assert pace_figures(pace, [one], {}, QUIET).real_time_factor == pytest.approx(0.96 / 1.92)
    assert pace_figures(pace, [one, one], {}, QUIET).real_time_factor == pytest.approx(0.96 / (2 * 1.92))


def test_chunks_and_late_chunks_are_counted() -> None:
    figures = pace_figures("paced", [session(chunk(1, 1.0), chunk(2, 2.5))], {}, QUIET)
    assert (figures.chunks, figures.late_chunks) == (2, 1)
