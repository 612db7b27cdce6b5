"""The Inception network of FID: TensorFlow's of 2015, in the layout of pytorch-fid's weights.

It differs from torchvision's Inception v3 in its average pools, which leave the padding out, and in the last block,
which takes the maximum (Seitzer, 2020). Table-driven: a block is a list of branches, a branch a chain of layers.

N pictures, H W rows and columns
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.originals.weight_files import fill, read_state

CHANNELS: Final = 2048
SIZE: Final = 299
_NORM_EPSILON: Final = 1e-3
# Its classifier.
_UNUSED: Final = ("fc.",)

# Channels in and out, kernel, stride, padding.
_Layer = tuple[int, int, tuple[int, int], int, tuple[int, int]]
# A name is a layer, a tuple of names a fork whose ends are joined, a function a pool.
_Step = str | tuple[str, ...] | Callable[[Tensor], Tensor]


class _Convolution(nn.Module):
    def __init__(self, layer: _Layer) -> None:
        super().__init__()
        before, after, kernel, stride, padding = layer
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=_NORM_EPSILON)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(hidden)), inplace=True)


class _Block(nn.Module):
    """Branches side by side, joined along the channels."""

    def __init__(self, layers: dict[str, _Layer], branches: Sequence[Sequence[_Step]]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, _Convolution(layer))
        self._branches = branches

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([self._run(branch, hidden) for branch in self._branches], dim=1)

    def _run(self, branch: Sequence[_Step], hidden: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, str):
                hidden = self.get_submodule(step)(hidden)
            elif isinstance(step, tuple):
                hidden = torch.cat([self.get_submodule(name)(hidden) for name in step], dim=1)
            else:
                hidden = step(hidden)
        return hidden


class FidInception(nn.Module):
    """Pictures [N, 3, H, W] from 0 to 1 -> features [N, 2048] (the last average pool)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(_layer(3, 32, 3, stride=2))
        self.Conv2d_2a_3x3 = _Convolution(_layer(32, 32, 3))
        self.Conv2d_2b_3x3 = _Convolution(_layer(32, 64, 3, padded=True))
        self.Conv2d_3b_1x1 = _Convolution(_layer(64, 80, 1))
        self.Conv2d_4a_3x3 = _Convolution(_layer(80, 192, 3))
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, _average)
        self.Mixed_7c = _block_e(2048, _highest)

    def forward(self, pictures_N3HW: Tensor) -> Tensor:
        resized = functional.interpolate(pictures_N3HW, (SIZE, SIZE), mode="bilinear", align_corners=False)
        hidden = 2 * resized - 1
        hidden = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(hidden)))
        hidden = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(hidden)))
        hidden = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(hidden))))
        hidden = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(hidden)))
        hidden = self.Mixed_6e(self.Mixed_6d(hidden))
        hidden = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(hidden)))
        features_ND: Tensor = hidden.mean(dim=(2, 3))
        return features_ND


def load_inception(path: Path) -> FidInception:
    """From `pt_inception-2015-12-05-6726825d.pth`. Raises EvaluationError."""
    network = FidInception()
    fill(network, read_state(path), path, _UNUSED)
    return network


def _halve(hidden: Tensor) -> Tensor:
    return functional.max_pool2d(hidden, 3, stride=2)


def _average(hidden: Tensor) -> Tensor:
    return functional.avg_pool2d(hidden, 3, stride=1, padding=1, count_include_pad=False)


def _highest(hidden: Tensor) -> Tensor:
    return functional.max_pool2d(hidden, 3, stride=1, padding=1)


