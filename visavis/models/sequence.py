"""A whole clip in one forward pass, with the same visibility as chunk by chunk: what training uses.

Legend: B clips, I chunks of a clip, T latent frames of a chunk, H W latent rows and columns, C latent channels, W
speech tokens of a latent frame, A speech channels. Gradients flow through the cache; nothing is written in place.
"""

from __future__ import annotations

import torch

from visavis.models.a2v_dit import A2VTransformer, Modulation
from visavis.models.attention import FoldedSpeech
from visavis.models.id_context import Cache, IsolatedMemory, SequenceMemory, slot_rotations


def forward_sequence(
    transformer: A2VTransformer,
    portrait_BHWC: torch.Tensor,
    latents_BITHWC: torch.Tensor,
    timesteps_BI: torch.Tensor,
    speech_BITWA: torch.Tensor,
    *,
    clean_latents_BITHWC: torch.Tensor | None = None,
    has_speech_B: torch.Tensor | None = None,
    cache: Cache = "full",
) -> torch.Tensor:
    """Velocities of all chunks, shaped as the latents.

    `timesteps_BI` (0 to 1,000) is one value a chunk, so noise may be asynchronous. With `clean_latents_BITHWC` each
    chunk's context is made from the clean chunk before it at timestep 0, as generation does with the cache source
    `clean`; without, from the noisy chunk before it at its own timestep (paper section C.6.2). A zero portrait drops
    the identity, a zero in `has_speech_B` the speech of that clip.
    """
    clips, chunks, frames, rows, columns, _ = latents_BITHWC.shape
    rotations = slot_rotations(frames, rows, columns, transformer.width, latents_BITHWC.device)
    text = transformer.encode_text()
    modulation = transformer.modulate(torch.cat([timesteps_BI.new_zeros(1), timesteps_BI.flatten()]))

    sink = IsolatedMemory(rotations.sink_NP)
    at_zero = torch.zeros(1, 1, dtype=torch.long, device=latents_BITHWC.device)
    transformer.remember(portrait_BHWC[:, None], modulation.select(at_zero), sink, text=text)

    index_BI = torch.arange(1, 1 + clips * chunks, device=latents_BITHWC.device).view(clips, chunks)
    speech = transformer.fold_speech(speech_BITWA.flatten(0, 1))
    if has_speech_B is not None:
        speech = [part.heard_where(has_speech_B.repeat_interleave(chunks)) for part in speech]
    rows_BITHWC = latents_BITHWC
    if clean_latents_BITHWC is not None:
        rows_BITHWC = torch.cat([clean_latents_BITHWC[:, :-1], latents_BITHWC], dim=1)
        index_BI = torch.cat([torch.zeros_like(index_BI[:, :-1]), index_BI], dim=1)
        speech = [_with_clean(part, chunks) for part in speech]
    memory = SequenceMemory(sink, clips, chunks, rotations, cache, clean=clean_latents_BITHWC is not None)
    selected: Modulation = modulation.select(index_BI.flatten()[:, None])
    velocities_RTHWC: torch.Tensor = transformer(rows_BITHWC.flatten(0, 1), selected, memory, speech, text)
    velocities_BITHWC: torch.Tensor = velocities_RTHWC.unflatten(0, (clips, -1))[:, -chunks:]
    return velocities_BITHWC


def _with_clean(speech: FoldedSpeech, chunks: int) -> FoldedSpeech:
    """The speech of each clip's clean chunks, all but the last, before that of all its chunks."""

    def spread(part: torch.Tensor) -> torch.Tensor:
        by_chunk = part.unflatten(0, (-1, chunks))
        return torch.cat([by_chunk[:, :-1], by_chunk], dim=1).flatten(0, 1)

    return FoldedSpeech(spread(speech.keys_RTDM), spread(speech.bias_RT1M), spread(speech.values_RTMD))
