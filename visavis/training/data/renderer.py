"""Renders one person off-screen, frame by frame: the scene is built once, then only points and normals change."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anny
import numpy as np
import numpy.typing as npt
import pyvista
import torch
from PIL import Image
from scipy import sparse

from visavis.training.data.clothing import paint_shirt
from visavis.training.data.makehuman import UP_AXIS, AssetError, Fit, Floats, Indices, QuadMesh, read_mesh
from visavis.training.data.people import Colour, Person
from visavis.training.data.wardrobe import Garment, Wardrobe

BODY_VERTICES = 13_380  # of the base mesh; helper geometry (joints, proxies) follows
_SHOWN_BELOW_CROWN = 0.4  # metres of body that can be in the picture
_COLLAR_BELOW_CROWN = 0.285


class Body:
    """anny's parametric body with all 19,158 base vertices in MakeHuman's `hm08` order."""

    def __init__(self) -> None:
        self._model: Any = anny.Anny(
            rig="makehuman", topology="makehuman", facial_actions="all", local_changes="none", phenotypes="all"
        ).to(dtype=torch.float32)
        self.mesh = QuadMesh(
            self._model.faces.numpy(),
            self._model.face_texture_coordinate_indices.numpy(),
            self._model.texture_coordinates.numpy().astype(np.float32),
        )

    def vertices(self, person: Person, actions: Mapping[str, Floats]) -> Floats:
        """Vertices [F, 19158, 3] in metres for curves [F] of ARKit actions (0 to 1); no action gives one neutral frame.

        Raises ValueError for an unknown action or curves of different lengths.
        """
        unknown = set(actions) - set(self._model.facial_action_labels)
        if unknown:
            raise ValueError(f"unknown facial actions: {', '.join(sorted(unknown))}")
        lengths = {len(curve) for curve in actions.values()} or {1}
        if len(lengths) > 1:
            raise ValueError("all action curves need the same number of frames")
        frames = lengths.pop()
        with torch.inference_mode():
            output = self._model(
                phenotype_kwargs={name: torch.full((frames,), value) for name, value in person.phenotype.items()},
                facial_actions={name: torch.from_numpy(curve).float() for name, curve in actions.items()},
            )
        return np.asarray(output["vertices"].double().numpy(), dtype=np.float64)


@dataclass(slots=True)
class _Part:
    """A mesh in the scene: how it follows the body, and the points VTK draws."""

    fit: Fit | None
    corners_Q4: Indices
    # [V, Q], one where a quad touches a vertex
    incidence: sparse.csr_array
    surface: Any

    def follow(self, body_vertices: Floats) -> None:
        vertices = body_vertices if self.fit is None else self.fit.place(body_vertices)
        normals = vertex_normals(vertices, self.corners_Q4, self.incidence)
        self.surface.points = vertices[self.corners_Q4].reshape(-1, 3)
        self.surface.point_data["Normals"] = normals[self.corners_Q4].reshape(-1, 3)


class PersonRenderer:
    """A scene with one person in it. Use as a context manager; not for several threads."""

    def __init__(self, person: Person, wardrobe: Wardrobe, body: Body, size: int = 256, supersampling: int = 1) -> None:
        self._person = person
        self._mesh = body.mesh
        self._size = size
        self._supersampling = supersampling
        neutral = body.vertices(person, {})[0]
        self._crown = float(neutral[:BODY_VERTICES, UP_AXIS].max())
        self._plotter = _plotter(size * supersampling)
        self._parts: list[_Part] = []
        self._dress(wardrobe, neutral)
        self._light()
        self._plotter.set_background(person.background_bottom, top=person.background_top)
        self._plotter.camera.view_angle = person.view_angle

    def render(self, vertices_V3: Floats, yaw: float = 0.0, pitch: float = 0.0) -> npt.NDArray[np.uint8]:
        """One picture [size, size, 3] RGB of the body's vertices, seen by a head turned by yaw and pitch (radians)."""
        for part in self._parts:
            part.follow(vertices_V3)
        self._aim(yaw, pitch)
        self._plotter.render()
        large = np.asarray(self._plotter.screenshot(return_img=True, transparent_background=False))[:, :, :3]
        blocks = large.reshape(self._size, self._supersampling, self._size, self._supersampling, 3)
        return np.asarray(np.rint(blocks.mean(axis=(1, 3))), dtype=np.uint8)

    def project(self, points_N3: Floats, yaw: float = 0.0, pitch: float = 0.0) -> Floats:
        """Where points of the body stand in the picture: [N, 2] in pixels, x to the right, y down."""
        position, target = self._camera(yaw, pitch)
        forward = (target - position) / np.linalg.norm(target - position)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        seen = points_N3 - position
        scale = self._size / 2 / math.tan(math.radians(self._person.view_angle) / 2) / (seen @ forward)
        return np.asarray(np.stack([seen @ right * scale, -(seen @ up) * scale], axis=1) + self._size / 2)

    def close(self) -> None:
        self._plotter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dress(self, wardrobe: Wardrobe, neutral: Floats) -> None:
        mesh = self._mesh
        height_Q = neutral[mesh.corners_Q4][..., UP_AXIS].min(axis=1)
        shown_Q = (mesh.corners_Q4 < BODY_VERTICES).all(axis=1) & (height_Q > self._crown - _SHOWN_BELOW_CROWN)
        shown = QuadMesh(mesh.corners_Q4[shown_Q], mesh.texture_corners_Q4[shown_Q], mesh.texture_coordinates)
        self._add(None, shown, neutral, {"texture": self._clothed_skin(wardrobe, shown, neutral), "specular": 0.1})
        self._wear(wardrobe.eye_garment(self._person.eyes), neutral, specular=0.5)
        for garment in wardrobe.mouth_garments():
            self._wear(garment, neutral, specular=0.2)
        self._wear(wardrobe.eyelash_garment(), neutral)
        self._wear(wardrobe.eyebrow_garment(self._person.eyebrows), neutral, tint=self._person.hair_tint)
        self._wear(wardrobe.hair_garment(self._person.hair), neutral, tint=self._person.hair_tint)

    def _clothed_skin(self, wardrobe: Wardrobe, shown: QuadMesh, neutral: Floats) -> Any:
        skin = np.asarray(Image.open(_existing(wardrobe.skin_texture(self._person.skin))).convert("RGB"))
        collar_height = self._crown - _COLLAR_BELOW_CROWN
        return _texture(paint_shirt(skin, shown, neutral, collar_height, self._person.clothing))

    def _wear(self, garment: Garment, neutral: Floats, specular: float = 0.05, tint: Colour | None = None) -> None:
        texture = _smooth(pyvista.read_texture(str(_existing(garment.texture))))
        if tint is not None:
            texture = _tinted(texture, tint)
        self._add(garment.fit, read_mesh(garment.fit.mesh_path), neutral, {"texture": texture, "specular": specular})

    def _add(self, fit: Fit | None, mesh: QuadMesh, neutral: Floats, look: dict[str, Any]) -> None:
        vertices = neutral if fit is None else fit.place(neutral)
        count = len(mesh.corners_Q4)
        cells = np.hstack([np.full((count, 1), 4), np.arange(4 * count).reshape(count, 4)]).ravel()
        surface: Any = pyvista.PolyData(vertices[mesh.corners_Q4].reshape(-1, 3).copy(), cells)
        surface.active_texture_coordinates = mesh.texture_coordinates[mesh.texture_corners_Q4].reshape(-1, 2)
        part = _Part(fit, mesh.corners_Q4, _incidence(mesh.corners_Q4, len(vertices)), surface)
        part.follow(neutral)
        surface.point_data.active_normals_name = "Normals"
        actor = self._plotter.add_mesh(surface, ambient=0.25, diffuse=0.8, specular_power=20, **look)
        actor.prop.interpolation = "Phong"
        self._parts.append(part)

    def _light(self) -> None:
        person = self._person
        key = _direction(person.key_light_azimuth, person.key_light_elevation)
        fill = _direction(-person.key_light_azimuth, 5.0)
        for position, intensity in ((key, person.key_light_intensity), (fill, person.fill_light_intensity)):
            light = pyvista.Light(position=position, focal_point=(0, 0, 0), intensity=intensity, light_type="scene light")
            light.positional = False
            self._plotter.add_light(light)

    def _aim(self, yaw: float, pitch: float) -> None:
        camera = self._plotter.camera
        camera.up = (0.0, 0.0, 1.0)
        position, target = self._camera(yaw, pitch)
        camera.position, camera.focal_point = tuple(position), tuple(target)

    def _camera(self, yaw: float, pitch: float) -> tuple[Floats, Floats]:
        distance = self._person.camera_distance
        target = np.array([0.0, -0.1, self._crown - 0.125 + self._person.camera_height])
        offset = (math.sin(yaw), -math.cos(yaw) + 0.1 / distance, math.sin(pitch))
        return target + distance * np.array(offset), target


