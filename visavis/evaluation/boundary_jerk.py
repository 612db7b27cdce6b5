"""Whether a face jerks where one chunk ends and the next begins.

F frames without the portrait, so chunk i has frames 24 (i - 1) to 24 i - 1; N points
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.contract import CHUNK_FRAMES
from visavis.evaluation.lip_motion import face_heights
from visavis.evaluation.seams import FrameChanges
from visavis.training.data.footage.detectors import Faces

# A third difference spans so many frames.
_SPAN = 4


def jerk(faces: Faces) -> npt.NDArray[np.float64]:
    """The third difference of the landmarks from each frame to three frames later, [F - 3].

    Mean over the points, in face heights per frame cubed; NaN where a frame has no face.
    """
    heights_F11 = face_heights(faces)[:, None, None]
    third_FN2 = np.diff(faces.landmarks_FN2.astype(np.float64) / heights_F11, n=3, axis=0)
    jerk_F: npt.NDArray[np.float64] = np.linalg.norm(third_FN2, axis=-1).mean(axis=-1)
    return jerk_F


def boundary_jerk(faces: Faces) -> FrameChanges | None:
    """Mean jerk over spans across chunk borders, and over the others; `seams.seam` compares clips by it.

    None where no border or nothing else was seen.
    """
    jerk_F = jerk(faces)
    # The first frame of a span that ends in the next chunk is one of the last three of its own.
    across_F = np.arange(len(jerk_F)) % CHUNK_FRAMES > CHUNK_FRAMES - _SPAN
    known_F = np.isfinite(jerk_F)
    if not (known_F & across_F).any() or not (known_F & ~across_F).any():
        return None
    return FrameChanges(float(jerk_F[known_F & across_F].mean()), float(jerk_F[known_F & ~across_F].mean()))
