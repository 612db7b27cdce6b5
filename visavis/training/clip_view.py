"""What a training step sees of a clip: a square of its pictures, perhaps turned, nearer, in other colours, backwards.

A few hundred people are learnt by heart within an hour of two cores otherwise (docs/training.md).

Legend: F frames, C channels, H W picture, M masks, K side of the square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Deviations of a varied clip: the zoom's logarithm and degrees are spread evenly up to these, the others normal.
_ZOOM: Final = 0.25
_DEGREES: Final = 8.0
_COLOURS_MIXED: Final = 0.12
_LIGHT: Final = 0.24


@dataclass(frozen=True, slots=True)
class ClipView:
    """The same for all frames of a clip.

    to_picture_23: from the square to the picture, both from -1 to 1. colours_33 and light: what becomes of [-1, 1].
    """

    side: int
    to_picture_23: Tensor
    backwards: bool
    colours_33: Tensor
    light: float

    def cut(self, rows: int, columns: int) -> tuple[slice, slice, ClipView]:
        """Rows and columns that it sees of pictures of this size, and the same view of these alone."""
        corners_33 = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
        sizes = torch.tensor([columns, rows])
        # In pixels, with two more all around: for rounding, and for what lies between pixels.
        places_2N = ((self.to_picture_23 @ corners_33).add(1.0) * sizes[:, None] / 2).round()
        first = (places_2N.min(dim=1).values - 2).int().clamp(min=0).minimum(sizes - 1)
        end = (places_2N.max(dim=1).values + 2).int().clamp(min=1).minimum(sizes).maximum(first + 1)
        scale = sizes / (end - first)
        moved_23 = self.to_picture_23 * scale[:, None]
        moved_23[:, 2] += scale - 2 * first / (end - first) - 1
        (left, top), (right, bottom) = first.tolist(), end.tolist()
        return slice(top, bottom), slice(left, right), replace(self, to_picture_23=moved_23)

    def of(self, pictures_F3HW: Tensor, masks_MFHW: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1] and masks -> those of the square [F, 3, K, K] and [M, F, K, K].

        Beyond the picture its border goes on.
        """
        clip_FCHW = torch.cat([pictures_F3HW, masks_MFHW.transpose(0, 1)], dim=1)
        if self.backwards:
            clip_FCHW = clip_FCHW.flip(0)
        affine_123 = self.to_picture_23[None].to(clip_FCHW)
        grid_1KK2 = F.affine_grid(affine_123, [1, 1, self.side, self.side], align_corners=False)
        grid_FKK2 = grid_1KK2.expand(len(clip_FCHW), -1, -1, -1)
        square_FCKK = F.grid_sample(clip_FCHW, grid_FKK2, padding_mode="border", align_corners=False)
        pictures_F3KK = torch.einsum("fchw,dc->fdhw", square_FCKK[:, :3], self.colours_33.to(clip_FCHW)) + self.light
        return pictures_F3KK.clamp(-1.0, 1.0), square_FCKK[:, 3:].transpose(0, 1)


def draw_view(
    side: int, size: tuple[int, int], mouth: tuple[float, float] | None, *, varied: bool, chance: np.random.Generator
) -> ClipView:
    """A square of `side` pixels anywhere in pictures of `size` (rows, columns), half of them mirrored.

    With `mouth` (column, row) it holds that point, not always in its middle. `varied`: also the rest of a view.
    """
    rows, columns = size
    left, top = int(chance.integers(columns - side + 1)), int(chance.integers(rows - side + 1))
    if mouth is not None:
        corner = np.array(mouth) - side * chance.uniform(0.3, 0.7, size=2)
        left, top = (int(np.clip(value, 0, end - side)) for value, end in zip(corner, (columns, rows), strict=True))
    zoom, angle = (chance.uniform(-most, most) if varied else 0.0 for most in (_ZOOM, math.radians(_DEGREES)))
    across, down = math.exp(zoom) * side / columns, math.exp(zoom) * side / rows
    mirrored = -1.0 if chance.random() < 0.5 else 1.0
    to_picture_23 = torch.tensor(
        [
            [mirrored * across * math.cos(angle), -across * math.sin(angle), (2 * left + side) / columns - 1],
            [mirrored * down * math.sin(angle), down * math.cos(angle), (2 * top + side) / rows - 1],
        ]
    )
    mixed = _COLOURS_MIXED * chance.normal(size=(3, 3)) if varied else np.zeros((3, 3))
    return ClipView(
        side=side,
        to_picture_23=to_picture_23,
        backwards=varied and bool(chance.random() < 0.5),
        colours_33=torch.from_numpy(np.eye(3) + mixed).float(),
        light=_LIGHT * float(chance.normal()) if varied else 0.0,
    )
