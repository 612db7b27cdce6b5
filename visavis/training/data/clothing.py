"""Paints a shirt onto a skin texture, so that its collar is as sharp as the texture, whatever the mesh."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import LinearNDInterpolator

from visavis.training.data.makehuman import UP_AXIS, Floats, QuadMesh
from visavis.training.data.people import Colour

_NECKLINE_RISE = 1.8  # 1 / metre: the neckline rises with the square of the distance from the middle


def paint_shirt(
    texture: npt.NDArray[np.uint8], mesh: QuadMesh, vertices: Floats, collar_height: float, colour: Colour
) -> npt.NDArray[np.uint8]:
    """Colours every texel [R, C, 3 or 4] whose place on the body lies below the neckline.

    `collar_height` is the neckline's lowest point in metres (z, up); vertices [V, 3] are the neutral body.
    """
    depth_V = collar_height + _NECKLINE_RISE * vertices[:, 0] ** 2 - vertices[:, UP_AXIS]
    near_Q = np.abs(depth_V[mesh.corners_Q4]).min(axis=1) < 0.25
    corners = mesh.corners_Q4[near_Q].ravel()
    coordinates = mesh.texture_coordinates[mesh.texture_corners_Q4[near_Q].ravel()]
    coordinates, first = np.unique(coordinates, axis=0, return_index=True)
    rows, columns = texture.shape[:2]
    below = LinearNDInterpolator(coordinates, depth_V[corners[first]], fill_value=-1.0)
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns, 1 - (np.arange(rows) + 0.5) / rows)
    # one texel is about 1 mm on the chest: blend over 2 mm
    cover = np.clip(below(u, v) / 0.002 + 0.5, 0, 1)[..., None]
    painted = texture.copy()
    cloth = np.array(colour) * 255
    painted[..., :3] = np.rint(texture[..., :3] * (1 - cover) + cloth * cover).astype(np.uint8)
    return painted
