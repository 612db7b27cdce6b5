"""How much of the features' variance a reconstruction gives back.

X channels, G groups of neighbouring channels (Whisper's hidden states)
"""

from __future__ import annotations

import torch
from torch import Tensor


class ExplainedVariance:
    """Counts originals and reconstructions, any number at a time; then 1 - (squared error) / (squared deviation).

    Deviations are from each channel's own mean over everything counted. 1 is perfect; a reconstruction that always
    says the mean has 0.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum_X, self._power_X, self._error_X = torch.zeros(3, channels, dtype=torch.float64)

    def add(self, original: Tensor, reconstruction: Tensor) -> None:
        """Both [..., X]. Raises ValueError for shapes that differ."""
        if original.shape != reconstruction.shape or original.shape[-1] != self._sum_X.shape[0]:
            raise ValueError(f"cannot compare {list(original.shape)} with {list(reconstruction.shape)}")
        wide = original.double().flatten(0, -2).cpu()
        self._count += wide.shape[0]
        self._sum_X += wide.sum(dim=0)
        self._power_X += wide.square().sum(dim=0)
        self._error_X += (wide - reconstruction.double().flatten(0, -2).cpu()).square().sum(dim=0)

    def overall(self) -> float:
        """Of all channels together, as they are: what has more variance counts more."""
        return float(1 - self._error_X.sum() / self._deviation_X().sum())

    def of_groups(self, groups: int) -> tuple[float, ...]:
        """Of each of `groups` equal parts of the channels by itself."""
        error_G, deviation_G = (part.unflatten(0, (groups, -1)).sum(1) for part in (self._error_X, self._deviation_X()))
        return tuple((1 - error_G / deviation_G).tolist())

    def channel_mean(self) -> float:
        """The mean over channels of each one's own share: every channel counts the same, however small."""
        return float((1 - self._error_X / self._deviation_X()).mean())

    def _deviation_X(self) -> Tensor:
        if self._count == 0:
            raise ValueError("nothing was counted")
        deviation_X: Tensor = self._power_X - self._sum_X.square() / self._count
        return deviation_X
