"""What stands behind a person: never one flat colour, never sharp.

Legend: H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from visavis.training.data.shot import Shot
from visavis.training.data.texture import Singles, linear_from_srgb


def paint_backdrop(shot: Shot, size: int) -> Singles:
    """The background [H, W, 3] in linear light."""
    random = np.random.default_rng([0x6261636B, shot.backdrop_seed])
    first, second = (linear_from_srgb(np.array(colour)) for colour in shot.backdrop_colours)
    share = np.clip(_PAINTERS[shot.backdrop](random, size), 0, 1)[..., None]
    # lenses darken corners, and walls fall off
    rows, columns = _grid(size)
    vignette = 1 - random.uniform(0.05, 0.3) * (rows**2 + columns**2)[..., None] / 2
    return np.asarray((first * (1 - share) + second * share) * vignette, dtype=np.float32)


def _grid(size: int) -> tuple[Singles, Singles]:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _gradient(random: np.random.Generator, size: int) -> Singles:
    rows, columns = _grid(size)
    angle = random.uniform(0, 2 * np.pi)
    return np.asarray(0.5 + 0.4 * (np.cos(angle) * rows + np.sin(angle) * columns), dtype=np.float32)


def _blobs(random: np.random.Generator, size: int) -> Singles:
    """Lights out of focus."""
    rows, columns = _grid(size)
    share = 0.5 * _gradient(random, size)
    for _ in range(int(random.integers(4, 12))):
        row, column = random.uniform(-1.1, 1.1, 2)
        radius = random.uniform(0.12, 0.5)
        distance = np.sqrt((rows - row) ** 2 + (columns - column) ** 2)
        share = share + random.uniform(-0.5, 0.6) / (1 + np.exp(np.clip((distance - radius) / 0.05, -40, 40)))
    return np.asarray(share, dtype=np.float32)


def _texture(random: np.random.Generator, size: int) -> Singles:
    """Plaster, leaves, cloth: noise at a few scales."""
    share = np.full((size, size), 0.5, dtype=np.float32)
    for cells, strength in ((3, 0.35), (6, 0.25), (14, 0.1)):
        share += strength * _enlarged(random.normal(size=(cells + 3, cells + 3)), size)
    return share


def _room(random: np.random.Generator, size: int) -> Singles:
    """A wall, an edge or two, something rectangular: out of focus."""
    rows, columns = _grid(size)
    share = 0.3 * _gradient(random, size) + 0.1 * _texture(random, size)
    for _ in range(int(random.integers(1, 5))):
        top, left = random.uniform(-1.2, 0.8, 2)
        height, width = random.uniform(0.3, 1.4, 2)
        softness = random.uniform(0.015, 0.06)
        inside = np.minimum.reduce([rows - top, top + height - rows, columns - left, left + width - columns])
        share = share + random.uniform(-0.45, 0.55) / (1 + np.exp(np.clip(-inside / softness, -40, 40)))
    return np.asarray(share, dtype=np.float32)


def _enlarged(grid: np.ndarray, size: int) -> Singles:
    """Cubic B-spline interpolation of a small grid [n + 3, n + 3] over the picture: smooth everywhere."""
    cells = len(grid) - 3
    position = np.linspace(0, cells, size, endpoint=False)
    whole = position.astype(int)
    t = position - whole
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    spread = np.zeros((size, len(grid)))
    spread[np.arange(size)[:, None], whole[:, None] + np.arange(4)] = weights
    return np.asarray(spread @ grid @ spread.T, dtype=np.float32)


_PAINTERS = {"gradient": _gradient, "blobs": _blobs, "texture": _texture, "room": _room}
