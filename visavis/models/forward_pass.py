"""The arguments of one forward pass of the transformer over rows of several chunks, or of a whole clip.

Legend: R rows of the batch, T latent frames, H W latent rows and columns, C latent channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from visavis.models.a2v_dit import A2VTransformer, Modulation
from visavis.models.attention import FoldedSpeech, TextKeys
from visavis.models.full_attention import ClipMemory
from visavis.models.id_context import Window, Windows


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """The arguments of `A2VTransformer.forward`, all with the same rows."""

    latents_RTHWC: torch.Tensor
    modulation: Modulation
    memory: Window | Windows | ClipMemory
    speech: Sequence[FoldedSpeech]
    text: Sequence[TextKeys]

    def velocities(self, transformer: A2VTransformer) -> torch.Tensor:
        """The velocity of every row, shaped as the latents."""
        velocities_RTHWC: torch.Tensor = transformer(
            self.latents_RTHWC, self.modulation, self.memory, self.speech, self.text
        )
        return velocities_RTHWC

    def remember(self, transformer: A2VTransformer) -> None:
        """The pass for the sake of the memory alone."""
        transformer.remember(self.latents_RTHWC, self.modulation, self.memory, self.speech, self.text)

    def windows(self) -> list[tuple[int, Window]]:
        """The windows of its chunks, each with the first of its rows; none for a whole clip."""
        return [] if isinstance(self.memory, ClipMemory) else self.memory.by_first_row()

    def part(self, rows: slice) -> ForwardPass:
        """The same of some of the rows; what the memory takes is written where it would be."""
        return ForwardPass(
            self.latents_RTHWC[rows],
            self.modulation.part(rows),
            self.memory.part(rows),
            [speech.part(rows) for speech in self.speech],
            self.text,
        )

    def of_windows(self, wanted: Callable[[Window], bool]) -> ForwardPass:
        """The same of some of its chunks, in their order; the windows are the same objects. One at least is wanted."""
        chosen = [(first, window) for first, window in self.windows() if wanted(window)]
        runs: list[slice] = []
        for first, window in chosen:
            start = runs.pop().start if runs and runs[-1].stop == first else first
            runs.append(slice(start, first + window.rows))
        parts = [self.part(rows) for rows in runs]
        windows = [window for _, window in chosen]
        memory = windows[0] if len(windows) == 1 else Windows(windows)
        if len(parts) == 1:
            return replace(parts[0], memory=memory)
        modulation = Modulation(
            torch.cat([part.modulation.blocks for part in parts], dim=1),
            torch.cat([part.modulation.output for part in parts]),
            torch.cat([part.modulation.levels for part in parts]),
        )
        speech = [FoldedSpeech.concatenate(list(each)) for each in zip(*(part.speech for part in parts), strict=True)]
        latents_RTHWC = torch.cat([part.latents_RTHWC for part in parts])
        return ForwardPass(latents_RTHWC, modulation, memory, speech, self.text)
