"""PSNR over the frame, in the mouth and in the eyes: the mean over pictures, in decibels.

Legend: F frames, H W picture.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PictureErrors:
    """Collects errors clip by clip."""

    def __init__(self) -> None:
        self._decibels: dict[str, list[Tensor]] = {"psnr": [], "psnr_mouth": [], "psnr_eyes": []}

    def add(self, decoded_F3HW: Tensor, original_F3HW: Tensor, mouth_FHW: Tensor, eyes_FHW: Tensor) -> None:
        """Pictures in [-1, 1] and the shares of each pixel."""
        square = (decoded_F3HW - original_F3HW).square().mean(dim=1)
        everywhere = torch.ones_like(mouth_FHW)
        for name, share in zip(self._decibels, (everywhere, mouth_FHW, eyes_FHW), strict=True):
            area = share.sum(dim=(1, 2))
            mean = (square * share).sum(dim=(1, 2)) / area
            self._decibels[name].append((10 * torch.log10(4.0 / mean))[area > 0].cpu())

    def psnr(self) -> dict[str, float]:
        """The means over all pictures so far."""
        return {name: float(torch.cat(values).mean()) for name, values in self._decibels.items()}
