"""Which vertices of the base mesh are lips and eyes: those that the matching face actions move.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.training.data.body import BODY_VERTICES, Body
from visavis.training.data.makehuman import Indices


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


def _moved(body: Body, action: str, share: float) -> Indices:
    offsets_V3 = body.offsets_AV3[body.actions.index(action), :BODY_VERTICES]
    way_V = np.linalg.norm(offsets_V3, axis=1)
    return np.flatnonzero(way_V > share * way_V.max())
