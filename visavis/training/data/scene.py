"""Everything that is drawn of a person: body, eyes, mouth, hair and clothes as one set of triangles.

Legend: V vertices, T triangles, Q quads, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from visavis.training.data.body import BODY_VERTICES, Body, Figure
from visavis.training.data.makehuman import FRONT_AXIS, UP_AXIS, Fit, Floats, Indices, QuadMesh, read_fit, read_mesh
from visavis.training.data.openness import openness
from visavis.training.data.people import Person
from visavis.training.data.shot import Shot
from visavis.training.data.texture import Colour, Singles, linear_colour, premultiplied, read_texture, recoloured
from visavis.training.data.wardrobe import Garment, Wardrobe

_SHOWN_BELOW_CROWN = 0.44  # metres of body that can be in the picture
_CLOTH_THICKNESS = 0.004
_NO_CLOTH = -1.0
_UPPER_TEETH_DOWN, _LOWER_TEETH_DOWN = 0.004, 0.0025
# Curls hide how its shells are cut only while they are all of one colour, and dull.
_DULL_HAIR = frozenset({"afro01"})
# v upwards to v downwards
_FLIP, _SHIFT = np.array([1, -1], dtype=np.float32), np.array([0, 1], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Look:
    """How a surface reflects light."""

    specular: float = 0.0
    shininess: float = 20.0
    wrap: float = 0.2
    tint: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Surface:
    """One mesh with one texture (linear, premultiplied). Texture coordinates [T, 3, 2] have v downwards."""

    figure: Figure
    corners_T3: Indices
    coordinates_T32: Singles
    texture: Singles
    blended: bool
    look: Look
    openness_V: Singles
    # metres that a vertex lies below the neckline; negative where the skin is bare
    cloth_V: Singles


@dataclass(frozen=True, slots=True)
class Scene:
    """A dressed person. The first surface is the body; `body_vertices` names its vertices on the base mesh."""

    surfaces: tuple[Surface, ...]
    body_vertices: Indices
    crown: float


def dress(person: Person, shot: Shot, wardrobe: Wardrobe, body: Body) -> Scene:
    """Puts a person together. Raises AssetError when the asset folder lacks a file."""
    figure = body.figure(person.phenotype)
    crown = float(figure.neutral_V3[:BODY_VERTICES, UP_AXIS].max())
    vertices, corners_T3, coordinates_T32 = _shown_body(body.mesh, figure, crown)
    shade = _shading(body, wardrobe)
    shown = Figure(figure.actions, figure.neutral_V3[vertices], figure.offsets_AV3[:, vertices])
    cloth_V = neckline_depth(shown.neutral_V3, crown, shot.neckline)
    skin = Surface(
        figure=_thickened(shown, corners_T3, cloth_V),
        corners_T3=corners_T3,
        coordinates_T32=coordinates_T32,
        texture=read_texture(wardrobe.skin_texture(person.skin)),
        blended=False,
        look=Look(specular=0.1, shininess=14, wrap=0.35, tint=person.skin_tone),
        openness_V=shade.body_V[vertices],
        cloth_V=cloth_V,
    )

    def worn(garment: Garment, look: Look, recolour: Callable[[Singles], Singles], least_open: float = 0.0) -> Surface:
        # brows and lashes lie in the open: measuring them, a mesh each, would only cost time
        share = 0.0 if least_open == 1 else shade.of(garment)
        return _worn(body, figure, garment, look, recolour, least_open + (1 - least_open) * share)

    def strands(opacity: float, contrast: float, darkness: float) -> Callable[[Singles], Singles]:
        red, green, blue = linear_colour(person.hair_colour)
        colour = (red * darkness, green * darkness, blue * darkness)
        return lambda texture: premultiplied(recoloured(texture, colour, contrast), opacity)

    teeth, tongue = wardrobe.mouth_garments()
    contrast, shine = (0.25, 0.02) if person.hair in _DULL_HAIR else (0.8, 0.12)
    hair = Look(specular=shine, shininess=18, wrap=0.4)
    surfaces = (
        skin,
        worn(
            wardrobe.eye_garment(person.eyes),
            Look(specular=0.7, shininess=120, wrap=0.3, tint=(0.95, 0.93, 0.92)),
            _as_it_is,
            0.35,
        ),
        _lowered(worn(teeth, Look(specular=0.25, shininess=40, wrap=0.5, tint=(1.1, 1.02, 0.9)), _as_it_is, 0.3)),
        worn(tongue, Look(specular=0.2, shininess=20, wrap=0.5), _as_it_is, 0.2),
        worn(wardrobe.eyelash_garment(person.eyelashes), Look(), premultiplied, 1.0),
        worn(wardrobe.eyebrow_garment(person.eyebrows), Look(wrap=0.4), strands(person.eyebrow_opacity, 0.3, 0.7), 1.0),
        worn(wardrobe.hair_garment(person.hair), hair, strands(1.2, contrast, 1.0), 0.45),
    )
    return Scene(surfaces, vertices, crown)


def neckline_depth(neutral_V3: Floats, crown: float, neckline: str) -> Singles:
    """How far below the neckline each vertex lies, in metres [V]."""
    beside = np.abs(neutral_V3[:, 0])
    below = crown - neutral_V3[:, UP_AXIS]
    depth = {
        "crew": below - 0.292 + 1.6 * beside**2,
        "wide": below - 0.315 + 2.2 * beside**2,
        "v": below - np.maximum(0.365 - 1.25 * beside, 0.29 - 0.3 * beside),
        "turtle": below - 0.262,
    }[neckline]
    # a collar lies higher at the back of the neck
    return np.asarray(depth + 0.22 * np.clip(neutral_V3[:, FRONT_AXIS] + 0.14, 0, 0.2), dtype=np.float32)


def surface_normals(vertices_V3: Floats, triangles_T3: Indices) -> Floats:
    """Unit normals [V, 3], weighted by the area of the triangles around each vertex."""
    first, second, third = (vertices_V3[triangles_T3[:, corner]] for corner in range(3))
    areas = np.cross(second - first, third - first)
    normals = np.zeros_like(vertices_V3)
    for corner in range(3):
        np.add.at(normals, triangles_T3[:, corner], areas)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12))


def triangulated(mesh: QuadMesh) -> tuple[Indices, Singles]:
    """Corners [T, 3] and texture coordinates [T, 3, 2] (v downwards) of the quads' triangles; empty ones left out."""
    corners = np.concatenate([mesh.corners_Q4[:, [0, 1, 2]], mesh.corners_Q4[:, [0, 2, 3]]])
    texture_corners = np.concatenate([mesh.texture_corners_Q4[:, [0, 1, 2]], mesh.texture_corners_Q4[:, [0, 2, 3]]])
    whole = corners[:, 1] != corners[:, 2]
    coordinates = mesh.texture_coordinates[texture_corners[whole]] * _FLIP + _SHIFT
    return corners[whole], np.asarray(coordinates, dtype=np.float32)


