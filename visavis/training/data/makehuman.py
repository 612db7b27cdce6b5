"""Reads MakeHuman assets: Wavefront meshes and the `.mhclo` fits that tie them to the base mesh `hm08`.

Legend: V vertices, Q quads, 3 axes. File axes are x right, y up, z front; anny's are x right, z up, -y front (metres).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

UP_AXIS = 2
FRONT_AXIS = 1
_OFFSET_AXES = {"x": 0, "y": UP_AXIS, "z": FRONT_AXIS}


class AssetError(ValueError):
    """An asset folder or file is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class QuadMesh:
    """Topology and texture coordinates of a mesh; triangles are quads whose last corner repeats."""

    corners_Q4: Indices
    texture_corners_Q4: Indices
    texture_coordinates: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """How every vertex of a worn mesh follows the base mesh (barycentric weights plus a scaled offset)."""

    mesh_path: Path
    base_vertices_V3: Indices
    weights_V3: Floats
    offsets_V3: Floats
    # axis letter -> (base vertex, base vertex, distance of the two in the mesh the asset was made on)
    scales: dict[str, tuple[int, int, float]]

    def place(self, base_vertices: Floats) -> Floats:
        """Vertices of the worn mesh on a body: [V_base, 3] -> [V, 3], in the axes of the body."""
        anchored = (base_vertices[self.base_vertices_V3] * self.weights_V3[..., None]).sum(axis=1)
        offsets = np.empty_like(anchored)
        for position, letter in enumerate("xyz"):
            axis = _OFFSET_AXES[letter]
            sign = -1.0 if letter == "z" else 1.0
            offsets[:, axis] = sign * self._scale(letter, base_vertices) * self.offsets_V3[:, position]
        return np.asarray(anchored + offsets, dtype=np.float64)

    def follow(self, offsets_AV3: Floats) -> Floats:
        """How the worn mesh moves when the body's vertices move by [A, V_base, 3]: [A, V, 3], its size unchanged."""
        return np.asarray((offsets_AV3[:, self.base_vertices_V3] * self.weights_V3[..., None]).sum(axis=2))

    def _scale(self, letter: str, base_vertices: Floats) -> float:
        if letter not in self.scales:
            return 1.0
        first, second, reference = self.scales[letter]
        axis = _OFFSET_AXES[letter]
        return abs(float(base_vertices[first, axis] - base_vertices[second, axis])) / reference


def read_mesh(path: Path) -> QuadMesh:
    """Reads topology and texture coordinates of a Wavefront file. Raises AssetError when it has no faces."""
    texture_coordinates: list[list[float]] = []
    corners: list[list[int]] = []
    texture_corners: list[list[int]] = []
    for line in _lines(path):
        fields = line.split()
        if not fields:
            continue
        if fields[0] == "vt":
            texture_coordinates.append([float(value) for value in fields[1:3]])
        elif fields[0] == "f":
            pairs = [corner.split("/") for corner in fields[1:5]]
            pairs += [pairs[-1]] * (4 - len(pairs))
            corners.append([int(pair[0]) - 1 for pair in pairs])
            texture_corners.append([int(pair[1]) - 1 if len(pair) > 1 and pair[1] else 0 for pair in pairs])
    if not corners:
        raise AssetError(f"{path.name} has no faces")
    return QuadMesh(np.array(corners), np.array(texture_corners), np.array(texture_coordinates, dtype=np.float32))


def read_fit(path: Path) -> Fit:
    """Reads an `.mhclo` file. Raises AssetError when it names no mesh or ties no vertex."""
    mesh_name = ""
    scales: dict[str, tuple[int, int, float]] = {}
    rows: list[tuple[list[int], list[float], list[float]]] = []
    in_vertices = False
    for line in _lines(path):
        fields = line.split()
        if not fields or fields[0] == "#":
            continue
        if fields[0] == "obj_file":
            mesh_name = fields[1]
        elif fields[0] in ("x_scale", "y_scale", "z_scale"):
            scales[fields[0][0]] = (int(fields[1]), int(fields[2]), float(fields[3]))
        elif fields[0] == "verts":
            in_vertices = True
        elif fields[0] == "delete_verts":
            break
        elif in_vertices and _is_number(fields[0]):
            rows.append(_vertex_row(fields))
    if not mesh_name or not rows:
        raise AssetError(f"{path.name} is not a complete .mhclo file")
    indices, weights, offsets = (np.array(column) for column in zip(*rows, strict=True))
    return Fit(path.parent / mesh_name, indices, weights, offsets, scales)


def _vertex_row(fields: list[str]) -> tuple[list[int], list[float], list[float]]:
    if len(fields) == 1:
        return [int(fields[0])] * 3, [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    offset = [float(value) for value in fields[6:9]] if len(fields) >= 9 else [0.0, 0.0, 0.0]
    return [int(value) for value in fields[:3]], [float(value) for value in fields[3:6]], offset


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise AssetError(f"cannot read asset {path.name}: {error.strerror}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
