"""Whether chunk borders show: how much pictures change across a border, beside how much they change elsewhere.

F frames; frame 0 is the portrait, chunk i has the frames 24 (i - 1) + 1 to 24 i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.contract import CHUNK_FRAMES
from visavis.evaluation.estimate import Estimate, Rows, estimate


@dataclass(frozen=True, slots=True)
class FrameChanges:
    """The mean change from one frame to the next, 0 to 1, across chunk borders and elsewhere, of one clip."""

    at_borders: float
    elsewhere: float


def frame_changes(pictures_F3HW: Tensor) -> FrameChanges:
    """Of a clip's pictures from 0 to 1. The portrait is not counted: it is never shown before a frame.

    Raises ValueError for a clip of one chunk, which has no border.
    """
    change_F = (pictures_F3HW[2:] - pictures_F3HW[1:-1]).abs().mean(dim=(1, 2, 3))
    # entry n is the change from frame n + 1 to frame n + 2
    border_F = (torch.arange(len(change_F)) + 1) % CHUNK_FRAMES == 0
    if not bool(border_F.any()):
        raise ValueError(f"{len(pictures_F3HW)} frames have no chunk border")
    return FrameChanges(float(change_F[border_F].mean()), float(change_F[~border_F].mean()))


def seam(originals: Sequence[FrameChanges], others: Sequence[FrameChanges]) -> Estimate:
    """How much more pictures change across borders than elsewhere, relative to the originals: 1 is no seam.

    People also move more at one time than at another; what the originals do at the same frames takes that out.
    """
    rows = [
        (one.at_borders, one.elsewhere, other.at_borders, other.elsewhere)
        for one, other in zip(originals, others, strict=True)
    ]
    return estimate(rows, _relative_change)


def _relative_change(rows: Rows) -> Rows:
    original_border, original_elsewhere, border, elsewhere = (rows[..., column].sum(axis=-1) for column in range(4))
    relative: Rows = (border / elsewhere) / (original_border / original_elsewhere)
    return relative