def _layer(before: int, after: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = False) -> _Layer:
    """`padded`: the picture keeps its size."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    return before, after, (rows, columns), stride, (rows // 2, columns // 2) if padded else (0, 0)


def _block_a(channels: int, pooled: int) -> _Block:
    layers = {
        "branch1x1": _layer(channels, 64, 1),
        "branch5x5_1": _layer(channels, 48, 1),
        "branch5x5_2": _layer(48, 64, 5, padded=True),
        "branch3x3dbl_1": _layer(channels, 64, 1),
        "branch3x3dbl_2": _layer(64, 96, 3, padded=True),
        "branch3x3dbl_3": _layer(96, 96, 3, padded=True),
        "branch_pool": _layer(channels, pooled, 1),
    }
    doubled = [f"branch3x3dbl_{number}" for number in (1, 2, 3)]
    return _Block(layers, [["branch1x1"], ["branch5x5_1", "branch5x5_2"], doubled, [_average, "branch_pool"]])


def _block_b(channels: int) -> _Block:
    layers = {
        "branch3x3": _layer(channels, 384, 3, stride=2),
        "branch3x3dbl_1": _layer(channels, 64, 1),
        "branch3x3dbl_2": _layer(64, 96, 3, padded=True),
        "branch3x3dbl_3": _layer(96, 96, 3, stride=2),
    }
    return _Block(layers, [["branch3x3"], [f"branch3x3dbl_{number}" for number in (1, 2, 3)], [_halve]])


def _block_c(channels: int, narrow: int) -> _Block:
    across, down = (1, 7), (7, 1)
    layers = {
        "branch1x1": _layer(channels, 192, 1),
        "branch7x7_1": _layer(channels, narrow, 1),
        "branch7x7_2": _layer(narrow, narrow, across, padded=True),
        "branch7x7_3": _layer(narrow, 192, down, padded=True),
        "branch7x7dbl_1": _layer(channels, narrow, 1),
        "branch7x7dbl_2": _layer(narrow, narrow, down, padded=True),
        "branch7x7dbl_3": _layer(narrow, narrow, across, padded=True),
        "branch7x7dbl_4": _layer(narrow, narrow, down, padded=True),
        "branch7x7dbl_5": _layer(narrow, 192, across, padded=True),
        "branch_pool": _layer(channels, 192, 1),
    }
    single = [f"branch7x7_{number}" for number in (1, 2, 3)]
    doubled = [f"branch7x7dbl_{number}" for number in (1, 2, 3, 4, 5)]
    return _Block(layers, [["branch1x1"], single, doubled, [_average, "branch_pool"]])


def _block_d(channels: int) -> _Block:
    layers = {
        "branch3x3_1": _layer(channels, 192, 1),
        "branch3x3_2": _layer(192, 320, 3, stride=2),
        "branch7x7x3_1": _layer(channels, 192, 1),
        "branch7x7x3_2": _layer(192, 192, (1, 7), padded=True),
        "branch7x7x3_3": _layer(192, 192, (7, 1), padded=True),
        "branch7x7x3_4": _layer(192, 192, 3, stride=2),
    }
    long = [f"branch7x7x3_{number}" for number in (1, 2, 3, 4)]
    return _Block(layers, [["branch3x3_1", "branch3x3_2"], long, [_halve]])


def _block_e(channels: int, pool: Callable[[Tensor], Tensor]) -> _Block:
    layers = {
        "branch1x1": _layer(channels, 320, 1),
        "branch3x3_1": _layer(channels, 384, 1),
        "branch3x3_2a": _layer(384, 384, (1, 3), padded=True),
        "branch3x3_2b": _layer(384, 384, (3, 1), padded=True),
        "branch3x3dbl_1": _layer(channels, 448, 1),
        "branch3x3dbl_2": _layer(448, 384, 3, padded=True),
        "branch3x3dbl_3a": _layer(384, 384, (1, 3), padded=True),
        "branch3x3dbl_3b": _layer(384, 384, (3, 1), padded=True),
        "branch_pool": _layer(channels, 192, 1),
    }
    single: list[_Step] = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    doubled: list[_Step] = ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    return _Block(layers, [["branch1x1"], single, doubled, [pool, "branch_pool"]])