def _as_it_is(texture: Singles) -> Singles:
    return texture


def _shown_body(mesh: QuadMesh, figure: Figure, crown: float) -> tuple[Indices, Indices, Singles]:
    height_Q = figure.neutral_V3[mesh.corners_Q4][..., UP_AXIS].min(axis=1)
    shown_Q = (mesh.corners_Q4 < BODY_VERTICES).all(axis=1) & (height_Q > crown - _SHOWN_BELOW_CROWN)
    shown = QuadMesh(mesh.corners_Q4[shown_Q], mesh.texture_corners_Q4[shown_Q], mesh.texture_coordinates)
    corners_T3, coordinates_T32 = triangulated(shown)
    vertices, renumbered = np.unique(corners_T3, return_inverse=True)
    return vertices, renumbered.reshape(-1, 3), coordinates_T32


def _thickened(figure: Figure, corners_T3: Indices, cloth_V: Singles) -> Figure:
    """Cloth stands off the skin by a few millimetres."""
    thickness_V = _CLOTH_THICKNESS * np.clip(cloth_V / 0.006 + 0.5, 0, 1)
    lifted = figure.neutral_V3 + surface_normals(figure.neutral_V3, corners_T3) * thickness_V[:, None]
    return Figure(figure.actions, lifted, figure.offsets_AV3)


