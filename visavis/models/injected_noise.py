"""The noise that LTX-Video's decoders from 0.9.1 on inject, fixed for a session so that nothing flickers."""

import torch
from torch import Tensor


class InjectedNoise:
    """Lives for one forward pass: draws the session's noise in the order in which the layers run, or replays it.

    Drawn on the CPU in float32, so that the seed alone decides. A pass that draws gives every batch row the same noise;
    rows with noise of their own come from joined states.
    """

    def __init__(self, *, seed: int, drawn: tuple[Tensor, ...] | None = None) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = drawn
        self._used: list[Tensor] = []

    @classmethod
    def replayed(cls, drawn: tuple[Tensor, ...]) -> "InjectedNoise":
        """The noise of a stream that has begun."""
        return cls(seed=0, drawn=drawn)

    def next(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal noise [B, *shape] with the batch size, device and type of `like`."""
        if self._drawn is None:
            row = torch.randn(shape, generator=self._generator).to(like)
            noise = row.expand(like.shape[0], *shape).contiguous()
        else:
            noise = self._replay(shape)
        self._used.append(noise)
        return noise

    def used(self) -> tuple[Tensor, ...]:
        """All noise of this pass, for the state of the stream."""
        return tuple(self._used)

    def _replay(self, shape: tuple[int, ...]) -> Tensor:
        assert self._drawn is not None
        index = len(self._used)
        if index >= len(self._drawn) or tuple(self._drawn[index].shape[1:]) != shape:
            raise ValueError("the stream's noise was drawn for another network or picture size")
        return self._drawn[index]
