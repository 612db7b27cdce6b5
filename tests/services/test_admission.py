import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.admission import (
    AdmissionSettings,
    container_free_bytes,
    read_admission_settings,
    sessions_in_memory,
    sessions_in_real_time,
    slots_to_offer,
)
from services.pass_times import PassTimes
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.settings import Environment, SettingsError

MEASURED = AdmissionSettings(slots=0, headroom=0.15, memory_bytes=0, slower_than_real_time=True)


def test_sessions_one_by_one_share_the_time_of_a_chunk() -> None:
    times = PassTimes({1: 0.02})
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.0, headroom=0.0, most_together=16) == 5
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.05, headroom=0.0, most_together=16) == 4
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.0, headroom=0.5, most_together=16) == 2


def test_batches_count_where_there_are_sessions_to_fill_them() -> None:
    times = PassTimes({1: 0.1, 2: 0.1, 4: 0.1, 8: 0.19})
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.0, headroom=0.0, most_together=16) == 4
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.0, headroom=0.0, most_together=2) == 2
    assert sessions_in_real_time(times, passes=9, begin_seconds=0.0, headroom=0.0, most_together=1) == 1
    # Eight of them would be cheap, but already two do not fit.
    dear = PassTimes({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3})
    assert sessions_in_real_time(dear, passes=1, begin_seconds=0.0, headroom=0.0, most_together=16) == 0


@given(st.floats(1e-4, 2.0), st.lists(st.floats(1.0, 2.2), max_size=5), st.integers(1, 9), st.floats(0.0, 0.9))
def test_what_is_promised_can_be_kept(one: float, growth: list[float], passes: int, headroom: float) -> None:
    seconds = {1: one}
    for factor in growth:
        seconds[2 * max(seconds)] = seconds[max(seconds)] * factor
    times = PassTimes(seconds)
    sessions = sessions_in_real_time(times, passes, 0.001, headroom, most_together=16)
    needed = sessions * (0.001 + passes * times.best_seconds(max(sessions, 1)))
    assert needed <= (1 - headroom) * CHUNK_SECONDS * (1 + 1e-9)


def test_memory_is_shared_after_what_all_need() -> None:
    assert sessions_in_memory(100, kept_bytes=50, free_bytes=1000, headroom=0.0) == 9
    assert sessions_in_memory(100, kept_bytes=50, free_bytes=1000, headroom=0.5) == 4
    assert sessions_in_memory(100, kept_bytes=2000, free_bytes=1000, headroom=0.0) == 0


def test_the_measured_speed_decides_unless_the_settings_do() -> None:
    assert slots_to_offer(MEASURED, in_real_time=7, in_memory=100) == 7
    assert slots_to_offer(MEASURED, in_real_time=7, in_memory=5) == 5
    assert slots_to_offer(replace(MEASURED, slots=12), in_real_time=7, in_memory=100) == 12
    assert slots_to_offer(replace(MEASURED, slots=12), in_real_time=7, in_memory=10) == 10


def test_a_slow_device_takes_one_session_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert slots_to_offer(MEASURED, in_real_time=0, in_memory=100) == 1
    assert "does not keep one session in real time" in caplog.text


def test_a_slow_device_does_not_start_where_that_is_asked_for() -> None:
    with pytest.raises(RuntimeError, match="VISAVIS_SLOWER_THAN_REAL_TIME"):
        slots_to_offer(replace(MEASURED, slower_than_real_time=False), in_real_time=0, in_memory=100)


def test_a_device_too_small_for_one_session_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="memory"):
        slots_to_offer(MEASURED, in_real_time=5, in_memory=0)


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    assert container_free_bytes(tmp_path) == math.inf
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_free_bytes(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_free_bytes(tmp_path) == 700


def test_settings_are_read() -> None:
    assert read_admission_settings(Environment({})) == MEASURED
    variables = {"SLOTS": "3", "HEADROOM": "0", "SESSION_MEMORY_BYTES": "5000", "SLOWER_THAN_REAL_TIME": "off"}
    settings = read_admission_settings(Environment({f"VISAVIS_{name}": value for name, value in variables.items()}))
    assert settings == AdmissionSettings(3, 0.0, 5000, slower_than_real_time=False)
    with pytest.raises(SettingsError, match="HEADROOM"):
        read_admission_settings(Environment({"VISAVIS_HEADROOM": "1"}))
