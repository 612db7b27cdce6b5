"""One batch of the motion trainings, without its noise: that is drawn on the device.

B samples, T = 12 latent frames (the ID latent is not among them), S = 4 segments, H W latent rows and columns, C latent
channels, N chunks of a clip, P = 56 states a chunk, X speech feature channels
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from visavis.models.flow_matching import add_noise


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a network is told about a sample besides its noisy latents; dropouts are part of it."""

    # [B, H, W, C], of any picture of the person
    portrait_BHWC: Tensor
    # [B, 1 + N, 56, X]: of the whole clip, entry 0 is the silence before it
    states_BNPX: Tensor
    # The chunk of the clip with which the sample begins; the first is 0.
    first_chunk_B: Tensor
    # False: a zero ID latent, no speech.
    has_identity_B: Tensor
    has_speech_B: Tensor

    def to(self, device: torch.device) -> Conditions:
        """On the device, numbers in float32."""
        return Conditions(*(_moved(getattr(self, field.name), device) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class MotionBatch:
    """Clean latents, how much of each cell is mouth, the levels of noise and the conditions.

    `clean_context`: contexts are made from (nearly) clean latents at time 0, as a live session's are.
    """

    clean_BTHWC: Tensor
    mouth_BTHW: Tensor
    levels_BS: Tensor
    clean_context: bool
    conditions: Conditions

    def to(self, device: torch.device) -> MotionBatch:
        """On the device, numbers in float32."""
        clean, mouth, levels = (_moved(part, device) for part in (self.clean_BTHWC, self.mouth_BTHW, self.levels_BS))
        return MotionBatch(clean, mouth, levels, self.clean_context, self.conditions.to(device))

    def noisy(self, noise_BTHWC: Tensor) -> Tensor:
        """The clean latents with this noise at their levels (paper Eq. 16)."""
        frames = self.clean_BTHWC.shape[1] // self.levels_BS.shape[1]
        levels_BT = self.levels_BS.repeat_interleave(frames, dim=1)
        return add_noise(self.clean_BTHWC, noise_BTHWC, levels_BT[:, :, None, None, None])

    def at_level(self, level: float) -> MotionBatch:
        """The same with one level for all."""
        return replace(self, levels_BS=torch.full_like(self.levels_BS, level))

    def heard_as(self, order: list[int]) -> MotionBatch:
        """The same faces with each other's speech: sample b hears that of sample `order[b]`."""
        conditions = self.conditions
        swapped = replace(
            conditions,
            states_BNPX=conditions.states_BNPX[order],
            first_chunk_B=conditions.first_chunk_B[order],
            has_speech_B=conditions.has_speech_B[order],
        )
        return replace(self, conditions=swapped)


def _moved(part: Tensor, device: torch.device) -> Tensor:
    moved = part.to(device, non_blocking=True)
    return moved.float() if moved.is_floating_point() else moved
