"""A network that says who a face is: vectors of the same person lie near each other. Ours, small, named as such.

N faces, K pixels of a cut-out's side (`face_crops.FACE`), C channels, D embedding
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 8
_AT_ONCE = 64


class FaceEmbedder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Faces [N, 3, K, K] from 0 to 1 -> vectors [N, D] of length 1."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192), embedding: int = 128) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, padding=1), nn.GroupNorm(_GROUPS, after), nn.SiLU()]
            layers += [_Residual(after)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], embedding)

    def forward(self, faces_N3KK: Tensor) -> Tensor:
        hidden_NC = self.body(faces_N3KK * 2 - 1).mean(dim=(2, 3))
        return functional.normalize(self.head(hidden_NC), dim=1)

    @torch.no_grad()
    def embed(self, faces_NKK3: npt.NDArray[np.uint8]) -> Tensor:
        """Of cut-outs in 8 bits, [N, D] on the CPU."""
        pictures = torch.from_numpy(np.ascontiguousarray(faces_NKK3.transpose(0, 3, 1, 2)))
        parts = [self(part.to(self.device).float() / 255).cpu() for part in pictures.split(_AT_ONCE)]
        return torch.cat(parts)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, channels)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return hidden_NCHW + functional.silu(self.norm(self.conv(hidden_NCHW)))
