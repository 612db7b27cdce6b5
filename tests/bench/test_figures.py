"""Percentiles, late chunks, and measurements on their way between processes."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.histories import good_run
from visavis.bench.load_figures import load_figures
from visavis.bench.measured_session import ChunkRecord, SessionMeasurement, count_late
from visavis.bench.measurement_json import in_process_from_json, measurement_from_json
from visavis.bench.percentiles import Percentiles
from visavis.bench.pipeline import services_run
from visavis.bench.pipeline_result import InProcessFigures, ModelRun, fast_figures, overhead_of, paced_figures
from visavis.bench.resources import MachineUse, ResourceUse
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
    assert count_late([*on_time, chunk(4, 3.93)]) == 1
    assert count_late([]) == 0


def test_a_measurement_survives_json() -> None:
    measured = session(chunk(1, 1.0), chunk(2, 2.0))
    assert measurement_from_json(json.loads(json.dumps(dataclasses.asdict(measured)))) == measured


def test_the_factor_is_wall_time_per_second_of_all_video() -> None:
    one = session(chunk(1, 0.5), chunk(2, 0.86))
    assert fast_figures([one], {}, QUIET).real_time_factor == pytest.approx(0.96 / 1.92)
    assert fast_figures([one, one], {}, QUIET).real_time_factor == pytest.approx(0.96 / (2 * 1.92))


def test_players_that_stood_still_raise_the_factor_of_a_paced_run() -> None:
    tally = good_run(sessions=1)
    assert paced_figures(load_figures(tally), {}, QUIET).real_time_factor == 1
    tally.stalled_seconds = 9.6
    assert paced_figures(load_figures(tally), {}, QUIET).real_time_factor == pytest.approx(1.1)


def alone(run: ModelRun) -> InProcessFigures:
    return InProcessFigures(
        run=run,
        precision="float32",
        real_time_factor=0.5,
        chunk_seconds=Percentiles.of([0.48]),
        cpu_seconds_per_chunk=1.0,
        threads=1,
        matrix_operations_per_second=1e9,
    )


def test_overhead_compares_with_one_process() -> None:
    use = {"generator": ResourceUse(0, 3.0), "gateway": ResourceUse(0, 0.3)}
    fast = fast_figures([session(*(chunk(index, index * 0.5) for index in (1, 2, 3)))], use, QUIET)
    paced = paced_figures(load_figures(good_run()), {}, QUIET)
    plain = services_run({})
    assert in_process_from_json(json.loads(json.dumps(dataclasses.asdict(alone(plain))))) == alone(plain)
    found = overhead_of(fast, paced, plain, alone(plain))
    assert found is not None
    assert found.cpu_share == pytest.approx(0.1)
    assert found.between_seconds == pytest.approx(0.7 - 3 * 0.21)
    assert found.between_share == pytest.approx(0.07 / 0.48)
    for setting, value in (("DTYPE", "int8"), ("SAMPLING", "fast"), ("EXECUTION", "graphed"), ("DEVICE", "cpu")):
        other = services_run({f"VISAVIS_{setting}": value})
        assert overhead_of(fast, paced, other, alone(plain)) is None
        assert overhead_of(fast, paced, other, alone(other)) == found
