"""A small software rasteriser: textured, lit triangles with four samples a pixel, on one CPU core, without OpenGL.

The kernels are compiled by Warp, which anny brings along. Opaque triangles are first only found, then shaded once per
pixel; hair, brows and lashes are blended in front of them.

Legend: V vertices, T triangles, N texels, H picture rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import warp as wp

from visavis.training.data import kernels
from visavis.training.data.texture import Singles, srgb_from_linear

_SRGB_STEPS = 4096


@dataclass(frozen=True, slots=True)
class Triangles:
    """What is drawn, as arrays: corners [T, 3], texture coordinates [T, 3, 2], material of each triangle [T]; for each
    vertex the share of the head's turn that it takes, its openness to light and its depth below the neckline [V].

    Opaque triangles come first, then blended ones, the nearest first; `opaque` counts the former.
    """

    corners_T3: npt.NDArray[np.int32]
    coordinates_T32: Singles
    materials_T: npt.NDArray[np.int32]
    opaque: int
    head_V: Singles
    openness_V: Singles
    cloth_V: Singles


class Rasteriser:
    """Draws one set of triangles again and again. Pictures are [size, size, 3] uint8 sRGB."""

    def __init__(
        self, triangles: Triangles, materials: list[Any], texels_N4: Singles, backdrop_HW3: Singles, lighting: Any
    ) -> None:
        self._size = len(backdrop_HW3)
        count, samples = len(triangles.head_V), self._size**2 * int(kernels.SAMPLES)
        order = np.arange(len(triangles.corners_T3), dtype=np.int32)
        self._layers = [_array(order[: triangles.opaque], wp.int32), _array(order[triangles.opaque :], wp.int32)]
        self._head = _array(triangles.head_V, wp.float32)
        self._posed = _zeros(count, wp.vec3)
        self._mesh = _mesh(triangles, materials)
        self._texels = _array(texels_N4, wp.vec4)
        self._backdrop = _array(backdrop_HW3, wp.vec3)
        self._lighting = lighting
        self._depths, self._shown, self._veil = (_zeros(samples, kind) for kind in (wp.float32, wp.int32, wp.vec4))
        self._picture = _zeros((self._size, self._size, 3), wp.uint8)
        steps = np.rint(srgb_from_linear(np.linspace(0, 1, _SRGB_STEPS)) * 255).astype(np.uint8)
        self._to_srgb = _array(steps, wp.uint8)

    def draw(self, points_V3: Singles, view: Any) -> npt.NDArray[np.uint8]:
        """The picture of these points, the head turned as `view` says."""
        mesh, light = self._mesh, [self._texels, self._lighting, -view.forward]
        points = _array(points_V3, wp.vec3)
        _launch(kernels.project, [points, self._head, view, self._posed, mesh.screen, self._size / 2])
        _launch(kernels.find_normals, [self._posed, mesh.corners, mesh.normals])
        _launch(kernels.clear, [self._depths, self._shown, self._veil])
        for blended, layer in enumerate(self._layers):
            _launch(kernels.cover, [layer, mesh, *light, self._size, blended, self._depths, self._shown, self._veil])
        samples = [self._depths, self._shown, self._veil]
        _launch(kernels.resolve, [mesh, *light, self._backdrop, *samples, self._to_srgb, self._picture])
        return np.array(self._picture.numpy())

    def screen(self) -> Singles:
        """Where the last picture's vertices stand: [V, 3], x and y in pixels and one over the distance."""
        return np.array(self._mesh.screen.numpy())


def compile_kernels() -> None:
    """Compiles the kernels into Warp's cache, if they are not there yet (about 5 s)."""
    wp.load_module(kernels, device="cpu")


def _mesh(triangles: Triangles, materials: list[Any]) -> Any:
    count = len(triangles.head_V)
    mesh: Any = kernels.Mesh()
    mesh.corners = _array(triangles.corners_T3, wp.vec3i)
    mesh.coordinates = _array(triangles.coordinates_T32.reshape(-1, 2), wp.vec2)
    mesh.material = _array(triangles.materials_T, wp.int32)
    mesh.materials = wp.array(materials, dtype=kernels.Material, device="cpu")
    mesh.openness = _array(triangles.openness_V, wp.float32)
    mesh.cloth = _array(triangles.cloth_V, wp.float32)
    mesh.screen, mesh.normals = _zeros(count, wp.vec3), _zeros(count, wp.vec3)
    return mesh


def _array(values: npt.NDArray[Any], kind: Any) -> Any:
    return wp.array(np.ascontiguousarray(values), dtype=kind, device="cpu", copy=False)


def _zeros(shape: int | tuple[int, ...], kind: Any) -> Any:
    return wp.zeros(shape, dtype=kind, device="cpu")


def _launch(kernel: Any, inputs: list[Any]) -> None:
    # one thread: kernels loop themselves, in a fixed order
    wp.launch(kernel, dim=1, inputs=inputs, device="cpu")
