"""Textures in linear light with premultiplied alpha: read, recoloured, and reduced to the picture's resolution.

Legend: R rows, C columns.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from visavis.training.data.makehuman import AssetError

Singles = npt.NDArray[np.float32]
Colour = tuple[float, float, float]


def linear_from_srgb(values: npt.NDArray[np.floating]) -> Singles:
    """sRGB 0..1 to linear light (IEC 61966-2-1)."""
    clipped = np.clip(values, 0, 1)
    light = np.where(clipped <= 0.04045, clipped / 12.92, ((clipped + 0.055) / 1.055) ** 2.4)
    return np.asarray(light, dtype=np.float32)


def srgb_from_linear(values: npt.NDArray[np.floating]) -> Singles:
    """Linear light 0..1 to sRGB."""
    clipped = np.clip(values, 0, 1)
    encoded = np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.asarray(encoded, dtype=np.float32)


def linear_colour(colour: Colour) -> Colour:
    """One sRGB colour in linear light."""
    red, green, blue = (float(value) for value in linear_from_srgb(np.array(colour)))
    return red, green, blue


@lru_cache(maxsize=64)
def read_texture(path: Path) -> Singles:
    """A picture file as linear RGBA [R, C, 4], alpha not multiplied in. Raises AssetError when it cannot be read."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGBA"))
    except (OSError, UnidentifiedImageError) as error:
        raise AssetError(f"cannot read the texture {path.name}: is the asset folder complete?") from error
    table = linear_from_srgb(np.arange(256) / 255)
    texture = np.concatenate([table[pixels[..., :3]], pixels[..., 3:].astype(np.float32) / 255], axis=2)
    texture.flags.writeable = False
    return texture


def recoloured(texture: Singles, colour: Colour, contrast: float) -> Singles:
    """The texture's strands in another (linear) colour: light and dark stay, their mean becomes `colour`."""
    alpha = texture[..., 3]
    light = texture[..., :3] @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    mean = float((light * alpha).sum() / max(float(alpha.sum()), 1e-6))
    detail = np.clip(light / max(mean, 1e-4), 0.05, 3.0) ** contrast
    painted = np.array(colour, dtype=np.float32) * detail[..., None]
    return np.concatenate([np.clip(painted, 0, 1), texture[..., 3:]], axis=2).astype(np.float32)


def premultiplied(texture: Singles, opacity: float = 1.0) -> Singles:
    """Colour times alpha, so that clear texels do not bleed into their neighbours; alpha is `opacity` times as high."""
    alpha = np.minimum(texture[..., 3:] * np.float32(opacity), np.float32(1))
    return np.concatenate([texture[..., :3] * alpha, alpha], axis=2)


def reduced(texture: Singles, texels_per_pixel: float) -> Singles:
    """Halved until a pixel sees no more than about 1.4 texels across: what is left out would only flicker."""
    while texels_per_pixel > 1.4 and min(texture.shape[:2]) > 8:
        rows, columns = texture.shape[0] // 2 * 2, texture.shape[1] // 2 * 2
        pairs = texture[0:rows:2] + texture[1:rows:2]
        texture = np.float32(0.25) * (pairs[:, 0:columns:2] + pairs[:, 1:columns:2])
        texels_per_pixel /= 2
    return texture
