"""How far back a stream's state reaches: so many chunks make a new state equal a lost one, bit for bit.

Found by experiment on the network as it is built: a state full of NaN goes through chunks until none is left in it, for
whatever is computed from a NaN is NaN, whichever layers lie between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from visavis.models.speech_ae import SpeechAEEncoderState
from visavis.models.speech_encoder import SpeechEncoder, SpeechEncoderState
from visavis.models.speech_features import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.models.video_autoencoder import VideoAutoencoder

State = TypeVar("State")

# More would mean that the state never forgets.
MOST_CHUNKS: Final = 64


@torch.no_grad()
def speech_encoder_reach(encoder: SpeechEncoder) -> int:
    """Chunks that a speech encoder must have heard: those of its 3 s of past, of all that went into their features."""
    start = encoder.initial_state()
    silence = torch.zeros(CHUNK_SAMPLES), torch.zeros(LOOKAHEAD_SAMPLES)
    (past_samples_S, *pasts) = _poisoned([start.past_samples_S, *start.speech_ae.pasts])
    return _chunks_until_clean(
        SpeechEncoderState(past_samples_S, SpeechAEEncoderState(tuple(pasts))),
        lambda before: encoder.encode_chunk(*silence, before)[1],
        lambda state: (state.past_samples_S, *state.speech_ae.pasts),
    )


@torch.no_grad()
def video_decoder_reach(vae: VideoAutoencoder, chunk_latent_frames: int) -> int:
    """Chunks that a video decoder must have decoded; the same for all picture sizes, so found on the smallest."""
    portrait = torch.zeros(1, 1, 1, 1, vae.latents_mean.shape[0], device=vae.device, dtype=vae.dtype)
    latents = portrait.expand(1, chunk_latent_frames, 1, 1, -1)
    start = vae.initial_decoder_state(portrait, seed=0)
    return _chunks_until_clean(
        replace(start, caches=_poisoned(start.caches)),
        lambda before: vae.decode_chunk(latents, before)[1],
        lambda state: state.caches,
    )


def _chunks_until_clean(
    state: State, advance: Callable[[State], State], tensors_of: Callable[[State], Iterable[Tensor]]
) -> int:
    for chunks in range(MOST_CHUNKS + 1):
        if not any(bool(tensor.isnan().any()) for tensor in tensors_of(state)):
            return chunks
        state = advance(state)
    raise ValueError(f"after {MOST_CHUNKS} chunks the state still depends on what was before them")


def _poisoned(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.full_like(tensor, float("nan")) for tensor in tensors)
