"""Full attention over a clip, READ's and the teacher's way (REST, section 3.3, Eq. 14 to 18, and C.6.1).

Legend: L blocks, R rows of the batch, B clips, T moving latent frames of a clip, N tokens (of one latent frame, or of
all the moving ones where nothing else is said), D width, H W latent rows and columns, C latent channels, W speech
tokens of a latent frame, A speech channels, P channel pairs (half the width).

A clip is the ID latent in front (slot 0) and the moving latent frames behind it (slots 1, 2, ...), 13 in all where the
model was trained: `CLIP_CHUNKS` chunks of 3. Moving latent frames all see each other and the ID latent, each at a noise
level of its own. The ID latent sees itself alone, as in the ID-Context cache: its keys and values belong to the avatar,
and a student that starts from the teacher's weights finds the sink that it learnt with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.attention import attend_heads
from visavis.models.id_context import IsolatedMemory, Sink
from visavis.models.rotary import rotate, rotation

# Segments of the teacher's clip (C.6.1: K = 4), each a chunk; the first one is counted with the ID latent there.
CLIP_CHUNKS: Final = 4


class ClipMemory:
    """Every moving latent frame attends to the ID latent and to all moving ones. Safe for gradients.

    `sink_keys` and `sink_values` have one entry a block, `[R, N, D]`, keys turned to slot 0. Keeps nothing of a pass,
    so one memory serves all passes of the same ID latents.
    """

    def __init__(
        self, sink_keys: Sequence[torch.Tensor], sink_values: Sequence[torch.Tensor], rotation_NP: torch.Tensor
    ) -> None:
        self._sink_keys, self._sink_values = sink_keys, sink_values
        self._rotation_N1P = rotation_NP[:, None]

    @classmethod
    def of_sinks(cls, sinks: Sequence[Sink], rotation_NP: torch.Tensor) -> ClipMemory:
        """One row a sink."""
        keys_LRND = torch.stack([sink.keys_LND for sink in sinks], dim=1)
        values_LRND = torch.stack([sink.values_LND for sink in sinks], dim=1)
        return cls(keys_LRND.unbind(), values_LRND.unbind(), rotation_NP)

    def part(self, rows: slice) -> ClipMemory:
        """The memory of some of the rows."""
        keys, values = ([sink_RND[rows] for sink_RND in parts] for parts in (self._sink_keys, self._sink_values))
        return ClipMemory(keys, values, self._rotation_N1P[:, 0])

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Attention to the whole clip."""
        queries_RND, keys_RND = rotate(queries_keys_RN2D, self._rotation_N1P).unbind(2)
        keys_RKD = torch.cat([self._sink_keys[block], keys_RND], dim=1)
        values_RKD = torch.cat([self._sink_values[block], values_RND], dim=1)
        return attend_heads(queries_RND, keys_RKD, values_RKD, heads)

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Nothing outlives the pass."""


def clip_rotation(latent_frames: int, rows: int, columns: int, width: int, device: torch.device) -> torch.Tensor:
    """Rotations `[N, P]` of a clip's moving latent frames: slots 1 to `latent_frames`."""
    return rotation(range(1, 1 + latent_frames), rows, columns, width).to(device)


def forward_clip(
    transformer: A2VTransformer,
    portrait_BHWC: torch.Tensor,
    latents_BTHWC: torch.Tensor,
    timesteps_BT: torch.Tensor,
    speech_BTWA: torch.Tensor,
    *,
    has_speech_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Velocities of the moving latent frames, shaped as the latents: what the teacher's training uses.

    `timesteps_BT` (0 to 1,000) is one value a latent frame, so noise may be asynchronous (Eq. 15; its leading 0, the
    ID latent's, is understood). A zero portrait drops the identity, a zero in `has_speech_B` the speech of that clip.
    """
    clips, frames, rows, columns, _ = latents_BTHWC.shape
    device = latents_BTHWC.device
    text = transformer.encode_text()
    modulation = transformer.modulate(torch.cat([timesteps_BT.new_zeros(1), timesteps_BT.flatten()]))

    sink = IsolatedMemory(rotation(range(1), rows, columns, transformer.width).to(device))
    at_zero = torch.zeros(1, 1, dtype=torch.long, device=device)
    transformer.remember(portrait_BHWC[:, None], modulation.select(at_zero), sink, text=text)

    memory = ClipMemory(sink.keys, sink.values, clip_rotation(frames, rows, columns, transformer.width, device))
    own = torch.arange(1, 1 + clips * frames, device=device).view(clips, frames)
    speech = transformer.fold_speech(speech_BTWA)
    if has_speech_B is not None:
        speech = [part.heard_where(has_speech_B) for part in speech]
    velocities_BTHWC: torch.Tensor = transformer(latents_BTHWC, modulation.select(own), memory, speech, text)
    return velocities_BTHWC