def _lowered(teeth: Surface) -> Surface:
    """Teeth a little lower: as they are fitted, an opening mouth shows the lower ones only."""
    figure = teeth.figure
    jaw_V3 = figure.offsets_AV3[figure.actions.index("jawOpen")]
    moved_by_jaw = np.abs(jaw_V3[:, UP_AXIS]) > 0.3 * max(float(np.abs(jaw_V3[:, UP_AXIS]).max()), 1e-9)
    lowered_V3 = figure.neutral_V3.copy()
    lowered_V3[:, UP_AXIS] -= np.where(moved_by_jaw, _LOWER_TEETH_DOWN, _UPPER_TEETH_DOWN)
    return replace(teeth, figure=Figure(figure.actions, lowered_V3, figure.offsets_AV3))


def _worn(
    body: Body,
    figure: Figure,
    garment: Garment,
    look: Look,
    recolour: Callable[[Singles], Singles],
    openness: Singles | float,
) -> Surface:
    fit = _fit(garment.fit)
    corners_T3, coordinates_T32 = _triangles(fit.mesh_path)
    neutral_V3 = fit.place(figure.neutral_V3)
    return Surface(
        figure=Figure(figure.actions, neutral_V3, _worn_offsets(garment.fit, body)),
        corners_T3=corners_T3,
        coordinates_T32=coordinates_T32,
        texture=recolour(read_texture(garment.texture)),
        blended=garment.transparent,
        look=look,
        openness_V=np.broadcast_to(np.asarray(openness, dtype=np.float32), len(neutral_V3)),
        cloth_V=np.full(len(neutral_V3), _NO_CLOTH, dtype=np.float32),
    )


@lru_cache(maxsize=64)
def _fit(path: Path) -> Fit:
    return read_fit(path)


@lru_cache(maxsize=64)
def _worn_offsets(path: Path, body: Body) -> Floats:
    """What each action adds to a worn mesh; the same for everyone, as the body's own offsets are."""
    return _fit(path).follow(body.offsets_AV3)


@lru_cache(maxsize=64)
def _triangles(path: Path) -> tuple[Indices, Singles]:
    return triangulated(read_mesh(path))


class _Shade:
    """How open to light the body and each garment are, measured once on an average person: all heads are alike enough.

    Lips and lids move, so a vertex takes the more open of two poses: at rest, and eyes shut with the mouth open.
    """

    def __init__(self, body: Body, wardrobe: Wardrobe) -> None:
        self._figure = body.figure(_AVERAGE)
        self._corners_T3, _ = triangulated(body.mesh)
        self._corners_T3 = self._corners_T3[(self._corners_T3 < BODY_VERTICES).all(axis=1)]
        pose = {"jawOpen": 0.55, "eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
        self._poses = (
            self._figure.neutral_V3,
            self._figure.pose({action: np.array([value]) for action, value in pose.items()})[0],
        )
        self._garments: dict[Path, Singles] = {}
        self.body_V = np.maximum.reduce(
            [
                openness(vertices, surface_normals(vertices, self._corners_T3), vertices, self._corners_T3)
                for vertices in self._poses
            ]
        )

    def of(self, garment: Garment) -> Singles:
        if garment.fit not in self._garments:
            self._garments[garment.fit] = self._measure(garment)
        return self._garments[garment.fit]

    def _measure(self, garment: Garment) -> Singles:
        """Strands are seen from both sides, so they take the more open one."""
        fit = _fit(garment.fit)
        corners_T3, _ = _triangles(fit.mesh_path)
        found = []
        for vertices in self._poses:
            worn = fit.place(vertices)
            normals = surface_normals(worn, corners_T3)
            blockers, blockers_T3 = vertices, self._corners_T3
            if garment.transparent:
                blockers = np.concatenate([vertices, worn])
                blockers_T3 = np.concatenate([self._corners_T3, corners_T3 + len(vertices)])
                found.append(openness(worn, -normals, blockers, blockers_T3))
            found.append(openness(worn, normals, blockers, blockers_T3))
        return np.asarray(np.maximum.reduce(found), dtype=np.float32)


_AVERAGE = {"gender": 0.5, "age": 0.65, "muscle": 0.5, "weight": 0.5, "height": 0.5, "proportions": 0.75,
            "african": 0.33, "asian": 0.33, "caucasian": 0.34}  # fmt: skip


@lru_cache(maxsize=1)
def _shading(body: Body, wardrobe: Wardrobe) -> _Shade:
    return _Shade(body, wardrobe)
