"""The states of a video stream: what an encoder or a decoder carries from one chunk to the next.

States are immutable and explicit; giving the same state twice gives the same result twice. In every tensor the first
dimension is the batch, so the sessions of one model can share a pass: `join` puts rows together, `split` takes them
apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EncoderState:
    """The last steps that each causal convolution of a video encoder has seen."""

    caches: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class DecoderState:
    """What a video decoder remembers.

    `caches`: the last steps that each causal convolution has seen, in the order in which they run; for a decoder that
    is not causal, the last latent frames. `noise`: what the session injects, drawn once (empty where there is none).
    """

    caches: tuple[Tensor, ...]
    noise: tuple[Tensor, ...]

    @classmethod
    def join(cls, states: Sequence["DecoderState"]) -> "DecoderState":
        """One state whose batch rows are those of `states`, in order. `ValueError` when they do not fit together."""
        if not states:
            raise ValueError("no decoder states to join")
        return cls(
            caches=_join_rows([state.caches for state in states]), noise=_join_rows([state.noise for state in states])
        )

    def split(self) -> tuple["DecoderState", ...]:
        """One state for each batch row."""
        batch_size = (self.caches + self.noise)[0].shape[0]
        return tuple(
            DecoderState(
                caches=tuple(cache[row : row + 1] for cache in self.caches),
                noise=tuple(noise[row : row + 1] for noise in self.noise),
            )
            for row in range(batch_size)
        )


def _join_rows(columns: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    shapes = {tuple(tensor.shape[1:] for tensor in column) for column in columns}
    if len(shapes) != 1:
        raise ValueError("decoder states of different models, picture sizes or ages cannot share a batch")
    return tuple(torch.cat(rows) for rows in zip(*columns, strict=True))
