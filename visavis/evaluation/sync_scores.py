"""How well pictures fit speech, from the embeddings of both: SyncNet's arithmetic (Chung and Zisserman, 2016).

T windows one frame apart, D channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Frames by which speech is tried earlier and later.
MOST_SHIFT = 15


@dataclass(frozen=True, slots=True)
class SyncScores:
    """Of one clip.

    `distance`: at the best offset, mean over windows. `confidence`: how far below the median of all offsets that is.
    `offset_frames`: syncnet_python's AV offset, positive where the speech that fits comes before its picture.
    """

    confidence: float
    distance: float
    offset_frames: int


def sync_scores(pictures_TD: Tensor, speech_TD: Tensor, most_shift: int = MOST_SHIFT) -> SyncScores:
    """Beyond its ends the speech is zeros, which count like all else. Raises ValueError for different shapes."""
    if pictures_TD.shape != speech_TD.shape or pictures_TD.ndim != 2 or not len(pictures_TD):
        raise ValueError(f"cannot compare {list(pictures_TD.shape)} with {list(speech_TD.shape)}")
    padded = functional.pad(speech_TD, (0, 0, most_shift, most_shift))
    by_shift = [
        functional.pairwise_distance(pictures_TD, padded[shift : shift + len(pictures_TD)]).mean()
        for shift in range(2 * most_shift + 1)
    ]
    distances = torch.stack(by_shift)
    least, place = distances.min(dim=0)
    return SyncScores(float(distances.median() - least), float(least), most_shift - int(place))
