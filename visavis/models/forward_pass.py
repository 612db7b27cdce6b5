"""One forward pass of the transformer over rows of several chunks, on one device or side by side on CPU cores.

Legend: R rows of the batch, T latent frames, H W latent rows and columns, C latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from visavis.models.a2v_dit import A2VTransformer, Modulation
from visavis.models.attention import FoldedSpeech, TextKeys
from visavis.models.id_context import Window, Windows
from visavis.models.row_threads import RowThreads


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """The arguments of `A2VTransformer.forward`, all with the same rows."""

    latents_RTHWC: torch.Tensor
    modulation: Modulation
    memory: Window | Windows
    speech: Sequence[FoldedSpeech]
    text: Sequence[TextKeys]

    def velocities(self, transformer: A2VTransformer, threads: RowThreads | None) -> torch.Tensor:
        """The velocity of every row, shaped as the latents."""
        if threads is None:
            return self._forward(transformer)
        return torch.cat(threads.run([partial(part._forward, transformer) for part in self._parts(threads)]))

    def remember(self, transformer: A2VTransformer, threads: RowThreads | None) -> None:
        """The pass for the sake of the memory alone."""
        if threads is None:
            self._remember(transformer)
        else:
            threads.run([partial(part._remember, transformer) for part in self._parts(threads)])

    def _forward(self, transformer: A2VTransformer) -> torch.Tensor:
        velocities_RTHWC: torch.Tensor = transformer(
            self.latents_RTHWC, self.modulation, self.memory, self.speech, self.text
        )
        return velocities_RTHWC

    def _remember(self, transformer: A2VTransformer) -> None:
        transformer.remember(self.latents_RTHWC, self.modulation, self.memory, self.speech, self.text)

    def _parts(self, threads: RowThreads) -> list[ForwardPass]:
        return [
            ForwardPass(
                self.latents_RTHWC[rows],
                self.modulation.part(rows),
                self.memory.part(rows),
                [speech.part(rows) for speech in self.speech],
                self.text,
            )
            for rows in threads.split(len(self.latents_RTHWC))
        ]
