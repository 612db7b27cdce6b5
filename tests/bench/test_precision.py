"""A short run of `visavis bench precision`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visavis.bench.precision_result import SCHEMA
from visavis.cli.main import main
from visavis.models.int8_weight import can_compute_in_int8


@pytest.mark.timeout(300)
@pytest.mark.skipif(not can_compute_in_int8(), reason="8-bit products need PyTorch with oneDNN on x86")
def test_rounding_shows_in_latents_and_pictures(tmp_path: Path) -> None:
    assert main(["bench", "precision", "--preset", "tiny", "--chunks", "3", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-precision-int8.json")
    found = json.loads(path.read_text())
    assert found["schema"] == SCHEMA
    assert found["random_weights"]
    assert found["cpu_ratio"] > 0
    first, *others = found["chunks"]
    assert [chunk["chunk_index"] for chunk in found["chunks"]] == [1, 2, 3]
    # Before the first chunk nothing can have drifted.
    assert first["step_error"] == first["drift_error"]
    for chunk in (first, *others):
        assert 0 < chunk["step_error"] < 0.2
        assert 20 < chunk["step_psnr"] < 100
    (page,) = tmp_path.glob("*.md")
    assert "tiny, int8 against float32, random weights" in page.read_text()


def test_no_chunks_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "precision", "--chunks", "0"]) == 1
    assert "--chunks is between" in capsys.readouterr().err
