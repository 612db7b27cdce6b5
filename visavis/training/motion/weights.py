"""The weights that a motion training starts from: of transformers, SpeechAEs and video VAEs, in folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import VAE_CLASSES
from visavis.models.presets import Preset, load_preset
from visavis.models.shipped_weights import shipped_weights
from visavis.models.speech_ae import SpeechAE
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.errors import TrainingError
from visavis.training.motion.network import MotionNetwork, start_quietly
from visavis.training.plan import Plan
from visavis.training.read_part import read_part

# The SpeechAE that was learnt along with a transformer stands beside it under this name.
SPEECH_AE_BESIDE: Final = {"transformer": "speech_ae", "teacher": "teacher_speech_ae"}

Network = TypeVar("Network", bound=MotionNetwork)


def make_network(kind: type[Network], plan: Plan, weights: Path | None, speech_ae: Path | None) -> Network:
    """A network from these weights, or with a transformer that starts from nothing."""
    if weights is not None:
        return read_network(kind, plan, weights, speech_ae)
    preset = load_preset(plan.preset)
    folder = speech_ae or shipped_weights(preset.name, "speech_ae", preset.speech_ae)
    if folder is None:
        raise TrainingError(
            f"the preset {preset.name} ships no SpeechAE: train one (`visavis train speech-ae`), export it and give "
            "its folder as --speech-ae"
        )
    return kind(new_transformer(preset, plan.seed), read_speech_ae(preset, folder))


def new_transformer(preset: Preset, seed: int) -> A2VTransformer:
    """A transformer of the preset that knows nothing yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer: A2VTransformer = A2VTransformer(**preset.transformer)
    start_quietly(transformer)
    return transformer


def read_network(kind: type[Network], plan: Plan, weights: Path, speech_ae: Path | None = None) -> Network:
    """The transformer in a folder and the SpeechAE beside it, or the one that is given. Raises TrainingError."""
    preset = load_preset(plan.preset)
    if speech_ae is None:
        if weights.name not in SPEECH_AE_BESIDE:
            raise TrainingError(
                f"{weights} must be called {' or '.join(SPEECH_AE_BESIDE)} and stand beside its SpeechAE: or give that "
                "as --speech-ae"
            )
        speech_ae = weights.with_name(SPEECH_AE_BESIDE[weights.name])
    transformer: A2VTransformer = read_part(A2VTransformer, weights, "a transformer")
    _check_arguments(transformer.config, preset.transformer, weights, preset.name)
    return kind(transformer, read_speech_ae(preset, speech_ae))


def read_speech_ae(preset: Preset, folder: Path) -> SpeechAE:
    """The SpeechAE in a folder. Raises TrainingError where it is none of the preset's."""
    speech_ae: SpeechAE = read_part(SpeechAE, folder, "a SpeechAE")
    _check_arguments(speech_ae.config, preset.speech_ae, folder, preset.name)
    return speech_ae


def read_vae(preset: Preset, folder: Path | None) -> VideoAutoencoder:
    """The VAE in a folder, by default the preset's shipped one, in float32. Raises TrainingError for none."""
    chosen = folder or shipped_weights(preset.name, "vae", preset.vae)
    if chosen is None:
        raise TrainingError(
            f"the preset {preset.name} ships no video VAE: train one (`visavis train vae`), export it and give "
            "its folder as --vae"
        )
    vae: VideoAutoencoder = read_part(VAE_CLASSES[preset.vae_kind], chosen, "a video VAE")
    if vae.latents_mean.shape[0] != preset.transformer["in_channels"]:
        raise TrainingError(f"the VAE in {chosen} has other latents than the preset {preset.name}")
    return vae.eval().requires_grad_(False)


def _check_arguments(config: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path, preset: str) -> None:
    differing = [name for name, value in wanted.items() if config.get(name) != value]
    if differing:
        raise TrainingError(f"the weights in {folder} are not of the preset {preset}: {', '.join(differing)} differ")
