"""The three attentions of an A2V-DiT block (paper sections 3.2 and B.2).

Legend: R rows of the batch, T latent frames, N tokens (of one latent frame where T stands beside it), D width, H heads,
d channels of a head, W speech tokens of a latent frame, A speech channels, M = W * H, L blocks.

`SelfAttention` and `TextAttention` have the parameters of diffusers' `LTXAttention`, names and shapes, so that
weights of LTX-Video load. What a token may attend to is not decided here: an `AttentionMemory` rotates, keeps and
attends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from visavis.models.packed_linear import Pack, PackedLinear

QK_NORM_EPSILON = 1e-5


class AttentionMemory(Protocol):
    """What the tokens of one forward pass attend to. Decides rotation, visibility and what is kept."""

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Attention output `[R, N, D]` of block `block` for normalised, not yet rotated queries and keys."""
        ...

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Takes normalised, not yet rotated keys and values of a block whose output nobody needs."""
        ...


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Keys (normalised) and values of the fixed prompt for one block: `[1, H, N, d]`."""

    keys_1HNd: torch.Tensor
    values_1HNd: torch.Tensor


@dataclass(frozen=True, slots=True)
class FoldedSpeech:
    """Speech keys and values of one block, multiplied into the projections around them (see `AudioAttention`)."""

    keys_RTDM: torch.Tensor
    bias_RT1M: torch.Tensor
    values_RTMD: torch.Tensor

    def silenced(self) -> FoldedSpeech:
        """The same shapes with all zeros: an audio attention that adds exactly nothing."""
        return FoldedSpeech(*(torch.zeros_like(part) for part in (self.keys_RTDM, self.bias_RT1M, self.values_RTMD)))

    def heard_where(self, has_speech_R: torch.Tensor) -> FoldedSpeech:
        """Silenced in the rows where `has_speech_R` is zero."""
        return FoldedSpeech(
            *(
                part * has_speech_R.to(part.dtype)[:, None, None, None]
                for part in (self.keys_RTDM, self.bias_RT1M, self.values_RTMD)
            )
        )

    def part(self, rows: slice) -> FoldedSpeech:
        """Some of the rows."""
        return FoldedSpeech(self.keys_RTDM[rows], self.bias_RT1M[rows], self.values_RTMD[rows])

    @staticmethod
    def concatenate(parts: list[FoldedSpeech]) -> FoldedSpeech:
        """Joins rows."""
        return FoldedSpeech(
            torch.cat([part.keys_RTDM for part in parts]),
            torch.cat([part.bias_RT1M for part in parts]),
            torch.cat([part.values_RTMD for part in parts]),
        )


