"""Films one person: the scene is built once, then only points change.

Legend: F frames, V vertices, T triangles, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import warp as wp

from visavis.training.data.backdrop import paint_backdrop
from visavis.training.data.body import Body
from visavis.training.data.kernels import Lighting, Material, View
from visavis.training.data.makehuman import FRONT_AXIS, UP_AXIS, Floats, Indices
from visavis.training.data.people import Person
from visavis.training.data.rasteriser import Rasteriser, Triangles
from visavis.training.data.scene import Surface, dress
from visavis.training.data.shot import Shot
from visavis.training.data.texture import Singles, linear_colour, reduced
from visavis.training.data.wardrobe import Wardrobe

# Metres below the crown: where the neck stands still, and from where the whole head turns.
_NECK_STILL, _NECK_TURNS = 0.33, 0.225
_PIVOT_BELOW_CROWN, _PIVOT_FRONT = 0.21, -0.075
_FACE_BELOW_CROWN, _FACE_FRONT = 0.145, -0.15


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Turn of the head on the neck in radians (yaw to its left, pitch upwards, roll to its right), shift in metres."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


class PersonRenderer:
    """A person in front of a camera. Not for several threads."""

    def __init__(self, person: Person, shot: Shot, wardrobe: Wardrobe, body: Body, size: int = 256) -> None:
        """Raises AssetError when the asset folder lacks a file."""
        self._scene = dress(person, shot, wardrobe, body)
        self._size = size
        self._camera = _camera(shot, self._scene.crown, size)
        self._neutral_V3 = np.concatenate([surface.figure.neutral_V3 for surface in self._scene.surfaces])
        self._actions = self._scene.surfaces[0].figure.actions
        self._offsets_AV3 = np.concatenate(
            [surface.figure.offsets_AV3 for surface in self._scene.surfaces], axis=1
        ).astype(np.float32)
        self._rasteriser = self._build(shot)

    def pose(self, curves: Mapping[str, Floats]) -> Singles:
        """All points of the scene [F, V, 3] for curves [F] of ARKit actions (0 to 1), for `render`.

        Raises ValueError for an unknown action or curves of different lengths.
        """
        unknown = sorted(set(curves) - set(self._actions))
        if unknown:
            raise ValueError(f"unknown facial actions: {', '.join(unknown)}")
        if len({len(curve) for curve in curves.values()}) > 1:
            raise ValueError("all action curves need the same number of frames")
        neutral_V3 = self._neutral_V3.astype(np.float32)
        if not curves:
            return neutral_V3[None]
        rows = [self._actions.index(action) for action in curves]
        weights_FA = np.stack(list(curves.values()), axis=1).astype(np.float32)
        moved = weights_FA @ self._offsets_AV3[rows].reshape(len(rows), -1)
        return np.asarray(neutral_V3 + moved.reshape(len(weights_FA), -1, 3), dtype=np.float32)

    def render(self, points_V3: Singles, head: HeadPose | None = None) -> npt.NDArray[np.uint8]:
        """One picture [size, size, 3], sRGB."""
        head = head or HeadPose()
        self._camera.head_turn = wp.mat33(*_turn(head).ravel().tolist())
        self._camera.head_shift = wp.vec3(*head.shift)
        return self._rasteriser.draw(points_V3, self._camera)

    def screen(self, body_vertices: Indices) -> Singles:
        """Where vertices of the base mesh stand in the last picture: [N, 2] in pixels, x to the right, y down."""
        rows = np.searchsorted(self._scene.body_vertices, body_vertices)
        return self._rasteriser.screen()[rows, :2]

    def _build(self, shot: Shot) -> Rasteriser:
        surfaces = self._scene.surfaces
        starts = np.cumsum([0, *(len(surface.figure.neutral_V3) for surface in surfaces)])
        corners_T3 = np.concatenate([s.corners_T3 + start for s, start in zip(surfaces, starts, strict=False)])
        coordinates_T32 = np.concatenate([surface.coordinates_T32 for surface in surfaces])
        materials_T = np.repeat(np.arange(len(surfaces)), [len(surface.corners_T3) for surface in surfaces])
        order, opaque = self._order(corners_T3, materials_T)
        textures = [self._reduced(surface, start) for surface, start in zip(surfaces, starts, strict=False)]
        return Rasteriser(
            Triangles(
                corners_T3=corners_T3[order].astype(np.int32),
                coordinates_T32=coordinates_T32[order],
                materials_T=materials_T[order].astype(np.int32),
                opaque=opaque,
                head_V=self._head_share(),
                openness_V=np.concatenate([surface.openness_V for surface in surfaces]),
                cloth_V=np.concatenate([surface.cloth_V for surface in surfaces]),
            ),
            _materials(surfaces, textures),
            np.concatenate([texture.reshape(-1, 4) for texture in textures]),
            paint_backdrop(shot, self._size),
            _lighting(shot, self._camera),
        )

    def _order(self, corners_T3: Indices, materials_T: Indices) -> tuple[Indices, int]:
        """Opaque triangles, then blended ones, both nearest first: what they hide then costs little.

        The order is that of the neutral head for the whole clip: one that changes from frame to frame would flicker.
        """
        blended = np.array([surface.blended for surface in self._scene.surfaces])[materials_T]
        centres = self._neutral_V3[corners_T3].mean(axis=1)
        distance = (centres - np.array(self._camera.position)) @ np.array(self._camera.forward)
        opaque = np.flatnonzero(~blended)
        order = [kind[np.argsort(distance[kind], kind="stable")] for kind in (opaque, np.flatnonzero(blended))]
        return np.concatenate(order), len(opaque)

    def _reduced(self, surface: Surface, start: int) -> Singles:
        """The texture at the resolution at which the camera sees it."""
        screen = _project(surface.figure.neutral_V3, self._camera, self._size)
        seen = _areas(screen[surface.corners_T3])
        texels = _areas(surface.coordinates_T32) * surface.texture.shape[0] * surface.texture.shape[1]
        facing = np.abs(seen) > 0.05
        if not facing.any():
            return surface.texture
        density = np.sqrt(np.abs(texels[facing]).sum() / np.abs(seen[facing]).sum())
        return reduced(surface.texture, float(density))

    def _head_share(self) -> Singles:
        below = self._scene.crown - self._neutral_V3[:, UP_AXIS]
        # the back of the neck turns later than the chin
        below = below - 0.25 * np.clip(self._neutral_V3[:, FRONT_AXIS] + 0.12, -0.05, 0.1)
        share = np.clip((_NECK_STILL - below) / (_NECK_STILL - _NECK_TURNS), 0, 1)
        return np.asarray(share**2 * (3 - 2 * share), dtype=np.float32)


def _camera(shot: Shot, crown: float, size: int) -> Any:
    azimuth = math.radians(shot.camera_azimuth)
    face = np.array([0.0, _FACE_FRONT, crown - _FACE_BELOW_CROWN])
    away = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
    position = face + shot.camera_distance * away + np.array([0.0, 0.0, shot.camera_height])
    forward = (face - position) / np.linalg.norm(face - position)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    # moving the camera, not turning it, keeps the face seen from the same side
    position -= (shot.offset_right * right - shot.offset_down * up) * shot.field_of_view
    view: Any = View()
    view.position, view.right, view.up, view.forward = (wp.vec3(*axis) for axis in (position, right, up, forward))
    view.focal_length = size * shot.camera_distance / shot.field_of_view
    view.neck = wp.vec3(0.0, _PIVOT_FRONT, crown - _PIVOT_BELOW_CROWN)
    view.head_turn = wp.mat33(*np.eye(3).ravel().tolist())
    return view


def _turn(head: HeadPose) -> Floats:
    """Rotation matrix of the head: roll about the front axis, then pitch, then yaw."""
    cy, sy = math.cos(head.yaw), math.sin(head.yaw)
    cp, sp = math.cos(head.pitch), math.sin(head.pitch)
    cr, sr = math.cos(head.roll), math.sin(head.roll)
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    # the face looks along -y: looking up turns -y towards +z
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    roll = np.array([[cr, 0, -sr], [0, 1, 0], [sr, 0, cr]])
    return np.asarray(yaw @ pitch @ roll)


def _project(points_V3: Floats, view: Any, size: int) -> Floats:
    seen = points_V3 - np.array(view.position)
    scale = view.focal_length / (seen @ np.array(view.forward))
    return np.stack([seen @ np.array(view.right) * scale, -(seen @ np.array(view.up)) * scale], axis=1) + size / 2


def _areas(corners_T32: npt.NDArray[np.floating]) -> Floats:
    """Twice the signed area [T] of triangles in a plane."""
    first, second = corners_T32[:, 1] - corners_T32[:, 0], corners_T32[:, 2] - corners_T32[:, 0]
    return np.asarray(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0], dtype=np.float64)


def _materials(surfaces: tuple[Surface, ...], textures: list[Singles]) -> list[Any]:
    materials = []
    first_texel = 0
    for surface, texture in zip(surfaces, textures, strict=True):
        material: Any = Material()
        material.first_texel, material.rows, material.columns = first_texel, texture.shape[0], texture.shape[1]
        material.specular, material.shininess = surface.look.specular, surface.look.shininess
        material.wrap = surface.look.wrap
        material.tint = wp.vec3(*surface.look.tint)
        materials.append(material)
        first_texel += texture.shape[0] * texture.shape[1]
    return materials


def _lighting(shot: Shot, view: Any) -> Any:
    lighting: Any = Lighting()
    lighting.key_direction = _direction(shot.key_azimuth, shot.key_elevation)
    lighting.fill_direction = _direction(-1.2 * shot.key_azimuth, 8.0)
    lighting.key_halfway = wp.normalize(lighting.key_direction - view.forward)
    lighting.fill_halfway = wp.normalize(lighting.fill_direction - view.forward)
    lighting.key_colour, lighting.fill_colour = wp.vec3(*shot.key_light), wp.vec3(*shot.fill_light)
    lighting.sky_colour, lighting.ground_colour = wp.vec3(*shot.sky_light), wp.vec3(*shot.ground_light)
    lighting.cloth_colour = wp.vec3(*linear_colour(shot.clothing))
    return lighting


def _direction(azimuth_degrees: float, elevation_degrees: float) -> Any:
    """Unit vector from the face towards a light: azimuth 0 is where the face looks."""
    azimuth, elevation = math.radians(azimuth_degrees), math.radians(elevation_degrees)
    return wp.vec3(
        math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation)
    )
