"""Deep3DFaceRecon's network (Deng et al., 2019; PyTorch version), whose expression coefficients E-FID compares.

In the layout of its weights (`epoch_20.pth`), with the picture aligned as it was trained.

N pictures, H W rows and columns
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.originals.weight_files import fill, read_state

SIZE: Final = 224
EXPRESSIONS: Final = 64
# Identity, expression, texture, angles, light, shift across and up, shift to the camera.
_COEFFICIENTS: Final = (80, 64, 80, 3, 27, 2, 1)
# Pixels that the standard face's unit becomes.
_SCALE: Final = 102.0
_EXPANSION: Final = 4

Floats = npt.NDArray[np.float64]


class _Bottleneck(nn.Module):
    def __init__(self, before: int, narrow: int, stride: int) -> None:
        super().__init__()
        wide = narrow * _EXPANSION
        self.conv1 = nn.Conv2d(before, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        changes = stride != 1 or before != wide
        self.downsample = (
            nn.Sequential(nn.Conv2d(before, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)) if changes else None
        )

    def forward(self, hidden: Tensor) -> Tensor:
        kept = hidden if self.downsample is None else self.downsample(hidden)
        hidden = functional.relu(self.bn1(self.conv1(hidden)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        return functional.relu(self.bn3(self.conv3(hidden)) + kept)


class _ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for number, (narrow, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            layer = [_Bottleneck(before, narrow, 1 if number == 1 else 2)]
            before = narrow * _EXPANSION
            layer += [_Bottleneck(before, narrow, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))

    def forward(self, pictures_N3HW: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(pictures_N3HW)))
        hidden = functional.max_pool2d(hidden, 3, stride=2, padding=1)
        for number in range(1, 5):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return hidden.mean(dim=(2, 3), keepdim=True)


class FaceReconstruction(nn.Module):
    """Aligned pictures [N, 3, 224, 224], RGB from 0 to 1 -> all 257 coefficients [N, 257]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _ResNet50()
        self.final_layers = nn.ModuleList([nn.Conv2d(512 * _EXPANSION, count, 1) for count in _COEFFICIENTS])

    def forward(self, pictures_N3HW: Tensor) -> Tensor:
        hidden = self.backbone(pictures_N3HW)
        return torch.cat([layer(hidden) for layer in self.final_layers], dim=1).flatten(1)

    def expressions(self, pictures_N3HW: Tensor) -> Tensor:
        """[N, 64]."""
        first = _COEFFICIENTS[0]
        coefficients: Tensor = self(pictures_N3HW)
        return coefficients[:, first : first + EXPRESSIONS]


def load_reconstruction(path: Path) -> FaceReconstruction:
    """From `epoch_20.pth`, which has it under `net_recon`. Raises EvaluationError."""
    state = read_state(path)
    if "net_recon" not in state:
        raise EvaluationError(f"{path} has no net_recon: it is no checkpoint of Deep3DFaceRecon_pytorch")
    network = FaceReconstruction()
    fill(network, state["net_recon"], path)
    return network


def load_standard_face(path: Path) -> Floats:
    """Five points of a standard face in space, [5, 3]: the eyes, the nose's tip, the corners of the mouth.

    From `similarity_Lm3D_all.mat`, which has 68. Raises EvaluationError.
    """
    from scipy.io import loadmat

    try:
        points = np.asarray(loadmat(str(path))["lm"], dtype=np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise EvaluationError(f"cannot read the standard face in {path}: {error}") from error
    if points.shape != (68, 3):
        raise EvaluationError(f"{path} has points of shape {list(points.shape)}, not 68 in space")
    eyes = [points[[36, 39]].mean(axis=0), points[[42, 45]].mean(axis=0)]
    return np.stack([*eyes, points[30], points[48], points[54]])


def align(picture_HW3: npt.NDArray[np.uint8], points_52: Floats, standard_53: Floats) -> Tensor:
    """Scales and cuts out [3, 224, 224], RGB from 0 to 1, so that the five points lie as in the standard face.

    `points_52`: left eye in the picture, right eye, nose, left and right corner of the mouth, in pixels, y down.
    """
    height, width = picture_HW3.shape[:2]
    upright = np.stack([points_52[:, 0], height - 1 - points_52[:, 1]], axis=1)
    shift, scale = _pose(upright, standard_53)
    factor = _SCALE / scale
    columns, rows = int(width * factor), int(height * factor)
    left = int(columns / 2 - SIZE / 2 + (shift[0] - width / 2) * factor)
    top = int(rows / 2 - SIZE / 2 + (height / 2 - shift[1]) * factor)
    resized = Image.fromarray(picture_HW3).resize((columns, rows), Image.Resampling.BICUBIC)
    cut = resized.crop((left, top, left + SIZE, top + SIZE))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 255


def _pose(points_52: Floats, standard_53: Floats) -> tuple[Floats, float]:
    """Where a scaled orthographic projection puts the standard face's origin, and its scale, by least squares."""
    known = np.concatenate([standard_53, np.ones((len(standard_53), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(known, points_52, rcond=None)
    return solution[3], float(np.linalg.norm(solution[:3], axis=0).mean())