def rms_normalise(channels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """`channels / sqrt(mean(channels^2) + epsilon)` over the last dimension, without weight."""
    if channels.dtype != torch.float32:
        return F.rms_norm(channels, channels.shape[-1:], eps=epsilon)
    return channels * inverse_rms(channels, epsilon)


def inverse_rms(channels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """`1 / sqrt(mean(channels^2) + epsilon)` over the last dimension, kept as size 1, in float32."""
    # One pass without a temporary: on a CPU twice as fast as F.rms_norm, which is not fused there.
    norm = torch.linalg.vector_norm(channels, dim=-1, keepdim=True, dtype=torch.float32)
    # No tensor is made from a number of the host, which would wait for the device and could not be captured in a graph.
    inverse: torch.Tensor = norm.square().mul_(1 / channels.shape[-1]).add_(epsilon).rsqrt_()
    return inverse


def attend_heads(
    queries_RND: torch.Tensor,
    keys_RND: torch.Tensor,
    values_RND: torch.Tensor,
    heads: int,
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scaled dot-product attention with the width split into heads: `[R, N, D]`. `visible` is true where allowed."""
    queries, keys, values = (
        part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (queries_RND, keys_RND, values_RND)
    )
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible).transpose(1, 2).flatten(2)


class FusedProjection:
    """Several linear layers of one input as a single product, laid out once. No parameter changes place."""

    def __init__(self, linears: Sequence[nn.Linear], rows: int, pack: Pack | None) -> None:
        self._linears = linears
        self._sources = self._identities()
        weight = torch.cat([linear.weight.detach() for linear in linears])
        self._packed = None if pack is None else pack(weight, rows)
        self._weight = weight if pack is None else None
        has_bias = linears[0].bias is not None
        self._bias = torch.cat([linear.bias.detach() for linear in linears]) if has_bias else None

    def is_current(self) -> bool:
        """False once a weight has been replaced, moved or changed."""
        return self._sources == self._identities()

    def product(self, hidden_RND: torch.Tensor) -> torch.Tensor:
        """`[R, N, number of layers, outputs of each]`."""
        if self._packed is not None:
            joined = self._packed.product(hidden_RND, self._bias)
        else:
            assert self._weight is not None
            joined = F.linear(hidden_RND, self._weight, self._bias)
        return joined.view(*joined.shape[:2], len(self._linears), -1)

    def _identities(self) -> list[tuple[int, int]]:
        parameters = (part for linear in self._linears for part in (linear.weight, linear.bias) if part is not None)
        return [(parameter.data_ptr(), parameter._version) for parameter in parameters]


class SelfAttention(nn.Module):
    """`attn1`: queries and keys are normalised over all channels before they are split into heads."""

    def __init__(self, width: int, heads: int, bias: bool, out_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q = nn.RMSNorm(width, eps=QK_NORM_EPSILON)
        self.norm_k = nn.RMSNorm(width, eps=QK_NORM_EPSILON)
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(width, width, bias=bias)
        self.to_v = nn.Linear(width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=out_bias)])
        self._fused: FusedProjection | None = None

    def fuse(self, rows: int, pack: Pack | None) -> None:
        """Makes one product of the three projections. For inference, after the weights are loaded and placed."""
        self._fused = FusedProjection((self.to_q, self.to_k, self.to_v), rows, pack)
        if pack is not None:
            self.to_out[0] = PackedLinear(_only(self.to_out), rows, pack)

    def is_fused(self) -> bool:
        """Whether the fused product stands for the parameters as they are now."""
        # A compiler cannot follow the question; `compile_blocks` says that weights no longer change.
        return self._fused is not None and (torch.compiler.is_compiling() or self._fused.is_current())

    def project(self, hidden_RND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised queries and keys `[R, N, 2, D]` and values `[R, N, D]`."""
        if self._fused is not None and not torch.is_grad_enabled() and self.is_fused():
            projected_RN3D = self._fused.product(hidden_RND)
        else:
            parts = (linear(hidden_RND) for linear in (self.to_q, self.to_k, self.to_v))
            projected_RN3D = torch.stack(tuple(parts), dim=2)
        norm_weight_2D = torch.stack([self.norm_q.weight, self.norm_k.weight])
        queries_keys_RN2D = rms_normalise(projected_RN3D[:, :, :2], QK_NORM_EPSILON) * norm_weight_2D
        return queries_keys_RN2D, projected_RN3D[:, :, 2]

    def forward(self, attended_RND: torch.Tensor) -> torch.Tensor:
        """What an `AttentionMemory` found for the projected queries, back in the hidden state's terms: `[R, N, D]`."""
        out_RND: torch.Tensor = self.to_out[0](attended_RND)
        return out_RND


class TextAttention(nn.Module):
    """`attn2`: attends to the embedding of a fixed prompt; its keys and values are projected once (`encode`)."""

    def __init__(self, width: int, heads: int, text_width: int, bias: bool, out_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q = nn.RMSNorm(width, eps=QK_NORM_EPSILON)
        self.norm_k = nn.RMSNorm(width, eps=QK_NORM_EPSILON)
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(text_width, width, bias=bias)
        self.to_v = nn.Linear(text_width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=out_bias)])

    def encode(self, text_1ND: torch.Tensor) -> TextKeys:
        """Keys and values of the projected prompt."""
        keys_1ND, values_1ND = self.norm_k(self.to_k(text_1ND)), self.to_v(text_1ND)
        keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (keys_1ND, values_1ND))
        return TextKeys(keys, values)

    def forward(self, hidden_RTND: torch.Tensor, text: TextKeys) -> torch.Tensor:
        """The text's contribution to every token: `[R, T, N, D]`."""
        queries_RND = self.norm_q(self.to_q(hidden_RTND.flatten(1, 2)))
        queries_RHNd = queries_RND.unflatten(2, (self.heads, -1)).transpose(1, 2)
        rows = hidden_RTND.shape[0]
        keys, values = (part.expand(rows, -1, -1, -1) for part in (text.keys_1HNd, text.values_1HNd))
        attended_RHNd = F.scaled_dot_product_attention(queries_RHNd, keys, values)
        out: torch.Tensor = self.to_out[0](attended_RHNd.transpose(1, 2).flatten(2))
        return out.view(hidden_RTND.shape)


class AudioAttention(nn.Module):
    """`attn3`: the tokens of a latent frame attend to that frame's own speech tokens (Eq. 13, read per frame).

    A latent frame has many tokens but only W = 2 speech tokens. So the products are reordered: instead of a query and
    an output projection for every token, the speech keys are multiplied with the query projection and the values with
    the output projection once a chunk (`fold`), and a token needs two products with M = H * W columns. The result is
    the same sum. It asks that queries have no normalisation across channels of their own; they are made from the
    normalised hidden state instead, and the keys are normalised.
    """

    def __init__(self, width: int, heads: int, speech_channels: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.epsilon = epsilon
        self.norm_k = nn.RMSNorm(width, eps=QK_NORM_EPSILON)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(speech_channels, width)
        self.to_v = nn.Linear(speech_channels, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def fold(self, speech_RTWA: torch.Tensor) -> FoldedSpeech:
        """Speech tokens of each latent frame, made ready for all denoising steps of a chunk."""
        keys_RTWHd = self.norm_k(self.to_k(speech_RTWA)).unflatten(3, (self.heads, -1))
        keys_RTHWd = keys_RTWHd.transpose(2, 3) * keys_RTWHd.shape[-1] ** -0.5
        values_RTHWd = self.to_v(speech_RTWA).unflatten(3, (self.heads, -1)).transpose(2, 3)
        query_HdD = self.to_q.weight.unflatten(0, (self.heads, -1))
        query_bias_Hd1 = self.to_q.bias.unflatten(0, (self.heads, -1, 1))
        out_HdD = _only(self.to_out).weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)
        # Weights of one head's speech tokens add up to 1, so the output bias can ride on the values.
        bias_D = _only(self.to_out).bias / self.heads
        return FoldedSpeech(
            keys_RTDM=_speech_major(keys_RTHWd @ query_HdD).transpose(2, 3).contiguous(),
            bias_RT1M=_speech_major(keys_RTHWd @ query_bias_Hd1).transpose(2, 3),
            values_RTMD=_speech_major(values_RTHWd @ out_HdD + bias_D),
        )

    def forward(self, hidden_RTND: torch.Tensor, speech: FoldedSpeech) -> torch.Tensor:
        """The hidden state with the speech added: `[R, T, N, D]`."""
        rows, frames, tokens, width = hidden_RTND.shape
        scale_RTN1 = inverse_rms(hidden_RTND, self.epsilon).to(hidden_RTND.dtype)
        logits_RTNM = torch.addcmul(speech.bias_RT1M, hidden_RTND @ speech.keys_RTDM, scale_RTN1)
        # Heads innermost: a softmax over a last dimension of two is slow on a CPU.
        weights_RTNM = logits_RTNM.unflatten(3, (-1, self.heads)).softmax(3).flatten(3)
        return torch.baddbmm(
            hidden_RTND.reshape(rows * frames, tokens, width),
            weights_RTNM.flatten(0, 1),
            speech.values_RTMD.flatten(0, 1),
        ).view(hidden_RTND.shape)


def _only(layers: nn.ModuleList) -> nn.Linear:
    # A list of one: the place where LTX-Video's checkpoints have it, before a dropout.
    layer = layers[0]
    assert isinstance(layer, nn.Linear)
    return layer


def _speech_major(parts_RTHWX: torch.Tensor) -> torch.Tensor:
    return parts_RTHWX.transpose(2, 3).flatten(2, 3)
