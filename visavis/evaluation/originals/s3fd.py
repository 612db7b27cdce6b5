"""The face detector of syncnet_python: S3FD (Zhang et al., 2017), in the layout of its weights (`sfd_face.pth`).

H W picture, P places of all scales, N boxes
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.originals.resizing import resize_bilinear
from visavis.evaluation.originals.weight_files import fill, read_state

# Of a face in syncnet_python's pipeline, and the size at which it looks for faces.
LEAST_SCORE: Final = 0.9
SCALE: Final = 0.25
# Overlap above which a lower box goes, within one scale and then among all that are left.
_OVERLAPS: Final = (0.3, 0.1)
_VARIANCES: Final = (0.1, 0.2)
_MEAN_RGB: Final = (123.0, 117.0, 104.0)
# Layers of VGG after which faces of 16, 32, 64 and 128 pixels are looked for.
_TAPS: Final = (16, 23, 30, 35)
_STEPS: Final = (4, 8, 16, 32, 64, 128)
_TINY: Final = 1e-10

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class _Rescale(nn.Module):
    """Each place's channels get length 1, then a weight each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        length = hidden_NCHW.square().sum(dim=1, keepdim=True).sqrt() + _TINY
        return hidden_NCHW / length * self.weight[:, None, None]


class S3FD(nn.Module):
    """Pictures [1, 3, H, W], RGB without the mean -> boxes [P, 4] (left, top, right, bottom; 0 to 1) and scores [P]."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_vgg())
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = _Rescale(256), _Rescale(512), _Rescale(512)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, 2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, 2, padding=1),
            ]
        )
        channels = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList([nn.Conv2d(each, 4, 3, padding=1) for each in channels])
        # The smallest faces have three kinds of background, of which the likeliest counts.
        classes = (4, 2, 2, 2, 2, 2)
        self.conf = nn.ModuleList(
            [nn.Conv2d(each, count, 3, padding=1) for each, count in zip(channels, classes, strict=True)]
        )

    def forward(self, picture_13HW: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for scale, hidden in enumerate(self._scales(picture_13HW)):
            places = self.loc[scale](hidden)[0].permute(1, 2, 0)
            logits = self.conf[scale](hidden)[0]
            background, face = logits[:-1].amax(dim=0), logits[-1]
            scores.append(torch.stack([background, face]).softmax(dim=0)[1].flatten())
            boxes.append(_boxes(places, _STEPS[scale], picture_13HW.shape[2:]))
        return torch.cat(boxes), torch.cat(scores)

    def _scales(self, hidden: Tensor) -> list[Tensor]:
        found = []
        norms = (self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3, nn.Identity())
        for number, layer in enumerate(self.vgg, start=1):
            hidden = layer(hidden)
            if number in _TAPS:
                found.append(norms[_TAPS.index(number)](hidden))
        for number, layer in enumerate(self.extras):
            hidden = functional.relu(layer(hidden))
            if number % 2:
                found.append(hidden)
        return found


def load_s3fd(path: Path) -> S3FD:
    """From `sfd_face.pth`. Raises EvaluationError."""
    network = S3FD()
    fill(network, read_state(path), path)
    return network


@torch.no_grad()
def find_faces(network: S3FD, picture_HW3: Pictures) -> Floats:
    """Boxes [N, 4] in pixels of one RGB picture, the likeliest first."""
    height, width = picture_HW3.shape[:2]
    small = resize_bilinear(picture_HW3, round(height * SCALE), round(width * SCALE))
    pixels_3HW = torch.from_numpy(small).permute(2, 0, 1).float() - torch.tensor(_MEAN_RGB)[:, None, None]
    boxes_P4, scores_P = network(pixels_3HW[None])
    likely = scores_P > LEAST_SCORE
    boxes = (boxes_P4[likely] * torch.tensor([width, height, width, height])).double().numpy()
    boxes = boxes[np.argsort(-scores_P[likely].numpy(), kind="stable")]
    for overlap in _OVERLAPS:
        boxes = without_overlaps(boxes, overlap)
    return np.asarray(boxes, dtype=np.float64)


def without_overlaps(boxes_N4: Floats, most: float) -> Floats:
    """Goes through boxes in order and drops those that share more than `most` with one that is kept."""
    kept: list[Floats] = []
    for box in boxes_N4:
        if all(intersection_over_union(box, other) <= most for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def intersection_over_union(one: Floats, other: Floats) -> float:
    """Of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _boxes(offsets_HW4: Tensor, step: int, size: torch.Size) -> Tensor:
    """Offsets from a square of four steps around each place, as shares of the picture, [H W, 4]."""
    rows, columns = offsets_HW4.shape[:2]
    height, width = size
    y = ((torch.arange(rows) + 0.5) * step / height)[:, None].expand(rows, columns)
    x = ((torch.arange(columns) + 0.5) * step / width)[None].expand(rows, columns)
    sides = torch.tensor([4 * step / width, 4 * step / height])
    centres = torch.stack([x, y], dim=2) + offsets_HW4[..., :2] * _VARIANCES[0] * sides
    halves = sides * (offsets_HW4[..., 2:] * _VARIANCES[1]).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=2).flatten(0, 1)


def _vgg() -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for after, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=after == 256))
    return [*layers, nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
