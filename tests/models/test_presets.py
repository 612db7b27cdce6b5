"""Presets say what the design says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from visavis.configs import config_path
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import VAE_CLASSES
from visavis.models.presets import load_preset, read_preset
from visavis.models.speech_ae import SpeechAE
from visavis.models.video_autoencoder import VideoAutoencoder


@pytest.mark.parametrize(
    ("name", "picture_size", "width", "heads", "blocks", "speech_channels"),
    [("mini", 256, 256, 4, 8, 512), ("base", 512, 2048, 32, 28, 2048)],
)
def test_sizes_are_those_of_the_design(
    name: str, picture_size: int, width: int, heads: int, blocks: int, speech_channels: int
) -> None:
    preset = load_preset(name)
    transformer = preset.transformer
    assert preset.picture_size == picture_size
    assert preset.latent_rows == picture_size // 32
    assert (transformer["num_attention_heads"], transformer["attention_head_dim"]) == (heads, 64)
    assert heads * 64 == width
    assert transformer["num_layers"] == blocks
    assert transformer["audio_channels"] == speech_channels
    assert (preset.sampling.steps, preset.sampling.guidance_scale) == (8, 6.0)
    assert preset.sampling.cache_source == "clean"
    assert preset.speech_ae["feature_dim"] == 1920
    assert preset.whisper.weights == "tiny.en"


def test_text_attention_is_off_in_mini_only() -> None:
    assert load_preset("mini").transformer["prompt_tokens"] == 0
    assert load_preset("base").transformer["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("picture_size = 64", "picture_size = 65", "multiple of 32"),
        ("steps = 2\n", "", "not a preset"),
        ("latent_dim = 32", "latent_dim = 31", "audio_channels"),
        ("latent_channels = 16", "latent_channels = 8", "in_channels"),
        ('kind = "causal"', 'kind = "other"', "other"),
        ('weights = "random"', 'weights = "large"', "large"),
        ('cache_source = "clean"', 'cache_source = "dirty"', "dirty"),
        ("[vae]", "[vae", "not a preset"),
    ],
)
def test_an_impossible_preset_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = config_path("tiny").read_text()
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_preset(path)


@pytest.mark.parametrize("name", ["tiny", "mini", "base"])
def test_every_part_of_a_preset_can_be_built(name: str) -> None:
    preset = load_preset(name)
    vae_kind: Any = VAE_CLASSES[preset.vae_kind]
    # Without memory for the weights: base has 2.4 billion.
    with torch.device("meta"):
        transformer: A2VTransformer = A2VTransformer(**preset.transformer)
        vae: VideoAutoencoder = vae_kind(**preset.vae)
        speech_ae: SpeechAE = SpeechAE(**preset.speech_ae)
    assert transformer.audio_channels == speech_ae.latent_dim
    assert transformer.in_channels == vae.latents_mean.shape[0]
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio) == (32, 8)
