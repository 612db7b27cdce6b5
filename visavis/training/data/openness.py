"""How much of the sky each vertex sees: what lies in a mouth, a nostril or under a chin is darker.

Legend: V vertices, T triangles, D directions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import warp as wp

from visavis.training.data.kernels import measure_openness
from visavis.training.data.makehuman import Floats, Indices
from visavis.training.data.texture import Singles

_DIRECTIONS = 64
_REACH = 0.12  # metres: farther things shade nothing
_START = 0.0015  # metres above the surface, so that a vertex is not hidden by its own triangles


def openness(points_V3: Floats, normals_V3: Floats, blockers_V3: Floats, blockers_T3: Indices) -> Singles:
    """The cosine-weighted share [V] of the hemisphere above each point that no blocking triangle hides within 12 cm."""
    mesh = wp.Mesh(
        points=_vectors(blockers_V3),
        indices=wp.array(blockers_T3.astype(np.int32).ravel(), dtype=wp.int32, device="cpu"),
    )
    result: Any = wp.zeros(len(points_V3), dtype=wp.float32, device="cpu")
    vectors = [_vectors(points_V3), _vectors(normals_V3), _vectors(_sphere(_DIRECTIONS))]
    inputs = [mesh.id, *vectors, _START, _REACH, result]
    wp.launch(measure_openness, dim=len(points_V3), inputs=inputs, device="cpu")
    return np.asarray(result.numpy().copy(), dtype=np.float32)


def _vectors(values_N3: Floats) -> Any:
    return wp.array(values_N3.astype(np.float32), dtype=wp.vec3, device="cpu")


def _sphere(count: int) -> Floats:
    """Evenly spread directions [D, 3] (Fibonacci sphere): the same for every vertex, so that shade changes smoothly."""
    turn = math.pi * (3 - math.sqrt(5)) * np.arange(count)
    height = 1 - (2 * np.arange(count) + 1) / count
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
