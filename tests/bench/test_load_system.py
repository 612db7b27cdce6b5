"""Real load on real services (tiny), and on one gateway in front of instant stages."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.parts import ENVIRONMENT
from visavis.bench.gateway_cost import measure_gateway
from visavis.cli.local_system import LocalSystem, SystemSettings, local_system

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """All services, with room for two sessions."""
    settings = SystemSettings(
        model="tiny",
        redis_url=None,
        run_folder=tmp_path_factory.mktemp("system"),
        gateway_address="127.0.0.1:0",
        environment={**ENVIRONMENT, "VISAVIS_SLOTS": "2"},
        service_environment={},
    )
    with local_system(settings, lambda line: None) as system:
        yield system


def load(system: LocalSystem, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "visavis.cli", "load", "--target", system.gateway_address, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_callers_talk_and_the_report_adds_up(system: LocalSystem, tmp_path: Path) -> None:
    """A third caller finds no room; what the server says of itself is beside what the callers saw."""
    options = ["--sessions", "3", "--processes", "2", "--ramp", "1", "--duration", "6", "--slo-in-time", "0.01"]
    options += ["--interrupts-per-minute", "30", "--metrics", system.metrics["gateway"]]
    options += ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    running = load(system, *options)
    output, errors = running.communicate(timeout=200)
    assert errors == ""
    assert "1 x RESOURCE_EXHAUSTED" in output
    assert running.returncode == 1  # a refused session breaks a promise
    found = json.loads((tmp_path / "a.json").read_text())
    figures = found["figures"]
    assert figures["sessions"] == {"completed": 2, "rejected": 1, "failed": 0, "stopped": 0}
    assert figures["chunks"] - figures["missing_chunks"] >= 4
    assert (figures["missing_frames"], figures["stale_frames"]) == (0, 0)
    assert figures["drift_seconds"] == pytest.approx(0, abs=1e-6)
    assert figures["interruption_seconds"]["count"] >= 1
    assert len(figures["clients"]) == 2
    # "Whole chunk" is the server's own time of each chunk; the callers saw the same number of them.
    assert figures["stages"]["total"]["count"] == figures["chunks"] - figures["missing_chunks"]
    assert any(each["name"] == "visavis_chunk_duration_seconds" for each in found["server_views"][0]["histograms"])
    assert "Promises broken" in (tmp_path / "a.html").read_text()


def test_ctrl_c_reports_what_was_measured(system: LocalSystem, tmp_path: Path) -> None:
    report = tmp_path / "a.json"
    running = load(system, "--sessions", "1", "--ramp", "0", "--duration", "600", "--json", str(report))
    assert running.stdout is not None
    for line in running.stdout:
        if "1 session(s) running" in line:
            break
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=100)
    assert (running.returncode, errors.strip()) == (130, "visavis: stopped")
    figures = json.loads(report.read_text())["figures"]
    assert figures["stopped"]
    assert figures["sessions"]["stopped"] == 1
    assert figures["chunks"] > 0
    assert "chunk" in output


def test_a_gateway_alone_relays_to_many(tmp_path: Path) -> None:
    cost = measure_gateway("mini", "jpeg", 3, 4.0, lambda line: None)
    assert cost.load.sessions["completed"] == 3
    assert cost.load.chunks - cost.load.missing_chunks >= 9
    assert cost.load.missing_frames == 0
    assert 0 < cost.cpu_seconds_per_session_second < 1
    assert cost.redis.received_bytes > 0
