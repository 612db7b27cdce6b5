"""What a plan takes, counted without computing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.motion.talkers import make_plan
from visavis.cli.main import main
from visavis.models.presets import load_preset
from visavis.training.errors import TrainingError
from visavis.training.motion.dry_run import DryRun, dry_run
from visavis.training.motion.live_memory import LiveMemory
from visavis.training.motion.weights import new_transformer

pytestmark = pytest.mark.timeout(600)


def _counted(folder: Path, task: str, *, checkpointing: bool = False) -> DryRun:
    (phase,) = dry_run(make_plan(folder, task, checkpointing=checkpointing))
    return phase


def test_parameters_gradients_and_optimiser_are_what_they_must_be(tmp_path: Path) -> None:
    counted = _counted(tmp_path, "teacher")
    transformer = sum(one.numel() for one in new_transformer(load_preset("tiny"), 0).parameters())
    assert transformer < counted.parameters < 1.5 * transformer
    # the moving average is a second copy; the SpeechAE's decoder is there and learns nothing
    assert counted.peak_bytes["weights"] == counted.peak_bytes["their average"] > 4 * counted.parameters
    assert counted.peak_bytes["optimiser"] == 2 * counted.peak_bytes["gradients"] == 8 * counted.parameters
    assert counted.peak_bytes["activations"] > 0
    assert counted.samples_a_step == 4


def test_live_memory_is_that_of_tensors_that_somebody_holds() -> None:
    with LiveMemory() as memory:
        first = torch.zeros(1_000)
        second = first + 1.0
        view = second[:10]
        del first, second
        assert memory.live_bytes == 4_000
        third = view * 2.0
        del view
    assert (memory.live_bytes, memory.peak_bytes) == (third.nbytes, 8_000)


def test_recomputed_activations_take_less_memory_and_more_work(tmp_path: Path) -> None:
    kept, recomputed = (_counted(tmp_path, "teacher", checkpointing=one) for one in (False, True))
    assert recomputed.peak_gib < kept.peak_gib
    assert 1.2 < recomputed.operations_a_sample / kept.operations_a_sample < 1.4


def test_clean_contexts_are_counted(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "student")
    (phase,) = plan.phases
    paper = replace(plan, phases=(replace(phase, options={**phase.options, "clean_context": 0.0}),))
    ((dear,), (cheap,)) = dry_run(plan), dry_run(paper)
    assert 1.5 < dear.operations_a_sample / cheap.operations_a_sample < 2.0


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_plan(tmp_path, "student")
    assert main(["train", "dry-run", "--config", str(tmp_path / "student.toml"), "--tflops", "1"]) == 0
    assert "samples an hour and GPU" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="teacher or a student"):
        dry_run(replace(make_plan(tmp_path, "student"), task="vae"))
