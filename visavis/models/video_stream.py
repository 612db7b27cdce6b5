"""The states of a video stream: what an encoder or a decoder carries from one chunk to the next.

States are immutable and explicit; giving the same state twice gives the same result twice. In every tensor the first
dimension is the batch, so the sessions of one model can share a pass: `join` puts rows together, `split` takes them
apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from visavis.models.batch_rows import join_rows, split_rows


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
        if len(states) == 1:
            return states[0]
        return cls(
            caches=join_rows([state.caches for state in states]), noise=join_rows([state.noise for state in states])
        )

    def split(self) -> tuple["DecoderState", ...]:
        """One state for each batch row, with memory of its own."""
        count = len(self.caches)
        return tuple(
            DecoderState(caches=tensors[:count], noise=tensors[count:])
            for tensors in split_rows(self.caches + self.noise)
        )

    def can_join(self, other: "DecoderState") -> bool:
        """Whether both fit into one batch: the same model, picture size and age."""
        return self._row_shapes() == other._row_shapes()

    def _row_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(tensor.shape[1:]) for tensor in self.caches + self.noise]
