"""The same chunk through diffusers' LTX transformer: whole window, no cache.

Legend: R rows of the batch, N tokens of the window, C latent channels.

diffusers' transformer has no audio attention, but always a text attention. It gets the weights of nobody: only its
time is of interest.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

from visavis.bench.generator_work import TransformerSize
from visavis.models.flow_matching import euler_step
from visavis.models.generation import SamplingPlan


class DiffusersGenerator:
    """diffusers' transformer in the size of ours, and the inputs of its passes."""

    def __init__(self, size: TransformerSize, device: torch.device, dtype: torch.dtype) -> None:
        model: LTXVideoTransformer3DModel = LTXVideoTransformer3DModel(
            in_channels=size.channels,
            out_channels=size.channels,
            num_attention_heads=size.heads,
            attention_head_dim=size.width // size.heads,
            cross_attention_dim=size.width,
            num_layers=size.blocks,
            caption_channels=size.width,
        )
        # diffusers' own `to` warns about float32 modules even where there are none.
        torch.nn.Module.to(model, device=device, dtype=dtype)
        self._model = model.eval().requires_grad_(False)
        self._size = size
        self._frames = size.window_tokens // size.frame_tokens
        # One token where ours has no text at all.
        self._text = torch.randn(1, size.prompt_tokens or 1, size.width, device=device, dtype=dtype)

    def chunk(self, window_RNC: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
        """Denoises the last latent frames of every window, a row a session: `[sessions, N of a chunk, C]`."""
        branches, current = plan.settings.branches, self._size.chunk_tokens
        past_RNC, latents = window_RNC[:, :-current], window_RNC[:, -current:]
        times = plan.schedule.times
        for time, next_time in pairwise(times):
            rows = torch.cat([past_RNC, latents], dim=1).repeat(branches, 1, 1)
            velocities = self._velocities(rows, time * plan.schedule.timestep_scale)[:, -current:].chunk(branches)
            guided = velocities[0] if plan.guidance is None else plan.guidance(*velocities)
            latents = euler_step(latents, guided, time, next_time)
        return latents

    def _velocities(self, latents_RNC: torch.Tensor, timestep: float) -> torch.Tensor:
        side = round(self._size.frame_tokens**0.5)
        (velocities_RNC,) = self._model(
            hidden_states=latents_RNC,
            encoder_hidden_states=self._text.expand(len(latents_RNC), -1, -1),
            timestep=torch.full((len(latents_RNC),), timestep, device=latents_RNC.device),
            encoder_attention_mask=None,
            num_frames=self._frames,
            height=side,
            width=side,
            return_dict=False,
        )
        assert isinstance(velocities_RNC, torch.Tensor)
        return velocities_RNC
