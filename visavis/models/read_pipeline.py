"""READ in one process: the non-streaming sibling of REST, with the parts and the interface of `RestPipeline`.

Legend: T latent frames, H W latent rows and columns, C latent channels, W speech tokens of a latent frame, D speech
channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from visavis.models import checkpoints
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.full_attention import CLIP_CHUNKS
from visavis.models.generation import SamplingPlan
from visavis.models.pipeline import TalkingPipeline
from visavis.models.presets import Preset
from visavis.models.read_generation import generate_rolling
from visavis.models.shipped_weights import ShippedPart, read_parts


class ReadPipeline(TalkingPipeline):
    """READ: a window over four chunks of speech, with full attention (docs/decisions/0014-reads-window.md).

    A preset's transformer is its teacher. In `stream`, a chunk comes when the three after it were heard, or the speech
    has ended; memory does not grow with the speech. `cache_source` of the settings means nothing here: there is no
    cache.
    """

    chunks_at_once = CLIP_CHUNKS

    @classmethod
    def shipped_parts(cls, preset: str) -> tuple[ShippedPart, ...]:
        """Implements `TalkingPipeline`."""
        return read_parts(preset)

    @classmethod
    def load_transformer(
        cls, settings: Preset, folder: Path | None, dtype: torch.dtype, sampling: str
    ) -> tuple[A2VTransformer, Preset]:
        """Implements `TalkingPipeline`."""
        if sampling != "standard":
            raise ValueError(f"READ samples standard alone, not {sampling!r}")
        return checkpoints.load_transformer(settings, folder, dtype, "teacher"), settings

    def generate(
        self, speech_latents: Iterator[torch.Tensor], portrait_latent_THWC: torch.Tensor, seed: int, plan: SamplingPlan
    ) -> Iterator[torch.Tensor]:
        """Implements `TalkingPipeline`."""
        return generate_rolling(speech_latents, portrait_latent_THWC, seed, plan)
