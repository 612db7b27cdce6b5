"""What ships of a trained teacher or student: the transformer, and the SpeechAE that was learnt along."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from visavis.evaluation.tested_part import weights_fingerprint
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_whisper, placed
from visavis.models.flow_matching import pinned_scheduler
from visavis.models.pipeline import RestPipeline
from visavis.models.presets import Preset, load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.training.errors import TrainingError
from visavis.training.model_folder import FinishedRun, ModelCard, read_run, write_part
from visavis.training.motion.data import RunRecord, read_record
from visavis.training.motion.network import MotionNetwork
from visavis.training.motion.weights import SPEECH_AE_BESIDE, read_vae

_TRANSFORMER: Final = """\
Diffusion transformer of the preset `{preset}`, {role}: predicts the velocity of normalised video latents from a
portrait's latent and speech latents. It goes with the SpeechAE `{speech_ae}` beside it, which learnt along, and with
the video VAE whose weights have the SHA-256 {vae}."""
_SPEECH_AE: Final = """\
Speech autoencoder of the preset `{preset}`, its encoder fine-tuned along with the transformer `{transformer}` beside
it: neither goes with another one. The decoder is that of the SpeechAE before, which measures reconstruction only."""
_ROLES: Final = {
    "transformer": "the streaming student, chunk after chunk with an ID-Context cache",
    "teacher": "the non-streaming teacher, 12 latent frames at once with full attention (READ's way)",
}
_DATA: Final = """\
{clips:,} clips of {people:,} synthetic people who speak (`visavis data render`, docs/data.md), their mirror images
counted where the plan says `mirrored`. No person and no voice of the measured clips is among them."""
_LIMITS: Final = """\
It has seen rendered faces only, in one framing, that speak short sentences with synthetic voices (English, German,
Spanish); mouth shapes follow rules, not recordings. Real portraits, singing, strong noise and other languages are
outside of what it learnt."""


def export_motion(run: Path, out: Path, dataset: Path, cache: Path | None) -> None:
    """Writes OUT/transformer and OUT/speech_ae, or OUT/teacher and OUT/teacher_speech_ae, from the last checkpoint.

    OUT is a preset's folder of trained parts (weights/mini). Raises TrainingError where the run has no checkpoint, or
    where OUT/vae is not the VAE whose latents were learnt.
    """
    finished, record = read_run(run), read_record(run)
    preset = load_preset(finished.plan.preset)
    _check_vae(preset, out, record)
    name = "teacher" if finished.plan.task == "teacher" else "transformer"
    network = _network(preset, finished)
    data = _DATA.format(clips=record.clips, people=record.people)
    purpose = _TRANSFORMER.format(
        preset=preset.name, role=_ROLES[name], speech_ae=SPEECH_AE_BESIDE[name], vae=record.vae
    )
    card = ModelCard(f"A2V-DiT of {preset.name} ({name})", purpose, data, _LIMITS)
    out.mkdir(parents=True, exist_ok=True)
    write_part(network.transformer, out / name, finished, card)
    purpose = _SPEECH_AE.format(preset=preset.name, transformer=name)
    card = ModelCard(f"SpeechAE of {preset.name} ({name})", purpose, data, _LIMITS)
    write_part(network.speech_ae, out / SPEECH_AE_BESIDE[name], finished, card)


def export_whole_model(run: Path, out: Path, vae_folder: Path | None) -> None:
    """Writes a model folder with all parts, which `RestPipeline.from_pretrained` and the services load.

    The VAE is in `vae_folder`, by default the preset's shipped one. Raises TrainingError where it is not the one whose
    latents were learnt, and for a teacher: it does not stream.
    """
    finished, record = read_run(run), read_record(run)
    if finished.plan.task == "teacher":
        raise TrainingError("a teacher makes no model that streams: export it without --whole, beside its student")
    preset = load_preset(finished.plan.preset)
    vae = read_vae(preset, vae_folder)
    if weights_fingerprint(vae) != record.vae:
        raise TrainingError(f"{run} learnt the latents of another VAE: give that one as --vae")
    network = _network(preset, finished)
    cpu = torch.device("cpu")
    pipeline = RestPipeline(
        placed(network.transformer, cpu, torch.bfloat16),
        placed(vae, cpu, torch.bfloat16),
        placed(network.speech_ae, cpu, torch.bfloat16),
        load_whisper(preset, None),
        pinned_scheduler(preset.sampling.shift),
        model_name=out.name,
        picture_size=preset.picture_size,
        steps=preset.sampling.steps,
        guidance_scale=preset.sampling.guidance_scale,
        cache_source=preset.sampling.cache_source,
        random_weights=False,
    )
    pipeline.save_pretrained(out)


def _network(preset: Preset, finished: FinishedRun) -> MotionNetwork:
    network = MotionNetwork(A2VTransformer(**preset.transformer), SpeechAE(**preset.speech_ae))
    network.load_state_dict(finished.averaged_weights)
    return network


def _check_vae(preset: Preset, out: Path, record: RunRecord) -> None:
    folder = out / "vae"
    if (folder / "config.json").is_file() and weights_fingerprint(read_vae(preset, folder)) != record.vae:
        raise TrainingError(f"{folder} is not the VAE whose latents were learnt: a model of both would draw noise")
