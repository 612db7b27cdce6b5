"""Which vertices of the base mesh are lips and eyes: those that the matching face actions move.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.training.data.body import BODY_VERTICES, Body
from visavis.training.data.makehuman import UP_AXIS, Floats, Indices

# Where the lips meet in the middle, on the base mesh `hm08`.
UPPER_LIP_VERTEX = 520
LOWER_LIP_VERTEX = 523


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Base mesh vertices of the lips' red, and of the lids of the person's left and right eye."""

    mouth: Indices
    left_eye: Indices
    right_eye: Indices


def find_landmarks(body: Body) -> Landmarks:
    """Finds them by how far rolling the lips and blinking move them."""
    lips = np.union1d(_moved(body, "mouthRollLower", 0.6), _moved(body, "mouthRollUpper", 0.6))
    return Landmarks(lips, _moved(body, "eyeBlinkLeft", 0.15), _moved(body, "eyeBlinkRight", 0.15))


def lip_gap(vertices_FV3: Floats) -> Floats:
    """How far the lips are apart in the middle, in metres [F], for vertices [F, V, 3] of the base mesh."""
    return np.asarray(vertices_FV3[:, UPPER_LIP_VERTEX, UP_AXIS] - vertices_FV3[:, LOWER_LIP_VERTEX, UP_AXIS])


def _moved(body: Body, action: str, share: float) -> Indices:
    offsets_V3 = body.offsets_AV3[body.actions.index(action), :BODY_VERTICES]
    way_V = np.linalg.norm(offsets_V3, axis=1)
    return np.flatnonzero(way_V > share * way_V.max())
