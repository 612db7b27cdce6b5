"""A stage's part of the model, loaded and placed, and what the stage tells others about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from services.model_settings import ModelSettings
from visavis.contract import CHUNK_LATENT_FRAMES, FRAME_RATE
from visavis.models.checkpoints import ModelIdentity, PartName, load_part
from visavis.models.presets import Preset
from visavis.runtime.engine import EngineDescription
from visavis.v1 import chunk_pb2

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[Module]):
    """One part of a model, placed and ready for inference."""

    module: Module
    preset: Preset
    identity: ModelIdentity

    def identity_message(self) -> chunk_pb2.ModelIdentity:
        """The identity as the contract has it."""
        return chunk_pb2.ModelIdentity(
            name=self.identity.name,
            fingerprint=self.identity.fingerprint,
            random_weights=self.identity.random_weights,
            sampling=self.identity.sampling,
        )

    def describe(self) -> EngineDescription:
        """What goes into the stage's heartbeats; the same for all parts of one model."""
        preset, rows = self.preset, self.preset.latent_rows
        video = f"{CHUNK_LATENT_FRAMES}x{rows}x{rows}x{preset.vae['latent_channels']}"
        return EngineDescription(
            model_name=self.identity.name,
            model_fingerprint=self.identity.fingerprint,
            random_weights=self.identity.random_weights,
            slots=0,
            width=preset.picture_size,
            height=preset.picture_size,
            frame_rate=FRAME_RATE,
            compatibility=f"video:{video},speech:{preset.speech_ae['latent_dim']}",
            sampling=self.identity.sampling,
        )


def load_model(settings: ModelSettings, part: PartName, sampling: str = "standard") -> LoadedModel[Any]:
    """Loads one part of a preset or model folder; the caller knows its class. Raises ValueError where there is none."""
    loaded = load_part(settings.model, part, settings.device, settings.dtype, sampling)
    return LoadedModel(loaded.module, loaded.preset, loaded.identity)
