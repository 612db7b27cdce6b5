"""`visavis eval talk`, `stream` and `compare` on random weights of the tiny preset: all of it runs, and says so."""

from __future__ import annotations

import argparse
import json
import wave
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.coded_faces import CodedFaces, coded_clip, random_gaps
from tests.training.made_up_talker import make_talkers
from visavis.cli import eval_compare, eval_talk
from visavis.cli.main import main
from visavis.evaluation.comparison import Result
from visavis.evaluation.comparison_rows import Row
from visavis.evaluation.comparison_table import comparison_page
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.evaluation.judges import Judges
from visavis.evaluation.long_clips import LongClipSettings, long_plans
from visavis.evaluation.recordings import read_recordings
from visavis.evaluation.sync_net import SyncNet
from visavis.evaluation.talk_evaluation import swapped
from visavis.models.pipeline import RestPipeline
from visavis.training.data.voices import VOICES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talkers(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that need no installation and no training."""

    def judges(options: argparse.Namespace, stack: ExitStack, remembered: Path | None = None) -> Judges:
        torch.manual_seed(0)
        return Judges(CodedFaces(), FaceEmbedder((8, 8), 8).eval(), SyncNet(48, (8, 8, 8, 8), 8).eval())

    monkeypatch.setattr(eval_talk, "judges", judges)
    monkeypatch.setattr(eval_compare, "judges", judges)


def test_a_model_is_measured_in_this_process(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    _write_wave(recordings / "voice.wav", np.random.default_rng(0).normal(0, 3000, size=(24_000, 1)), 16_000)
    sizes = ["--limit", "2", "--control-clips", "1", "--silent-clips", "1", "--recordings", str(recordings)]
    report = tmp_path / "talk.json"

    arguments = ["--clips", str(dataset), "--model", "tiny", "--mode", "pipeline", "--json", str(report), *sizes]
    assert main(["eval", "talk", *arguments]) == 0

    content = json.loads(report.read_text())
    measures = content["measures"]
    assert content["model"]["random_weights"] is True
    assert content["data"]["clips"] == 2
    assert measures["lip_gap_correlation"]["bar"] == {"lowest": 0.8}
    assert measures["lip_gap_correlation"]["met"] is False  # noise does not talk
    assert measures["own_portrait_nearest"]["bar"] == {"lowest": 0.95}
    assert measures["lip_lag_frames"].get("bar", {"lowest": -0.5, "highest": 0.5}) == {"lowest": -0.5, "highest": 0.5}
    assert {"mouth_shut_in_silence", "recorded_speech_lip_loudness_correlation", "seam_ratio"} <= set(measures)
    assert measures["control_shuffled_speech_lip_gap_correlation"]["bar"] == {"highest": 0.2}
    assert measures["FID"]["value"] is None
    assert "not measured" in capsys.readouterr().out


def test_a_stream_is_measured(dataset: Path, tmp_path: Path) -> None:
    report = tmp_path / "stream.json"
    arguments = ["--clips", str(dataset), "--model", "tiny", "--mode", "pipeline", "--json", str(report)]
    assert main(["eval", "stream", *arguments, "--minutes", "0.1", "--sessions", "2"]) == 0

    content = json.loads(report.read_text())
    assert content["data"]["minutes"] == 0.1
    assert content["measures"]["stream_sharpness_ratio"]["bar"] == {"lowest": 0.95, "highest": 1.05}
    assert content["measures"]["stream_sharpness_ratio"]["clips"] == 2
    assert "do not follow" in content["measures"]["stream_lip_gap_correlation_ratio"]["not_measured"]
    assert main(["eval", "stream", *arguments, "--minutes", "0.01"]) == 1
    assert main(["eval", "stream", *arguments, "--sessions", "9"]) == 1


def test_a_comparison_names_what_is_missing_and_goes_on_where_it_was(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RestPipeline.from_preset("tiny").transformer.save_pretrained(tmp_path / "no_asd" / "transformer")
    page, run = tmp_path / "page" / "comparison.md", tmp_path / "run"
    shared = ["eval", "compare", "--clips", str(dataset), "--model", "tiny", "--seeds", "0", "--limit", "1"]
    arguments = [*shared, "--run", str(run), "--page", str(page)]
    assert main([*arguments, "--random-weights", "--weights", f"no_asd={tmp_path / 'no_asd'}"]) == 0

    text = page.read_text()
    for row in ("ground truth", "VAE reconstruction", "READ (teacher)", "REST without sink", "REST without ASD"):
        assert f"| {row} |" in text
    assert "- **REST without the contrastive term**: needs weights of its own: --weights no_contrastive" in text
    assert "- `FID`: needs pt_inception" in text
    assert "| Full ID-Context, full ASD | 14.597 | 219.870 | 8.335 |" in text
    assert "without context, borders show | 49 |" in text
    assert "- `boundary_jerk`: no face moved" in text  # the made-up faces of these clips stand still
    assert "not retrained: inference alone goes without" in text
    plots = {path.name for path in page.parent.glob("*.svg")}
    assert plots == {"identity_cosine-49.svg", "sharpness-49.svg", "colour_shift-49.svg"}
    results = {path.name: path.stat().st_mtime_ns for path in (run / "results").iterdir()}
    truth = json.loads((run / "results" / "truth-49-seed0.json").read_text())
    assert truth["measures"]["lip_gap_correlation"]["value"] in (pytest.approx(1), 0.0)

    assert main([*arguments, "--random-weights"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (run / "results").iterdir()} == results

    capsys.readouterr()
    assert main(arguments) == 0
    assert "rest: the weights of tiny are random" in capsys.readouterr().out
    assert "| ground truth |" in page.read_text()
    assert "| REST | student, ASD |" not in page.read_text()
    assert "- **REST**: the weights of tiny are random" in page.read_text()
    assert main([*arguments, "--weights", "read=x"]) == 1


def test_the_page_says_where_an_ordering_does_not_hold() -> None:
    def result(row: str, seed: int, jerk: float, cosine: float) -> Result:
        measures = {"boundary_jerk": {"value": jerk}, "identity_cosine": {"value": cosine}}
        return Result(row, "", 121, seed, 4, "", measures, {})

    results = [
        *(result("rest", seed, 1.1, 0.9) for seed in range(2)),
        *(result("no_context", seed, 0.7, 0.9) for seed in range(2)),
        result("no_sink", 0, 1.0, 0.8),
        result("no_sink", 1, 1.0, 0.95),
    ]
    page = comparison_page([Row("rest", "student", "x", None)], results, [])
    # 0.7 is farther from 1 than 1.1.
    assert "| without context, borders jerk | 121 | `boundary_jerk` | 1.1 | 0.7 | yes | 2 of 2 |" in page
    assert "| without sink, identity drifts | 121 | `identity_cosine` | 0.9 | 0.875 | yes | 1 of 2 |" in page
    worse = [replace(each, measures={"boundary_jerk": {"value": 1.0}}) for each in results if each.row == "no_context"]
    assert "| 1.1 | 1 | **no** | 0 of 2 |" in comparison_page([], [*results[:2], *worse], [])
    assert "1.100 ± 0.000" in page
    fast = comparison_page([], [*results, result("fast", 0, 1.12, 0.8)], [])
    assert "| `boundary_jerk` | 121 | 1.1 | 1.12 | 2.0 % | yes |" in fast
    assert "| `identity_cosine` | 121 | 0.9 | 0.8 | 11.1 % | **no** |" in fast


def test_controls_pair_everybody_with_somebody_else() -> None:
    clips = [coded_clip(index, random_gaps(index, 49)) for index in range(3)]
    silent = replace(clips[1], samples_S=np.zeros_like(clips[1].samples_S))
    pairs = [(face.key, voice.key) for face, voice in swapped([clips[0], silent, clips[2]])]
    assert pairs == [(clips[0].key, clips[2].key), (clips[2].key, clips[0].key)]


def test_long_clips_have_sentences_to_their_end() -> None:
    plans = long_plans(LongClipSettings(3, 601, 1, ("piper", "espeak", "flite")), VOICES)
    voices = {voice.name for voice in VOICES if voice.test}
    assert len({plan.identity for plan in plans}) == 3
    for plan in plans:
        assert plan.split == "test"
        assert plan.voice in voices
        assert len(plan.sentences) == len(plan.pauses) >= 16


def test_recordings_are_read_as_models_hear_them(tmp_path: Path) -> None:
    times = np.arange(44_100)[:, None] / 44_100
    _write_wave(tmp_path / "tone.wav", 20_000 * np.sin(2 * np.pi * 440 * times) * [1.0, 0.5], 44_100)

    (tone,) = read_recordings(tmp_path).values()

    assert tone.dtype == np.float32
    assert tone.shape == (16_000,)
    expected = 0.75 * 20_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(tone[1000:-1000], expected[1000:-1000], atol=0.01)
    with pytest.raises(EvaluationError, match="no recordings"):
        read_recordings(tmp_path / "nowhere")


def _write_wave(path: Path, samples_SC: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples_SC.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples_SC).astype("<i2").tobytes())
