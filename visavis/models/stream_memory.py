"""What the causal layers of one network remember between two chunks of a stream.

A forward pass is the same code for a whole clip and for one chunk of a stream: each causal layer asks the memory for
the steps that came before. The memory hands the kept steps out in the order in which the layers run and collects the
new ones in the same order, so the state of a stream is a plain tuple of tensors, batch dimension first.
"""

import torch
from torch import Tensor


class StreamMemory:
    """Lives for one forward pass: reads the state of the last pass, writes the state for the next one."""

    def __init__(self, past: tuple[Tensor, ...] | None, *, recording: bool) -> None:
        self._past = past
        self._recording = recording
        self._reads = 0
        self._kept: list[Tensor] = []

    @classmethod
    def of_whole_clip(cls) -> "StreamMemory":
        """A pass over a whole clip: starts with its first frame and keeps nothing."""
        return cls(None, recording=False)

    @classmethod
    def at_first_frame(cls) -> "StreamMemory":
        """The first pass of a stream."""
        return cls(None, recording=True)

    @classmethod
    def after(cls, caches: tuple[Tensor, ...]) -> "StreamMemory":
        """A pass that continues the stream whose state is `caches`; the tensors are read, never written."""
        return cls(caches, recording=True)

    @property
    def starts_clip(self) -> bool:
        """Whether the first step of this pass is the first frame of the clip."""
        return self._past is None

    def extend(self, steps: Tensor, *, dim: int, padding: int, kept: int) -> Tensor:
        """`steps` with the steps before them in front, along dimension `dim`.

        At the start of a clip these are `padding` copies of the first step; later the `kept` steps that the last
        pass left here. The last `kept` steps of the result are remembered for the next pass.
        """
        before = self._first_step_repeated(steps, dim, padding) if self._past is None else self._next_past(steps, dim)
        extended = torch.cat([before, steps], dim=dim)
        if self._recording:
            self._kept.append(extended.narrow(dim, extended.shape[dim] - kept, kept).clone())
        return extended

    def caches(self) -> tuple[Tensor, ...]:
        """The state after this pass. Raises `ValueError` when the state read came from another network."""
        if self._past is not None and self._reads != len(self._past):
            raise ValueError(f"the stream's state has {len(self._past)} caches, this network uses {self._reads}")
        return tuple(self._kept)

    @staticmethod
    def _first_step_repeated(steps: Tensor, dim: int, padding: int) -> Tensor:
        shape = list(steps.shape)
        shape[dim] = padding
        return steps.narrow(dim, 0, 1).expand(shape)

    def _next_past(self, steps: Tensor, dim: int) -> Tensor:
        assert self._past is not None
        if self._reads >= len(self._past):
            raise ValueError(f"the stream's state has only {len(self._past)} caches, this network needs more")
        past = self._past[self._reads]
        self._reads += 1
        if _shape_without(past, dim) != _shape_without(steps, dim):
            raise ValueError(
                f"the stream's state does not fit: it holds {list(past.shape)}, the chunk brings {list(steps.shape)}"
            )
        return past


def _shape_without(tensor: Tensor, dim: int) -> list[int]:
    return [size for index, size in enumerate(tensor.shape) if index != dim]
