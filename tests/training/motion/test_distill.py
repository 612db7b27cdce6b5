"""The fast preset's distillation: its target is where the guided student goes, and the adapter learns to go there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models.small_transformer import SETTINGS, portrait, small_transformer, speech
from tests.training.motion.talkers import World, make_plan
from visavis.cli.main import main
from visavis.models import shipped_weights
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_part
from visavis.models.fast_preset import fast_settings
from visavis.models.generation import begin_session, generate_chunk
from visavis.models.presets import load_preset
from visavis.training.errors import TrainingError
from visavis.training.journal import read_journal
from visavis.training.loop import Training
from visavis.training.motion.distill_setup import distill_task
from visavis.training.motion.distill_stream import Stream, Ways, guided_velocity, roll_out
from visavis.training.plan import Phase, Plan
from visavis.training.task import Limits

STREAMS, CHUNKS = 2, 3
STANDARD = replace(SETTINGS, steps=4)
FAST = fast_settings(STANDARD)
OPTIONS = {"rank": 4, "mouth": 4.0, "other_portrait": 0.5, "mirrored": False}


def told() -> tuple[torch.Tensor, torch.Tensor]:
    """Portraits `[B, H, W, C]` and speech `[B, I, T, W, A]`."""
    portraits = torch.cat([portrait(seed) for seed in range(STREAMS)])
    heard = [torch.stack([speech(10 * seed + index) for index in range(CHUNKS)]) for seed in range(STREAMS)]
    return portraits, torch.stack(heard)


def test_a_rolled_out_stream_is_a_live_session() -> None:
    transformer, (portraits, heard) = small_transformer(), told()
    points = roll_out(transformer, STANDARD, portraits, heard, seeds=[5, 6])
    assert points.shape[:3] == (STREAMS, CHUNKS, STANDARD.steps + 1)
    for stream in range(STREAMS):
        state = begin_session(transformer, portraits[stream][None], 5 + stream, STANDARD)
        for chunk in range(CHUNKS):
            expected, state = generate_chunk(heard[stream, chunk], state)
            torch.testing.assert_close(points[stream, chunk, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_the_target_leads_where_the_guided_student_goes(guidance_scale: float) -> None:
    """From a point of the student's own way, after chunks of its own: along two of its steps, both branches."""
    transformer, (portraits, heard) = small_transformer(prompt_tokens=4), told()
    standard = replace(STANDARD, guidance_scale=guidance_scale)
    ways = Ways.of(standard, FAST)
    points = roll_out(transformer, standard, portraits, heard, seeds=[5, 6])
    stream = Stream(portraits, heard, points[:, :, -1])
    for step in range(FAST.steps):
        steps = torch.full((STREAMS, CHUNKS), step)
        velocity = guided_velocity(transformer, guidance_scale, ways, points[:, :, 2 * step], steps, stream)
        reached = points[:, :, 2 * step] + velocity * (ways.fast.times[step + 1] - ways.fast.times[step])
        torch.testing.assert_close(reached, points[:, :, 2 * step + 2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("change", [{"steps": 3}, {"shift": 1.0}, {"cache_source": "last_step"}])
def test_only_what_leaves_out_steps_and_guidance_can_be_distilled(change: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match="cannot be distilled"):
        Ways.of(STANDARD, replace(FAST, **change))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ships as the preset `tiny`, its student seeded random numbers."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    load_part("tiny", "transformer", "cpu", "float32").module.save_pretrained(folder / "transformer")  # type: ignore[operator]
    shutil.copytree(world.speech_ae, folder / "speech_ae")
    shutil.copytree(world.vae, folder / "vae")
    return folder


def distill_plan(folder: Path, *phases: Phase) -> Plan:
    return replace(make_plan(folder, "distill"), task_options=OPTIONS, phases=phases)


def phase(name: str, steps: int, rollout: bool, chunks: int = 3, batch: int = 4) -> Phase:
    options = {"batch": batch, "chunks": chunks, "rollout": rollout}
    return Phase(name, steps, None, 1e-2, 2, accumulation=1, gradient_checkpointing=False, options=options)


def test_the_adapter_learns_to_go_there_and_the_student_stays(world: World, weights: Path, tmp_path: Path) -> None:
    plan = distill_plan(tmp_path, phase("clips", 30, False), phase("streams", 30, True, chunks=5))
    run = tmp_path / "run"
    task = distill_task(plan, world.dataset, run, None, weights / "transformer", world.vae)
    losses: list[float] = []
    Training(task, plan, run, "cpu", lambda progress: losses.append(progress.loss)).run(Limits(None, None))
    evaluations = read_journal(run, "evaluation")
    assert [line["phase"] for line in evaluations] == ["clips", "clips", "streams", "streams"]
    for name in ("difference", "difference_last", "mouth_difference"):
        assert float(evaluations[-1][name]) < 0.5 * float(evaluations[0][name])
    assert abs(float(evaluations[-1]["spread_last"]) - 1) < abs(float(evaluations[0]["spread_last"]) - 1)
    student = load_file(weights / "transformer" / "diffusion_pytorch_model.safetensors")
    kept = {
        name.replace(".parametrizations.weight.original", ".weight"): value
        for name, value in task.model.transformer.state_dict().items()
        if not name.endswith(("up_OR", "down_RI"))
    }
    assert kept.keys() == student.keys()
    assert all(torch.equal(value, student[name]) for name, value in kept.items())


def test_what_a_run_ships_is_what_its_generator_samples_with(
    world: World, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "distill.toml"
    options = "\n".join(f"{name} = {str(value).lower()}" for name, value in OPTIONS.items())
    config.write_text(
        'task = "distill"\npreset = "tiny"\nseed = 0\naverage_decay = 0.9\n'
        "[every_minutes]\ncheckpoint = 1000.0\nevaluation = 1000.0\n"
        f"[task_options]\n{options}\n"
        '[[phases]]\nname = "streams"\nsteps = 4\nlearning_rate = 1e-2\nwarmup_steps = 1\naccumulation = 1\n'
        "gradient_checkpointing = true\noptions = { batch = 2, chunks = 2, rollout = true }\n"
    )
    shipped = tmp_path / "weights" / "tiny"
    shutil.copytree(weights, shipped)
    command = ["train", "distill", "--config", str(config), "--data", str(world.dataset), "--device", "cpu"]
    command += ["--vae", str(world.vae), "--out", str(tmp_path / "run")]
    assert main(command) == 1
    assert "--weights" in capsys.readouterr().err
    command += ["--weights", str(shipped / "transformer")]
    assert main([*command, "--steps", "2"]) == 0
    assert main(command) == 0
    assert main(["train", "export", str(tmp_path / "run"), str(shipped / "fast"), "--data", str(world.dataset)]) == 0
    card = (shipped / "fast" / "README.md").read_text()
    assert "1 steps of one branch" in card
    assert "| difference_last |" in card

    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path / "weights",))
    fast = load_part("tiny", "transformer", "cpu", "float32", "fast")
    state = torch.load(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1], weights_only=True)["averaged"]
    name = "transformer_blocks.0.ff.net.2"
    up, down = (state[f"module.transformer.{name}.parametrizations.weight.0.{part}"] for part in ("up_OR", "down_RI"))
    original = state[f"module.transformer.{name}.parametrizations.weight.original"]
    merged = fast.module.state_dict()[f"{name}.weight"]
    assert not torch.equal(merged, original)
    torch.testing.assert_close(merged - original, up.bfloat16().float() @ down.bfloat16().float(), atol=1e-6, rtol=1e-4)

    transformer = load_part("tiny", "transformer", "cpu", "float32").module
    with torch.no_grad():
        next(transformer.parameters()).add_(1.0)
    transformer.save_pretrained(shipped / "transformer")  # type: ignore[operator]
    assert main(command) == 1
    assert "distils another student" in capsys.readouterr().err


def test_long_streams_are_rolled_out(world: World, weights: Path, tmp_path: Path) -> None:
    plan = distill_plan(tmp_path, phase("clips", 1, False, chunks=5))
    with pytest.raises(TrainingError, match="rollout = true"):
        distill_task(plan, world.dataset, tmp_path / "run", None, weights / "transformer", world.vae)


def test_the_adapter_of_mini_fits_into_ten_megabytes() -> None:
    """Rank 32, as configs/train/distill-mini.toml has it: bytes in bfloat16."""
    with torch.device("meta"):
        transformer = A2VTransformer(**load_preset("mini").transformer)
    layers = [module for module in transformer.modules() if isinstance(module, torch.nn.Linear)]
    assert 2 * 32 * sum(layer.in_features + layer.out_features for layer in layers) < 10e6
