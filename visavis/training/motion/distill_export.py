"""What ships of a distillation: the adapter that makes a student fast."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.adapter import Adapter, adapter_tensors, weights_sha256, write_adapter
from visavis.models.fast_preset import fast_settings
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.training.errors import TrainingError
from visavis.training.model_folder import ModelCard, card_text, read_run
from visavis.training.motion.data import read_record
from visavis.training.motion.distill_network import FastNetwork
from visavis.training.motion.distill_options import DistillOptions
from visavis.training.motion.distill_setup import student_of
from visavis.training.motion.options import read_options

_PURPOSE: Final = """\
Adapter (rank {rank}) of the streaming transformer of the preset `{preset}`: merged into it, {steps} steps of one branch
do what the student does in {student_steps} steps of two, guided with scale {guidance:g}. It is for the transformer
whose safetensors have the SHA-256 {student} and for no other; the SpeechAE and the video VAE stay as they are."""
_DATA: Final = """\
The speech, the first pictures and, where `rollout` is false, the latents of {clips:,} clips of {people:,} synthetic
people (`visavis data render`, docs/data.md); else streams that the network made itself. What it learns is the guided
student."""
_LIMITS: Final = """\
It can be no better than its student, whose limits are its own. With other steps or another schedule than those it was
distilled for (config.json) it was never tried."""


def export_adapter(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes the folder `out` (weights/PRESET/fast) from the last checkpoint in `run`.

    Raises TrainingError when there is none, or when the transformer beside `out` is another student.
    """
    finished, record, student = read_run(run), read_record(run), student_of(run)
    beside = out.with_name("transformer")
    if beside.is_dir() and weights_sha256(beside) != student:
        raise TrainingError(f"{beside} is not the student that {run} distils")
    preset = load_preset(finished.plan.preset)
    options = read_options(DistillOptions, finished.plan.task_options, f"task_options of {finished.plan.task}")
    network = FastNetwork(A2VTransformer(**preset.transformer), SpeechAE(**preset.speech_ae), options.rank)
    network.load_state_dict(finished.averaged_weights)
    tensors = adapter_tensors(network.transformer)
    sampling = fast_settings(preset.sampling)
    card = ModelCard(
        title=f"Fast adapter of {preset.name}",
        purpose=_PURPOSE.format(
            rank=options.rank,
            preset=preset.name,
            steps=sampling.steps,
            student_steps=preset.sampling.steps,
            guidance=preset.sampling.guidance_scale,
            student=student,
        ),
        data=_DATA.format(clips=record.clips, people=record.people),
        limits=_LIMITS,
    )
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    write_adapter(aside, Adapter(sampling, student, tensors))
    parameters = sum(tensor.numel() for tensor in tensors.values()) / 1e6
    (aside / "README.md").write_text(card_text(finished, card, parameters))
    if out.exists():
        shutil.rmtree(out)
    aside.rename(out)
