"""The networks that are trained: a transformer and the SpeechAE that it hears through, as teacher or as student.

Both have the same parameters under the same names, so the weights of one load into the other.

B samples, T latent frames, S segments, H W latent rows and columns, C latent channels, A speech channels
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.models.a2v_dit import TIMESTEP_SCALE, A2VTransformer
from visavis.models.full_attention import forward_clip
from visavis.models.id_context import Cache
from visavis.models.sequence import forward_sequence
from visavis.models.speech_ae import SpeechAE
from visavis.training.motion.batch import Conditions


class MotionNetwork(nn.Module):
    """What teacher and student have in common."""

    def __init__(self, transformer: A2VTransformer, speech_ae: SpeechAE) -> None:
        """Raises ValueError where the transformer hears other latents than the SpeechAE makes."""
        super().__init__()
        if transformer.audio_channels != speech_ae.latent_dim:
            raise ValueError(
                f"the transformer hears {transformer.audio_channels} channels, the SpeechAE has {speech_ae.latent_dim}"
            )
        self.transformer = transformer
        self.speech_ae = speech_ae

    def speech(self, conditions: Conditions, frames: int) -> Tensor:
        """The speech latents of the sample's latent frames: [B, T, 2, A].

        The whole clip is encoded, as a live session would, and in float32, as the audio encoder does.
        """
        with torch.autocast(conditions.states_BNPX.device.type, enabled=False):
            latents_BTWA = self.speech_ae.encode_states(conditions.states_BNPX)
        first_B = 1 + self.transformer.chunk_latent_frames * conditions.first_chunk_B
        chosen_BT = first_B[:, None] + torch.arange(frames, device=first_B.device)
        return latents_BTWA[torch.arange(len(first_B), device=first_B.device)[:, None], chosen_BT]

    def speech_parameters(self) -> list[nn.Parameter]:
        """Of the SpeechAE's encoder; its decoder is of no use here."""
        return [*self.speech_ae.project_in.parameters(), *self.speech_ae.down_blocks.parameters()]

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether blocks are computed again for their gradients."""
        return bool(self.transformer.is_gradient_checkpointing)

    def enable_gradient_checkpointing(self) -> None:
        """Computes blocks again instead of keeping their activations."""
        self.transformer.enable_gradient_checkpointing()

    def disable_gradient_checkpointing(self) -> None:
        """Keeps activations."""
        self.transformer.disable_gradient_checkpointing()


class TeacherNetwork(MotionNetwork):
    """All latent frames see each other (paper section 3.3, Eq. 14 to 18)."""

    def forward(self, noisy_BTHWC: Tensor, levels_BS: Tensor, conditions: Conditions) -> Tensor:
        """The velocities of all latent frames: [B, T, H, W, C]."""
        frames = noisy_BTHWC.shape[1]
        return forward_clip(
            self.transformer,
            _portrait(conditions),
            noisy_BTHWC,
            levels_BS.repeat_interleave(frames // levels_BS.shape[1], dim=1) * TIMESTEP_SCALE,
            self.speech(conditions, frames),
            has_speech_B=conditions.has_speech_B,
        )


class StudentNetwork(MotionNetwork):
    """Each chunk sees the ID latent, the chunk before it and itself (sections 3.2 and C.6.2, Eq. 7 to 12 and 71 to 72).

    All chunks are computed at once, which gives the same numbers as one after the other: in each block a chunk needs
    keys and values that the chunk before it has in that same block.
    """

    def __init__(self, transformer: A2VTransformer, speech_ae: SpeechAE, cache: Cache = "full") -> None:
        """`cache` leaves a part of the cache out, for ablations."""
        super().__init__(transformer, speech_ae)
        self.cache: Cache = cache

    def forward(
        self, noisy_BTHWC: Tensor, levels_BS: Tensor, conditions: Conditions, context_BTHWC: Tensor | None = None
    ) -> Tensor:
        """The velocities of all latent frames: [B, T, H, W, C]; each segment is a chunk.

        Contexts are made from `context_BTHWC` at time 0, as a live session makes them; without, from the noisy chunks
        at their own times, as the paper trains.
        """
        frames = noisy_BTHWC.shape[1]
        velocities_BITHWC = forward_sequence(
            self.transformer,
            _portrait(conditions),
            self._chunks(noisy_BTHWC),
            levels_BS * TIMESTEP_SCALE,
            self._chunks(self.speech(conditions, frames)),
            clean_latents_BITHWC=None if context_BTHWC is None else self._chunks(context_BTHWC),
            has_speech_B=conditions.has_speech_B,
            cache=self.cache,
        )
        return velocities_BITHWC.flatten(1, 2)

    def _chunks(self, frames: Tensor) -> Tensor:
        chunks: Tensor = frames.unflatten(1, (-1, self.transformer.chunk_latent_frames))
        return chunks


def _portrait(conditions: Conditions) -> Tensor:
    """The ID latents; those that are dropped are zero (section C.6.1)."""
    return conditions.portrait_BHWC * conditions.has_identity_B[:, None, None, None]


@torch.no_grad()
def start_quietly(transformer: A2VTransformer) -> None:
    """Weights from which a transformer without a past learns fast: each block begins as the identity (adaLN-zero).

    As in DiT (Peebles and Xie, 2023, section 3.2): gates, and whatever is added without a gate, are zero.
    """
    silent: list[nn.Module] = [transformer.time_embed.linear, transformer.proj_out]
    for block in transformer.blocks:
        block.scale_shift_table.zero_()
        silent += [attention.to_out for attention in (block.attn2, block.attn3) if attention is not None]
    transformer.scale_shift_table.zero_()
    for module in silent:
        for parameter in module.parameters():
            parameter.zero_()
