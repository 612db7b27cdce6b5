"""Turns clips into the features whose Fréchet distances are FID, FVD and E-FID.

F frames, H W picture, N rows, D channels
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.frechet import fit_gaussian, frechet_distance
from visavis.evaluation.video_vae import as_pictures

Pictures = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]
# Pictures [F, H, W, 3] of a clip -> [N, D]
DescribesClip = Callable[[Pictures], Features]

_PICTURES_AT_ONCE: Final = 16
_I3D_SIZE: Final = 224
I3D_LEAST_FRAMES: Final = 10


@dataclass(slots=True)
class FrechetCollector:
    """Describes clips of two kinds; then the distance between them."""

    describe: DescribesClip
    _real: list[Features] = field(default_factory=list)
    _made: list[Features] = field(default_factory=list)

    def add(self, real_FHW3: Pictures, made_FHW3: Pictures) -> None:
        """One clip of each kind."""
        self._real.append(self.describe(real_FHW3))
        self._made.append(self.describe(made_FHW3))

    def distance(self) -> float:
        """Raises ValueError for less than two rows of each kind."""
        real, made = (np.concatenate(rows) if rows else np.zeros((0, 1)) for rows in (self._real, self._made))
        return frechet_distance(fit_gaussian(real), fit_gaussian(made))


def inception_features(network: nn.Module) -> DescribesClip:
    """FID's: a row of 2,048 for each frame, as pytorch-fid makes of pictures in files without loss."""

    @torch.no_grad()
    def describe(frames_FHW3: Pictures) -> Features:
        rows = [network(part) for part in as_pictures(frames_FHW3).split(_PICTURES_AT_ONCE)]
        return _rows(torch.cat(rows))

    return describe


def load_i3d(path: Path) -> torch.jit.ScriptModule:
    """From `i3d_torchscript.pt`, the network of StyleGAN-V's FVD. Raises EvaluationError."""
    try:
        network: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise EvaluationError(f"cannot read the network in {path}: {error}") from error
    return network.eval()


def i3d_features(network: Callable[..., Tensor]) -> DescribesClip:
    """FVD's: one row of 400 for a clip of 10 frames or more, as common_metrics_on_video_quality makes ("styleganv").

    All frames of a clip count; published figures are comparable at the same number of frames only.
    """

    @torch.no_grad()
    def describe(frames_FHW3: Pictures) -> Features:
        if len(frames_FHW3) < I3D_LEAST_FRAMES:
            raise ValueError(f"FVD takes clips of {I3D_LEAST_FRAMES} frames at least, not {len(frames_FHW3)}")
        video_3FHW = i3d_input(as_pictures(frames_FHW3))
        return _rows(network(x=video_3FHW[None], rescale=False, resize=False, return_features=True))

    return describe


def i3d_input(pictures_F3HW: Tensor) -> Tensor:
    """The shorter side becomes 224, the middle is cut out, 0 to 1 becomes -1 to 1: [3, F, 224, 224]."""
    rows, columns = pictures_F3HW.shape[2:]
    scale = _I3D_SIZE / min(rows, columns)
    size = tuple(_I3D_SIZE if side == min(rows, columns) else math.ceil(side * scale) for side in (rows, columns))
    resized = functional.interpolate(pictures_F3HW, size, mode="bilinear", align_corners=False)
    top, left = ((side - _I3D_SIZE) // 2 for side in size)
    middle = resized[:, :, top : top + _I3D_SIZE, left : left + _I3D_SIZE]
    return ((middle - 0.5) * 2).transpose(0, 1).contiguous()


def _rows(features: Tensor) -> Features:
    return np.asarray(features.double().cpu().numpy(), dtype=np.float64)
