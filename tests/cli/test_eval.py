"""`visavis eval` on tiny data and random weights: what it writes, and what it says when something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.made_up_talker import SIZE, make_talkers
from visavis.cli.main import main
from visavis.evaluation import video_vae
from visavis.models.checkpoints import load_part
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.footage.detectors import Boxes, Faces


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talkers(tmp_path_factory.mktemp("data") / "faces")


def _evaluate(part: str, clips: Path, report: Path, *more: str, model: str = "tiny") -> dict[str, Any]:
    arguments = ["eval", part, "--clips", str(clips), "--model", model, "--json", str(report), *more]
    assert main(arguments) == 0
    content: dict[str, Any] = json.loads(report.read_text())
    return content


def test_a_vae_is_measured_without_detectors(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere, sheet = tmp_path / "python", tmp_path / "sheet.jpg"
    more = ("--detectors-python", str(nowhere), "--sheet", str(sheet))
    report = _evaluate("vae", dataset, tmp_path / "report.json", *more)

    measures = report["measures"]
    assert 0 < measures["psnr_db"]["low"] <= measures["psnr_db"]["value"] <= measures["psnr_db"]["high"] < 25
    assert measures["psnr_db"]["met"] is False
    assert measures["chunked_minus_whole"]["met"] is True
    assert measures["landmark_error_px"]["value"] is None
    assert "make detectors" in measures["lip_gap_correlation"]["not_measured"]
    assert "not measured" in capsys.readouterr().out
    assert report["data"] == {"folder": str(dataset), "split": "test", "clips": 3, "dataset": None}
    assert len(report["model"]["fingerprint"]) == 64
    assert {"commit", "date", "command", "processor"} <= set(report["surroundings"])
    with Image.open(sheet) as picture:
        assert picture.size == (2 * 4 * SIZE + 8, 16 + 2 * SIZE)


def test_a_part_by_itself_measures_like_its_preset(dataset: Path, tmp_path: Path) -> None:
    vae = load_part("tiny", "vae", "cpu", "float32").module
    assert isinstance(vae, VideoAutoencoder)
    vae.save_pretrained(tmp_path / "vae")
    limits = ("--limit", "1", "--detectors-python", "nowhere")

    alone = _evaluate("vae", dataset, tmp_path / "alone.json", *limits, model=str(tmp_path / "vae"))
    preset = _evaluate("vae", dataset, tmp_path / "preset.json", *limits)

    assert alone["measures"] == preset["measures"]
    assert alone["model"]["fingerprint"] == preset["model"]["fingerprint"]


class DarkFaces:
    """Finds a mesh whose lips are as far apart as the picture's darkest column is dark."""

    def faces(self, pictures_FHW3: np.ndarray) -> Faces:
        landmarks = np.zeros((len(pictures_FHW3), 478, 2), dtype=np.float32)
        landmarks[:, 14, 1] = (pictures_FHW3.mean(axis=3) < 40).sum(axis=1).max(axis=1)
        none = Boxes(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return Faces(landmarks, np.ones(len(pictures_FHW3), dtype=bool), none)

    def hands(self, pictures_FHW3: np.ndarray) -> Boxes:
        raise NotImplementedError

    def text(self, pictures_FHW3: np.ndarray) -> Boxes:
        raise NotImplementedError


def test_landmarks_are_measured_where_detectors_are(dataset: Path) -> None:
    from visavis.training.data.clips import read_shard

    vae = load_part("tiny", "vae", "cpu", "float32").module
    assert isinstance(vae, VideoAutoencoder)
    measures = video_vae.VideoVAEMeasures(vae, DarkFaces(), face_clips=1, why_no_faces="")
    for clip in read_shard(dataset / "test" / "test-00000.tar"):
        measures.add(clip)

    results = {measure.name: measure for measure in measures.results()}

    assert results["landmark_error_px"].value is not None
    assert results["lip_gap_correlation"].value is not None
    assert results["lip_gap_correlation"].value.clips == 1  # type: ignore[union-attr]


def test_a_speech_ae_is_measured(dataset: Path, tmp_path: Path) -> None:
    measures = _evaluate("speech-ae", dataset, tmp_path / "report.json")["measures"]

    assert measures["explained_variance"]["met"] is False
    assert {f"explained_variance_state_{number}" for number in range(3)} <= set(measures)
    assert {"explained_variance_voice-0", "explained_variance_voice-1"} <= set(measures)
    raw, latent = measures["jaw_probe_r2_features"]["value"], measures["jaw_probe_r2_latents"]["value"]
    assert measures["jaw_probe_r2_lost"]["value"] == pytest.approx(raw - latent)
    assert measures["live_minus_whole"]["met"] is True


def test_missing_clips_and_models_are_named(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(tmp_path / "report.json")
    for arguments, said in (
        (["--clips", str(tmp_path), "--model", "tiny"], "no clips"),
        (["--clips", str(dataset), "--model", str(tmp_path)], "cannot load"),
    ):
        for part in ("vae", "speech-ae"):
            assert main(["eval", part, *arguments, "--json", report]) == 1
            assert said in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()
