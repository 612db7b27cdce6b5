"""A picture to look at while a training runs: originals above, reconstructions below, then both mouths from near."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from torch import Tensor

from visavis.training.frame_cache import Pixels, Singles

_PEOPLE: Final = 8

# original and decoded picture [3, H, W] in [-1, 1], and the mouth's ellipse
Shown = tuple[Tensor, Tensor, Singles]


def draw_sample_sheet(shown: Sequence[Shown], path: Path) -> None:
    """Draws the first eight to a PNG."""
    columns = [_column(*one) for one in shown[:_PEOPLE]]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def _column(original: Tensor, decoded: Tensor, mouth_E4: Singles) -> Pixels:
    pictures = [_pixels(picture) for picture in (original, decoded)]
    return np.concatenate([*pictures, *(_near(picture, mouth_E4) for picture in pictures)], axis=0)


def _pixels(picture_3HW: Tensor) -> Pixels:
    return ((picture_3HW.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).numpy()


def _near(picture: Pixels, mouth_E4: Singles) -> Pixels:
    """The mouth, so large that its box is as wide as the picture."""
    size = len(picture)
    x, y, half_width, _ = mouth_E4 * size
    box = (x - half_width, y - 0.75 * half_width, x + half_width, y + 0.75 * half_width)
    near = Image.fromarray(picture).resize((size, 3 * size // 4), Image.Resampling.BICUBIC, box=_inside(box, size))
    return np.asarray(near)


def _inside(box: tuple[float, float, float, float], size: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = (min(max(float(edge), 0.0), float(size)) for edge in box)
    return left, top, max(right, left + 1.0), max(bottom, top + 1.0)
