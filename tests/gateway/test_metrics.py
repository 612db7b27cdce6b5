"""What the gateway counts for operators, beside what tests of sessions show."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from gateway.metrics import GatewayMetrics, MoveCause
from visavis.runtime.telemetry import Metrics
from visavis.v1.chunk_pb2 import StageTiming
from visavis.v1.talking_head_pb2 import ChunkTiming


class Watched:
    """Metrics and what they show."""

    def __init__(self) -> None:
        metrics = Metrics("gateway")
        self.gateway = GatewayMetrics(metrics)
        self._registry = metrics.registry

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"visavis_gateway_{name}", labels)


def seconds(amount: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(amount * 1e9))
    return duration


def test_the_real_time_factor_is_the_slowest_stages() -> None:
    watched = Watched()
    timing = ChunkTiming(
        audio_encoder=StageTiming(queued=seconds(0.1), computed=seconds(0.1)),
        generator=StageTiming(queued=seconds(0.48), computed=seconds(0.48)),
        decoder=StageTiming(computed=seconds(0.3)),
        total=seconds(1.5),
    )
    watched.gateway.chunk_written(timing, idle=False, late=True, drift_seconds=-0.03)
    assert watched.value("real_time_factor_ratio_sum") == pytest.approx(1.0)
    assert watched.value("stage_seconds_sum", stage="generator") == pytest.approx(0.96)
    assert watched.value("drift_seconds_sum") == pytest.approx(0.03)
    assert watched.value("late_chunks_total") == 1
    assert watched.value("chunks_total", kind="speech") == 1


@pytest.mark.parametrize(("cause", "counter"), [("hand_over", "hand_overs_total"), ("recovery", "recoveries_total")])
def test_a_move_is_counted_by_its_kind_and_only_a_successful_one_is_timed(cause: MoveCause, counter: str) -> None:
    watched = Watched()
    watched.gateway.moved(cause, "generator", "rebuilt", 0.4)
    watched.gateway.moved(cause, "generator", "failed", 30.0)
    assert watched.value(counter, stage="generator", kind="rebuilt") == 1
    assert watched.value(counter, stage="generator", kind="failed") == 1
    assert watched.value(counter, stage="decoder", kind="exact") == 0, "it exists before it happens"
    assert watched.value("move_seconds_count", stage="generator", cause=cause) == 1


def test_checkpoints_and_resumptions() -> None:
    watched = Watched()
    watched.gateway.checkpoint_written(200_000)
    watched.gateway.checkpoint_failed()
    watched.gateway.resumed("refused")
    assert watched.value("checkpoints_total", result="written") == 1
    assert watched.value("checkpoints_total", result="failed") == 1
    assert watched.value("checkpoint_bytes_total") == 200_000
    assert watched.value("resumed_sessions_total", result="refused") == 1
    assert watched.value("resumed_sessions_total", result="resumed") == 0
