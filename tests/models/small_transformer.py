"""A transformer and sessions small enough for tests: the real classes with smaller numbers."""

from __future__ import annotations

import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.generation import GenerationState, SamplingPlan, SamplingSettings, begin_session, prepare_sampling

ROWS, COLUMNS, CHANNELS, SPEECH_TOKENS, SPEECH_CHANNELS = 2, 3, 8, 2, 12
SETTINGS = SamplingSettings(steps=3, shift=2.5857, guidance_scale=6.0, cache_source="clean")


def small_transformer(
    *, seed: int = 0, prompt_tokens: int = 0, audio_channels: int = SPEECH_CHANNELS, latent_prior: bool = True
) -> A2VTransformer:
    """Three blocks of two heads of 16; with a prior, what it gives depends on a row's level twice."""
    torch.manual_seed(seed)
    transformer: A2VTransformer = A2VTransformer(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=3,
        caption_channels=10,
        audio_channels=audio_channels,
        prompt_tokens=prompt_tokens,
        latent_prior=latent_prior,
    ).eval()
    if transformer.prior is not None:
        spread = torch.randn(CHANNELS, CHANNELS)
        transformer.prior.fit(torch.randn(CHANNELS), spread @ spread.T)
    return transformer


def portrait(seed: int = 1) -> torch.Tensor:
    """An ID latent."""
    return torch.randn(1, ROWS, COLUMNS, CHANNELS, generator=torch.Generator().manual_seed(seed))


def speech(seed: int = 2) -> torch.Tensor:
    """Speech latents of a chunk."""
    return torch.randn(3, SPEECH_TOKENS, SPEECH_CHANNELS, generator=torch.Generator().manual_seed(seed))


def plan(transformer: A2VTransformer, settings: SamplingSettings = SETTINGS) -> SamplingPlan:
    """The shared part of sessions."""
    return prepare_sampling(transformer, settings, ROWS, COLUMNS)


def session(sampling: SamplingPlan, seed: int = 3, portrait_seed: int = 1) -> GenerationState:
    """A fresh session."""
    return begin_session(sampling.transformer, portrait(portrait_seed), seed, sampling.settings, plan=sampling)
