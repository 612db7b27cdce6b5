"""The probe on latents: it learns, goes on after a stop, and judges what is right as right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.made_up_talker import made_up_talker, make_talkers
from visavis.cli.main import main
from visavis.evaluation import latent_probe
from visavis.evaluation.latent_probe import LatentProbe, ProbeSize, latent_clip, probe_plan
from visavis.models.checkpoints import load_part
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.loop import Training
from visavis.training.task import Limits

TINY = ProbeSize(heads=1, layers=1, steps=12, batch=2, chunks=2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def vae() -> VideoAutoencoder:
    module = load_part("tiny", "vae", "cpu", "float32").module
    assert isinstance(module, VideoAutoencoder)
    return module


def test_a_clip_gives_latents_and_the_actions_of_their_frames(vae: VideoAutoencoder) -> None:
    clip = made_up_talker(0)

    latent = latent_clip(clip, vae)

    assert latent.latents_THWC.shape == (7, 2, 2, 16)
    assert latent.actions_TWA.shape == (6, 2, 4)
    np.testing.assert_array_equal(latent.actions_TWA.flatten().numpy(), clip.curves_FA[1:, 0])
    with pytest.raises(ValueError, match="shorter than a chunk"):
        latent_clip(replace(clip, frames_FHW3=clip.frames_FHW3[:17], curves_FA=clip.curves_FA[:17]), vae)


def test_the_probe_learns_and_a_stop_changes_nothing(vae: VideoAutoencoder, tmp_path: Path) -> None:
    clips = [latent_clip(made_up_talker(index), vae) for index in range(3)]
    plan = probe_plan(TINY, "0", len(clips))

    def losses(run: Path, *limits: int | None) -> list[float]:
        found: list[float] = []
        for steps in limits:
            probe = LatentProbe(clips, [made_up_talker(5)], vae, TINY)
            Training(probe, plan, run, "cpu", lambda progress: found.append(progress.loss)).run(Limits(steps, None))
        return found

    whole = losses(tmp_path / "whole", None)
    assert losses(tmp_path / "parts", 5, None) == whole
    assert len(whole) == TINY.steps
    assert np.mean(whole[-4:]) < np.mean(whole[:4])


def test_a_network_that_knows_the_answer_gives_back_what_was_decoded(vae: VideoAutoencoder) -> None:
    """With the true velocity the cleaned latents are the clean ones."""
    clip = made_up_talker(1)
    probe = LatentProbe([latent_clip(clip, vae)], [clip], vae, TINY)

    class Knowing(latent_probe.CleaningNetwork):
        def forward(self, batch: latent_probe.LatentBatch) -> torch.Tensor:
            return batch.noise - batch.clean

    knowing = Knowing(16, 4, TINY)
    knowing.load_state_dict(probe.model.state_dict())
    results = {measure.name: measure.value.value for measure in probe.results(knowing)}  # type: ignore[union-attr]

    for time in latent_probe.JUDGED_TIMES:
        assert results[f"cleaned_{time:g}_psnr_frame_db"] == pytest.approx(results["decoded_psnr_frame_db"], abs=0.01)
        assert results[f"cleaned_{time:g}_psnr_mouth_db"] == pytest.approx(results["decoded_psnr_mouth_db"], abs=0.01)


def test_the_command_reports_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_probe, "SMALL", TINY)
    data = make_talkers(tmp_path / "faces")
    report, folders = tmp_path / "report.json", ["--clips", str(data), "--run", str(tmp_path / "run")]
    sizes = ["--steps", "3", "--train-clips", "2", "--limit", "1"]

    assert main(["eval", "latents", "--model", "tiny", "--json", str(report), *folders, *sizes]) == 0

    content = json.loads(report.read_text())
    assert {f"{name}_psnr_frame_db" for name in ("decoded", "cleaned_0.5", "cleaned_0.8")} <= set(content["measures"])
    assert content["model"]["steps"] == 3
