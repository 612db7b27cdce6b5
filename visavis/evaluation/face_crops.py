"""Cuts faces and mouths out of a clip, upright squares of one size, for the networks that judge them.

Where they are comes from ellipses around eyes and mouth, which every clip of a data set has and landmarks give, too.

F frames, H W picture, E ellipses (mouth, left eye, right eye), K pixels of a cut-out's side
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from visavis.training.data.footage.detectors import Faces
from visavis.training.data.footage.face_track import Square, ellipses, fill_gaps

Pictures = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

# Against trembling; the head's own motion is slower.
_SMOOTHED_FRAMES: Final = 9
# Finer grid that is averaged, so that fine patterns do not become coarse ones.
_FINER: Final = 2


@dataclass(frozen=True, slots=True)
class CropPlace:
    """Where a cut-out lies, in units of the distance from between the eyes to the mouth."""

    # of its middle, down from between the eyes; of its side
    down: float
    side: float
    pixels: int


# From the brows to the chin, ears left out: what the shot and the hair are must not say who it is.
FACE: Final = CropPlace(down=0.45, side=2.0, pixels=72)
MOUTH: Final = CropPlace(down=1.0, side=1.3, pixels=48)


def ellipses_of(faces: Faces, size: int) -> Singles | None:
    """Mouth and eyes as shares of a picture of `size`, [F, 3, 4]; frames without a face take their neighbours'.

    None where no frame has a face.
    """
    if not faces.found_F.any():
        return None
    return ellipses(fill_gaps(faces.landmarks_FN2, faces.found_F), Square(0.0, 0.0, float(size)))


def cut_out(frames_FHW3: Pictures, ellipses_FE4: Singles, place: CropPlace) -> Pictures:
    """The squares at `place`, [F, K, K, 3]. Beyond the picture, its rim goes on.

    Middles are smoothed over nine frames, and the side is one for the whole clip.
    """
    eyes_F2 = _smoothed(ellipses_FE4[:, 1:, :2].mean(axis=1))
    mouth_F2 = _smoothed(ellipses_FE4[:, 0, :2])
    unit = float(np.median(np.linalg.norm(mouth_F2 - eyes_F2, axis=1)))
    middle_F2 = torch.from_numpy(eyes_F2 + place.down * (mouth_F2 - eyes_F2)).float()
    side = _FINER * place.pixels
    steps_K = ((torch.arange(side) + 0.5) / side - 0.5) * place.side * unit
    grid_KK2 = torch.stack(torch.meshgrid(steps_K, steps_K, indexing="xy"), dim=-1)
    grid_FKK2 = (middle_F2[:, None, None] + grid_KK2) * 2 - 1
    pictures = torch.from_numpy(np.ascontiguousarray(frames_FHW3.transpose(0, 3, 1, 2))).float()
    finer = functional.grid_sample(pictures, grid_FKK2, padding_mode="border", align_corners=False)
    cut: Tensor = functional.avg_pool2d(finer, _FINER).round().clamp(0, 255).byte()
    return np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())


def _smoothed(points_F2: Singles) -> npt.NDArray[np.float64]:
    """Running mean; at its ends the signal goes on as it is there."""
    half = _SMOOTHED_FRAMES // 2
    padded = np.pad(points_F2.astype(np.float64), ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED_FRAMES, axis=0)
    return np.asarray(windows.mean(axis=-1))
