"""The generator as one would first write it: what `visavis bench generator` measures ours against.

Legend: R rows of the batch, T latent frames, N tokens, D width, C latent channels, H heads, d channels of a head, W
speech tokens of a latent frame, A speech channels.

Every denoising step runs the network over the whole window: the ID latent, the chunk before, and the chunk that is
generated. Nothing is kept from one step to the next, neither keys and values nor what the timesteps do; the audio
attention projects a query and an output for every token. Weights and arithmetic are those of an `A2VTransformer`, so
the result is the same as long as the window holds all that there is: for the first two chunks of a session. Later, the
ID-Context cache still knows what the chunk before was made from, which a window without a cache does not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from visavis.models.a2v_dit import OUTPUT_NORM_EPSILON, A2VBlock
from visavis.models.attention import QK_NORM_EPSILON, AudioAttention, attend_heads
from visavis.models.flow_matching import euler_step
from visavis.models.generation import SamplingPlan
from visavis.models.rotary import rotate


@dataclass(frozen=True, slots=True)
class PlainWindow:
    """The latents of a window and its speech, a row for each session and branch.

    `clean`: ID latent, then the chunk before where there is one. `speech`: of all chunks in the window. `has_speech`: 1
    for rows that attend to it, 0 for others.
    """

    clean_RTNC: torch.Tensor
    speech_RTWA: torch.Tensor
    has_speech: torch.Tensor

    @classmethod
    def of_sessions(cls, clean_RTNC: torch.Tensor, speech_RTWA: torch.Tensor, branches: int) -> Self:
        """A row a session, and with two branches all of them once more without speech and with a zero ID latent."""
        has_speech = torch.ones(len(clean_RTNC), device=clean_RTNC.device, dtype=clean_RTNC.dtype)
        if branches == 1:
            return cls(clean_RTNC, speech_RTWA, has_speech)
        without_id = clean_RTNC.clone()
        without_id[:, 0] = 0
        return cls(
            torch.cat([clean_RTNC, without_id]),
            speech_RTWA.repeat(2, 1, 1, 1),
            torch.cat([has_speech, torch.zeros_like(has_speech)]),
        )


def plain_chunk(noise_RTNC: torch.Tensor, window: PlainWindow, plan: SamplingPlan) -> torch.Tensor:
    """Denoises the chunk of every session: `[sessions, T, N, C]`.

    Rows are sessions, and with guidance all sessions once more without speech and ID. `noise` has a row a session.
    """
    branches = plan.settings.branches
    latents = noise_RTNC
    times = plan.schedule.times
    for time, next_time in pairwise(times):
        rows = latents.repeat(branches, 1, 1, 1)
        velocities = plain_velocities(plan, rows, window, time * plan.schedule.timestep_scale).chunk(branches)
        guided = velocities[0] if plan.guidance is None else plan.guidance(*velocities)
        latents = euler_step(latents, guided, time, next_time)
    return latents


def plain_velocities(
    plan: SamplingPlan, latents_RTNC: torch.Tensor, window: PlainWindow, timestep: float
) -> torch.Tensor:
    """One pass over the whole window; the velocity of the current chunk."""
    transformer = plan.transformer
    frames, current = window.clean_RTNC.shape[1], latents_RTNC.shape[1]
    hidden_RTND = transformer.proj_in(torch.cat([window.clean_RTNC, latents_RTNC], dim=1))
    modulation = transformer.modulate(torch.tensor([0.0, timestep], device=hidden_RTND.device))
    of_frame = torch.tensor([0] * frames + [1] * current, device=hidden_RTND.device)
    text = transformer.encode_text()
    for index, block in enumerate(transformer.blocks):
        modulation_T6D = modulation.blocks[index][of_frame]
        hidden_RTND = hidden_RTND + _self_attention(block, hidden_RTND, modulation_T6D, plan)
        if block.attn2 is not None:
            hidden_RTND = hidden_RTND + block.attn2(hidden_RTND, text[index])
        if block.attn3 is not None:
            hidden_RTND = hidden_RTND + _audio_attention(block.attn3, hidden_RTND, window)
        hidden_RTND = hidden_RTND + _feed_forward(block, hidden_RTND, modulation_T6D)
    shift_TD, scale_TD = modulation.output[of_frame][frames:].unbind(1)
    normed = F.layer_norm(hidden_RTND[:, frames:], hidden_RTND.shape[-1:], eps=OUTPUT_NORM_EPSILON)
    output_RTNC = transformer.proj_out(normed * scale_TD[:, None] + shift_TD[:, None])
    levels_1T = modulation.levels[of_frame][None, frames:]
    return transformer.velocity(output_RTNC.unsqueeze(3), latents_RTNC.unsqueeze(3), levels_1T).squeeze(3)


def _self_attention(
    block: A2VBlock, hidden_RTND: torch.Tensor, modulation_T6D: torch.Tensor, plan: SamplingPlan
) -> torch.Tensor:
    shift, scale, gate = (part[:, None] for part in modulation_T6D[:, :3].unbind(1))
    normed_RND = (_normalised(hidden_RTND, block.epsilon) * scale + shift).flatten(1, 2)
    attention = block.attn1
    queries = _normalised(F.linear(normed_RND, *_parameters(attention.to_q)), QK_NORM_EPSILON) * attention.norm_q.weight
    keys = _normalised(F.linear(normed_RND, *_parameters(attention.to_k)), QK_NORM_EPSILON) * attention.norm_k.weight
    values = F.linear(normed_RND, *_parameters(attention.to_v))
    attended_RND = _attend_window(queries, keys, values, attention.heads, plan)
    out = F.linear(attended_RND, *_parameters(attention.to_out[0]))
    return out.view_as(hidden_RTND) * gate


def _attend_window(
    queries_RND: torch.Tensor, keys_RND: torch.Tensor, values_RND: torch.Tensor, heads: int, plan: SamplingPlan
) -> torch.Tensor:
    """The ID latent attends to itself, the chunk before to both of them, the current chunk to everything.

    The chunk before stands in the slots of the current one while it attends, as it did when it was generated, and in
    those of the context while it is attended to.
    """
    rotations = plan.rotations
    sizes = [len(rotations.sink_NP), queries_RND.shape[1] - len(rotations.sink_NP) - len(rotations.current_NP)]
    sizes.append(len(rotations.current_NP))
    (sink_q, before_q, current_q), (sink_k, before_k, current_k), (sink_v, before_v, current_v) = (
        part.split(sizes, dim=1) for part in (queries_RND, keys_RND, values_RND)
    )
    sink_k = rotate(sink_k, rotations.sink_NP)
    attended = [attend_heads(rotate(sink_q, rotations.sink_NP), sink_k, sink_v, heads)]
    visible_k, visible_v = [sink_k], [sink_v]
    if before_q.shape[1]:
        own_k = torch.cat([sink_k, rotate(before_k, rotations.current_NP)], dim=1)
        own_v = torch.cat([sink_v, before_v], dim=1)
        attended.append(attend_heads(rotate(before_q, rotations.current_NP), own_k, own_v, heads))
        visible_k.append(rotate(before_k, rotations.context_NP))
        visible_v.append(before_v)
    visible_k.append(rotate(current_k, rotations.current_NP))
    visible_v.append(current_v)
    current_q = rotate(current_q, rotations.current_NP)
    attended.append(attend_heads(current_q, torch.cat(visible_k, dim=1), torch.cat(visible_v, dim=1), heads))
    return torch.cat(attended, dim=1)


def _audio_attention(attention: AudioAttention, hidden_RTND: torch.Tensor, window: PlainWindow) -> torch.Tensor:
    def by_head(part: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = part.unflatten(-1, (attention.heads, -1)).transpose(2, 3)
        return heads

    # The ID latent takes none.
    normed_RTND = _normalised(hidden_RTND[:, 1:], attention.epsilon)
    queries = by_head(F.linear(normed_RTND, *_parameters(attention.to_q)))
    keys = F.linear(window.speech_RTWA, *_parameters(attention.to_k))
    keys = by_head(_normalised(keys, QK_NORM_EPSILON) * attention.norm_k.weight)
    values = by_head(F.linear(window.speech_RTWA, *_parameters(attention.to_v)))
    attended = F.scaled_dot_product_attention(queries, keys, values).transpose(2, 3).flatten(3)
    heard = F.linear(attended, *_parameters(attention.to_out[0])) * window.has_speech[:, None, None, None]
    return F.pad(heard, (0, 0, 0, 0, 1, 0))


def _feed_forward(block: A2VBlock, hidden_RTND: torch.Tensor, modulation_T6D: torch.Tensor) -> torch.Tensor:
    shift, scale, gate = (part[:, None] for part in modulation_T6D[:, 3:].unbind(1))
    normed_RTND = _normalised(hidden_RTND, block.epsilon) * scale + shift
    inner, _, outer = block.ff.net
    projection = inner.proj
    assert isinstance(projection, nn.Linear)
    activated = F.gelu(F.linear(normed_RTND, *_parameters(projection)), approximate="tanh")
    out_RTND: torch.Tensor = F.linear(activated, *_parameters(outer)) * gate
    return out_RTND


def _normalised(channels: torch.Tensor, epsilon: float) -> torch.Tensor:
    return F.rms_norm(channels, channels.shape[-1:], eps=epsilon)


def _parameters(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    # Of layers that may be packed for oneDNN, which the plain way does without.
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias
