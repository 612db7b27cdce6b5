"""The audio-to-video diffusion transformer (A2V-DiT, paper sections 3.2 and B.2).

Legend: R rows of the batch, T latent frames of a row, H W latent rows and columns, N tokens of a latent frame, C latent
channels, D width, L blocks, V distinct timesteps, W speech tokens of a latent frame, A speech channels.

Parameters shared with LTX-Video have the names and shapes of diffusers' `LTXVideoTransformer3DModel`. New are `attn3`
in every block (the audio attention) and the buffer `prompt_embedding`. The order in a block is that of Figure 7:
self-attention with the ID-Context cache, text attention, audio attention, feed-forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.activations import GELU
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import PixArtAlphaTextProjection
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from torch import nn
from torch.utils.checkpoint import checkpoint

from visavis.models.attention import (
    AttentionMemory,
    AudioAttention,
    FoldedSpeech,
    SelfAttention,
    TextAttention,
    TextKeys,
    rms_normalise,
)
from visavis.models.float8_weight import Float8Weight
from visavis.models.int8_weight import Int8Weight
from visavis.models.latent_prior import LatentPrior
from visavis.models.packed_linear import Float32Weight, Pack, PackedLinear, Rounding, can_pack

OUTPUT_NORM_EPSILON = 1e-6
# What the network is told for pure noise.
TIMESTEP_SCALE = 1_000.0

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Modulation:
    """What the timesteps do to the network (AdaLN), for distinct timesteps V, or for rows R and their latent frames T.

    `blocks`: `[L, V, 6, D]` or `[L, R, T, 6, D]`: shift, 1 + scale, gate of the self-attention, then of the
    feed-forward. `output`: `[V, 2, D]` or `[R, T, 2, D]`: shift, 1 + scale. `levels`: `[V]` or `[R, T]`, float32: how
    much of a latent is noise, from 0 to 1. A size of 1 stands for "the same for all".
    """

    blocks: torch.Tensor
    output: torch.Tensor
    levels: torch.Tensor

    def select(self, index_RT: torch.Tensor) -> Modulation:
        """Lays distinct timesteps out over rows and latent frames: `index_RT` says which one each has."""
        return Modulation(self.blocks[:, index_RT], self.output[index_RT], self.levels[index_RT])

    def part(self, rows: slice) -> Modulation:
        """Some of the rows; what is the same for all stays."""
        if self.output.shape[0] == 1:
            return self
        return Modulation(self.blocks[:, rows], self.output[rows], self.levels[rows])


class PackedGELU(nn.Module):
    """diffusers' `GELU` with its activation moved into the packed product; the parameter keeps its name `proj`."""

    def __init__(self, proj: PackedLinear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Projection and activation."""
        activated: torch.Tensor = self.proj(hidden)
        return activated


class A2VBlock(nn.Module):
    """One transformer block."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        text_width: int | None,
        speech_channels: int | None,
        activation: str,
        epsilon: float,
        bias: bool,
        out_bias: bool,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.attn1 = SelfAttention(width, heads, bias, out_bias)
        self.attn2 = None if text_width is None else TextAttention(width, heads, text_width, bias, out_bias)
        self.attn3 = None if speech_channels is None else AudioAttention(width, heads, speech_channels, epsilon)
        self.ff = FeedForward(width, activation_fn=activation)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        block: int,
        hidden_RTND: torch.Tensor,
        modulation_RT6D: torch.Tensor,
        memory: AttentionMemory,
        speech: FoldedSpeech | None,
        text: TextKeys | None,
    ) -> torch.Tensor:
        """The hidden state after this block."""
        queries_keys_RN2D, values_RND = self.before_attention(hidden_RTND, modulation_RT6D)
        attended_RND = memory.attend(block, queries_keys_RN2D, values_RND, self.attn1.heads)
        return self.after_attention(hidden_RTND, attended_RND, modulation_RT6D, speech, text)

    def before_attention(
        self, hidden_RTND: torch.Tensor, modulation_RT6D: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys `[R, N, 2, D]` and values `[R, N, D]` of a row's tokens: a function of tensors alone."""
        shift, scale = modulation_RT6D.unsqueeze(3).unbind(2)[:2]
        normed_RTND = torch.addcmul(shift, rms_normalise(hidden_RTND, self.epsilon), scale)
        return self.attn1.project(normed_RTND.flatten(1, 2))

    def after_attention(
        self,
        hidden_RTND: torch.Tensor,
        attended_RND: torch.Tensor,
        modulation_RT6D: torch.Tensor,
        speech: FoldedSpeech | None,
        text: TextKeys | None,
    ) -> torch.Tensor:
        """The rest of the block, once what the tokens attended to is there: a function of tensors alone."""
        gate, ff_shift, ff_scale, ff_gate = modulation_RT6D.unsqueeze(3).unbind(2)[2:]
        hidden_RTND = torch.addcmul(hidden_RTND, self.attn1(attended_RND).view_as(hidden_RTND), gate)
        if self.attn2 is not None:
            assert text is not None, "a transformer with text attention is given its text keys"
            hidden_RTND = hidden_RTND + self.attn2(hidden_RTND, text)
        if self.attn3 is not None and speech is not None:
            hidden_RTND = self.attn3(hidden_RTND, speech)
        normed_RTND = torch.addcmul(ff_shift, rms_normalise(hidden_RTND, self.epsilon), ff_scale)
        return torch.addcmul(hidden_RTND, self.ff(normed_RTND), ff_gate)

    def fuse(self, rows: int, pack: Pack | None) -> None:
        """Prepares this block's products for inference; does nothing when they still are."""
        if self.attn1.is_fused():
            return
        self.attn1.fuse(rows, pack)
        inner, _, outer = self.ff.net
        assert isinstance(outer, nn.Linear)
        tanh = isinstance(inner, PackedGELU) or (isinstance(inner, GELU) and inner.approximate == "tanh")
        if tanh and pack is not None:
            proj = inner.proj
            assert isinstance(proj, nn.Linear)
            self.ff.net[0] = PackedGELU(PackedLinear(proj, rows, pack, "gelu-tanh"))
            self.ff.net[2] = PackedLinear(outer, rows, pack)

    def remember(
        self, block: int, hidden_RTND: torch.Tensor, modulation_RT6D: torch.Tensor, memory: AttentionMemory
    ) -> None:
        """Gives the memory this block's keys and values and computes nothing else."""
        queries_keys_RN2D, values_RND = self.before_attention(hidden_RTND, modulation_RT6D)
        memory.remember(block, queries_keys_RN2D[:, :, 1], values_RND)


class A2VTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the velocity of video latents from speech, given what the memory shows of ID latent and past.

    The arguments named as in `LTXVideoTransformer3DModel` mean the same. `audio_channels` is the size of a speech
    token, `prompt_tokens` the length of the fixed prompt; 0 leaves the audio or the text attention out. With
    `latent_prior` the last layer gives what noisy latents do not say of their own velocity, and how much their cells
    vary (docs/decisions/0020).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 128,
        out_channels: int = 128,
        num_attention_heads: int = 32,
        attention_head_dim: int = 64,
        cross_attention_dim: int = 2048,
        num_layers: int = 28,
        activation_fn: str = "gelu-approximate",
        norm_eps: float = 1e-6,
        caption_channels: int = 4096,
        attention_bias: bool = True,
        attention_out_bias: bool = True,
        audio_channels: int = 2048,
        prompt_tokens: int = 32,
        chunk_latent_frames: int = 3,
        latent_prior: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gradient_checkpointing = False
        self.in_channels = in_channels
        self.audio_channels = audio_channels
        self.chunk_latent_frames = chunk_latent_frames
        # Channels of a token.
        self.width = width = num_attention_heads * attention_head_dim
        self.proj_in = nn.Linear(in_channels, width)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.time_embed = AdaLayerNormSingle(width, use_additional_conditions=False)
        self.caption_projection: nn.Module | None = None
        if prompt_tokens:
            self.caption_projection = PixArtAlphaTextProjection(in_features=caption_channels, hidden_size=width)
            self.register_buffer("prompt_embedding", torch.randn(1, prompt_tokens, caption_channels))
        blocks = [
            A2VBlock(
                width=width,
                heads=num_attention_heads,
                text_width=cross_attention_dim if prompt_tokens else None,
                speech_channels=audio_channels or None,
                activation=activation_fn,
                epsilon=norm_eps,
                bias=attention_bias,
                out_bias=attention_out_bias,
            )
            for _ in range(num_layers)
        ]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(width, 2 * out_channels if latent_prior else out_channels)
        self.prior = LatentPrior(out_channels) if latent_prior else None

    @property
    def blocks(self) -> list[A2VBlock]:
        """The transformer blocks, typed."""
        return [block for block in self.transformer_blocks if isinstance(block, A2VBlock)]

    def fuse(self, rows: int = 384, *, rounding: Rounding | None = None) -> None:
        """Prepares for inference, after the weights are loaded and placed: faster, same parameters, same function.

        `rows` is the usual number of tokens in a pass. Costs memory for a second copy of most weights on a CPU in
        float32, of the projections of `attn1` elsewhere. With `rounding` ("int8" for a CPU in float32 alone), the
        products of self-attention and feed-forward round their inputs and weights to 8 bits: no longer quite the same
        function. Raises ValueError for sizes that cannot be rounded so.
        """
        packable = can_pack(self.proj_in.weight)
        assert packable or rounding != "int8", "int8 products are for float32 on a CPU with oneDNN"
        pack: Pack | None = Float32Weight if packable else None
        if rounding is not None:
            pack = Int8Weight if rounding == "int8" else Float8Weight
        for block in self.blocks:
            block.fuse(rows, pack)

    def modulate(self, timesteps_V: torch.Tensor) -> Modulation:
        """Embeds distinct timesteps (0 to 1,000) for all blocks: `blocks [L, V, 6, D]`, `output [V, 2, D]`."""
        dtype = self.proj_in.weight.dtype
        values_V6D, embedded_VD = self.time_embed(timesteps_V, batch_size=len(timesteps_V), hidden_dtype=dtype)
        tables_L6D = torch.stack([block.scale_shift_table for block in self.blocks])
        # Scales are read as 1 + scale.
        one_6D = torch.tensor([0, 1, 0, 0, 1, 0], dtype=dtype, device=timesteps_V.device)[:, None]
        blocks_LV6D = tables_L6D[:, None] + values_V6D.unflatten(1, (6, -1)) + one_6D
        output_V2D = self.scale_shift_table + embedded_VD[:, None] + one_6D[:2]
        return Modulation(blocks_LV6D, output_V2D, timesteps_V.float() / TIMESTEP_SCALE)

    def fold_speech(self, speech_RTWA: torch.Tensor) -> list[FoldedSpeech]:
        """Speech latents of a chunk, made ready once for all its denoising steps; one entry a block."""
        return [block.attn3.fold(speech_RTWA) for block in self.blocks if block.attn3 is not None]

    def encode_text(self) -> list[TextKeys]:
        """Keys and values of the fixed prompt, one entry a block; empty without text attention."""
        if self.caption_projection is None:
            return []
        text_1ND = self.caption_projection(self.prompt_embedding)
        return [block.attn2.encode(text_1ND) for block in self.blocks if block.attn2 is not None]

    def forward(
        self,
        latents_RTHWC: torch.Tensor,
        modulation: Modulation,
        memory: AttentionMemory,
        speech: Sequence[FoldedSpeech] = (),
        text: Sequence[TextKeys] = (),
    ) -> torch.Tensor:
        """The velocity, shaped as the latents. No speech means no audio attention at all, as for the ID latent.

        With gradient checkpointing a block is computed again when its gradient is, and then asks `memory` again.
        """
        hidden_RTND = self.proj_in(latents_RTHWC.flatten(2, 3))
        recomputed = self.gradient_checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            condition = (modulation.blocks[index], memory, _at(speech, index), _at(text, index))
            if recomputed:
                hidden_RTND = checkpoint(block, index, hidden_RTND, *condition, use_reentrant=False)
            else:
                hidden_RTND = block(index, hidden_RTND, *condition)
        shift, scale = modulation.output.unsqueeze(3).unbind(2)
        normed_RTND = F.layer_norm(hidden_RTND, hidden_RTND.shape[-1:], eps=OUTPUT_NORM_EPSILON)
        output_RTNC: torch.Tensor = self.proj_out(torch.addcmul(shift, normed_RTND, scale))
        return self.velocity(output_RTNC.view(*latents_RTHWC.shape[:4], -1), latents_RTHWC, modulation.levels)

    def velocity(
        self, output_RTHWC: torch.Tensor, latents_RTHWC: torch.Tensor, levels_RT: torch.Tensor
    ) -> torch.Tensor:
        """The last layer's output, or what the prior makes of it."""
        if self.prior is None:
            return output_RTHWC
        return self.prior.velocity(latents_RTHWC, levels_RT, output_RTHWC).to(output_RTHWC.dtype)

    def remember(
        self,
        latents_RTHWC: torch.Tensor,
        modulation: Modulation,
        memory: AttentionMemory,
        speech: Sequence[FoldedSpeech] = (),
        text: Sequence[TextKeys] = (),
    ) -> None:
        """A forward pass for the sake of the memory alone: of the last block only keys and values are computed."""
        hidden_RTND = self.proj_in(latents_RTHWC.flatten(2, 3))
        last = len(self.transformer_blocks) - 1
        for index, block in enumerate(self.blocks[:last]):
            modulation_RT6D = modulation.blocks[index]
            hidden_RTND = block(index, hidden_RTND, modulation_RT6D, memory, _at(speech, index), _at(text, index))
        self.blocks[last].remember(last, hidden_RTND, modulation.blocks[last], memory)


def _at(parts: Sequence[Part], index: int) -> Part | None:
    return parts[index] if parts else None
