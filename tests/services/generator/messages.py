"""Messages of the generator's contract for the tiny preset."""

from __future__ import annotations

from tests.services.engine_driver import header, random_tensor
from visavis.models.presets import load_preset
from visavis.v1 import chunk_pb2, generator_pb2, tensor_pb2

PRESET = load_preset("tiny")


def portrait_latent(seed: int = 1) -> tensor_pb2.Tensor:
    return random_tensor(seed, (1, PRESET.latent_rows, PRESET.latent_rows, PRESET.transformer["in_channels"]))


def config(session_id: str, seed: int = 1) -> generator_pb2.GenerateConfig:
    return generator_pb2.GenerateConfig(
        session_id=session_id, avatar_id="anna", portrait_latent=portrait_latent(), seed=seed
    )


def speech(index: int, seed: int = 1, *, epoch: int = 1, seconds_left: float = 0.5) -> chunk_pb2.SpeechLatents:
    shape = (3, 2, PRESET.transformer["audio_channels"])
    return chunk_pb2.SpeechLatents(
        header=header(index, epoch=epoch, seconds_left=seconds_left), latents=random_tensor(1000 * seed + index, shape)
    )
