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

    noisy_index_BI = torch.arange(1, 1 + clips * chunks, device=latents_BITHWC.device).view(clips, chunks)
    inputs, indices = [latents_BITHWC], [noisy_index_BI]
    if clean_latents_BITHWC is not None:
        inputs.insert(0, clean_latents_BITHWC)
        indices.insert(0, torch.zeros_like(noisy_index_BI))
    streams = len(inputs)
    latents_RTHWC = torch.stack(inputs, dim=1).flatten(0, 2)
    selected: Modulation = modulation.select(torch.stack(indices, dim=1).flatten()[:, None])
    speech = transformer.fold_speech(speech_BITWA.flatten(0, 1))
    if has_speech_B is not None:
        speech = [part.heard_where(has_speech_B.repeat_interleave(chunks)) for part in speech]
    speech = [_for_streams(part, (clips, chunks), streams) for part in speech]
    memory = SequenceMemory(sink, clips, streams, chunks, rotations, cache)
    velocities_RTHWC: torch.Tensor = transformer(latents_RTHWC, selected, memory, speech, text)
    return velocities_RTHWC.view(clips, streams, chunks, *velocities_RTHWC.shape[1:])[:, -1]


def _for_streams(speech: FoldedSpeech, clips_chunks: tuple[int, int], streams: int) -> FoldedSpeech:
    def spread(part: torch.Tensor) -> torch.Tensor:
        by_stream: torch.Tensor = part.unflatten(0, clips_chunks)[:, None].expand(-1, streams, *[-1] * part.ndim)
        return by_stream.flatten(0, 2)

    return FoldedSpeech(spread(speech.keys_RTDM), spread(speech.bias_RT1M), spread(speech.values_RTMD))
