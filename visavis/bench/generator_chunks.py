"""What `visavis bench generator` times: chunks of sessions that have a past, made in several ways.

Legend: T latent frames, H W latent rows and columns, N tokens of a latent frame, C latent channels, W speech tokens of
a latent frame, A speech channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from visavis.bench.diffusers_generator import DiffusersGenerator
from visavis.bench.plain_generator import PlainWindow, plain_chunk
from visavis.models.generation import (
    ChunkInProgress,
    GenerationState,
    SamplingPlan,
    begin_session,
    denoise_step,
    generate_chunk,
)
from visavis.models.noise import chunk_noise
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.video_stream import DecoderState

SPEECH_TOKENS = 2


@dataclass(frozen=True, slots=True)
class SessionPast:
    """A session after its first chunk."""

    portrait_THWC: torch.Tensor
    first_THWC: torch.Tensor
    first_speech_TWA: torch.Tensor
    speech_TWA: torch.Tensor
    state: GenerationState


class SessionBatch:
    """Several sessions whose second chunk is made again and again; states never change, so each time is the same."""

    def __init__(self, plan: SamplingPlan, sessions: int) -> None:
        self._plan = plan
        self._past = [_past(plan, seed) for seed in range(sessions)]
        self._branches = plan.settings.branches

    def batched(self) -> list[torch.Tensor]:
        """All in one batch, pass by pass."""
        chunks = [ChunkInProgress(past.speech_TWA, past.state) for past in self._past]
        while not chunks[0].done:
            denoise_step(chunks)
        return [chunk.result()[0] for chunk in chunks]

    def one_by_one(self) -> None:
        """One session after the other."""
        for past in self._past:
            generate_chunk(past.speech_TWA, past.state)

    def plain(self) -> list[torch.Tensor]:
        """All in one batch, the plain way."""
        clean = [torch.cat([past.portrait_THWC, past.first_THWC]) for past in self._past]
        speech = [torch.cat([past.first_speech_TWA, past.speech_TWA]) for past in self._past]
        window = PlainWindow.of_sessions(torch.stack(clean).flatten(2, 3), torch.stack(speech), self._branches)
        noise = [chunk_noise(past.state.seed, past.state.chunk_index, self._plan.chunk_shape) for past in self._past]
        latents = plain_chunk(torch.stack(noise).flatten(2, 3).to(window.clean_RTNC), window, self._plan)
        return list(latents.view(-1, *self._plan.chunk_shape))

    def diffusers(self, generator: DiffusersGenerator) -> None:
        """All in one batch, through diffusers' transformer."""
        noise = torch.randn(self._plan.chunk_shape).to(self._past[0].portrait_THWC)
        windows = [torch.cat([past.portrait_THWC, past.first_THWC, noise]) for past in self._past]
        generator.chunk(torch.stack(windows).flatten(1, 3), self._plan)

    def plain_error(self) -> float:
        """Relative difference between the plain way's latents and ours."""
        ours, plain = (torch.stack(latents).float() for latents in (self.batched(), self.plain()))
        return float((plain - ours).norm() / ours.norm())

    def decoding(self, vae: VideoAutoencoder) -> DecodingBatch:
        """The pictures of the first chunks."""
        return DecodingBatch(vae, [past.portrait_THWC for past in self._past], [past.first_THWC for past in self._past])


class DecodingBatch:
    """The pictures of a chunk of several sessions, decoded again and again."""

    def __init__(
        self, vae: VideoAutoencoder, portraits_THWC: Sequence[torch.Tensor], latents_THWC: Sequence[torch.Tensor]
    ) -> None:
        self._vae = vae
        self._latents_BTHWC = torch.stack(list(latents_THWC)).to(vae.device, vae.dtype)
        portraits = [portrait[None].to(vae.device, vae.dtype) for portrait in portraits_THWC]
        self._state = DecoderState.join([vae.initial_decoder_state(each, seed) for seed, each in enumerate(portraits)])

    def decode(self) -> torch.Tensor:
        """Pictures `[sessions, 24, 3, rows, columns]`."""
        pictures: torch.Tensor = self._vae.decode_chunk(self._latents_BTHWC, self._state)[0]
        return pictures


def _past(plan: SamplingPlan, seed: int) -> SessionPast:
    weight = plan.transformer.proj_in.weight
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(weight.device, weight.dtype)

    portrait_THWC = draw(1, *plan.latent_shape)
    speech_shape = (plan.transformer.chunk_latent_frames, SPEECH_TOKENS, plan.transformer.audio_channels)
    first_speech_TWA, speech_TWA = draw(*speech_shape), draw(*speech_shape)
    state = begin_session(plan.transformer, portrait_THWC, seed, plan.settings, plan=plan)
    first_THWC, state = generate_chunk(first_speech_TWA, state)
    return SessionPast(portrait_THWC, first_THWC, first_speech_TWA, speech_TWA, state)