def _plotter(size: int) -> Any:
    plotter: Any = pyvista.Plotter(off_screen=True, window_size=[size, size], lighting="none")
    plotter.enable_anti_aliasing("msaa", multi_samples=4)
    return plotter


def vertex_normals(vertices_V3: Floats, corners_Q4: Indices, incidence_VQ: sparse.csr_array) -> Floats:
    """Unit normals [V, 3], area-weighted over the quads around each vertex."""
    first, second, third, fourth = (vertices_V3[corners_Q4[:, corner]] for corner in range(4))
    normals = incidence_VQ @ np.cross(third - first, fourth - second)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12), dtype=np.float64)


def _incidence(corners_Q4: Indices, vertices: int) -> sparse.csr_array:
    quads = np.repeat(np.arange(len(corners_Q4)), 4)
    ones = np.ones(len(quads))
    return sparse.csr_array((ones, (corners_Q4.ravel(), quads)), shape=(vertices, len(corners_Q4)))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise AssetError(f"the asset folder lacks {path.name}")
    return path


def _tinted(texture: Any, tint: Colour) -> Any:
    pixels = texture.to_array().astype(np.float32)
    pixels[..., :3] *= np.array(tint, dtype=np.float32)
    return _texture(np.rint(pixels).astype(np.uint8))


def _texture(pixels: npt.NDArray[np.uint8]) -> Any:
    make: Any = pyvista.Texture
    return _smooth(make(pixels))


def _smooth(texture: Any) -> Any:
    texture.interpolate = True
    texture.mipmap = True
    return texture


def _direction(azimuth_degrees: float, elevation_degrees: float) -> tuple[float, float, float]:
    azimuth, elevation = math.radians(azimuth_degrees), math.radians(elevation_degrees)
    return (
        3 * math.sin(azimuth) * math.cos(elevation),
        -3 * math.cos(azimuth) * math.cos(elevation),
        3 * math.sin(elevation),
    )
