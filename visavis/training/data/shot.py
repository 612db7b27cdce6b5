"""How a person is filmed in one clip: clothes, light, background, framing.

Angles in degrees, lengths in metres, colours in sRGB 0 to 1, light in units of a white surface's brightness.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from visavis.training.data.texture import Colour

NECKLINES = ("crew", "crew", "wide", "v", "turtle")
BACKDROPS = ("gradient", "blobs", "texture", "room")


@dataclass(frozen=True, slots=True)
class Shot:
    """One take of a person. `backdrop_seed` draws the background's details."""

    neckline: str
    clothing: Colour
    backdrop: str
    backdrop_seed: int
    backdrop_colours: tuple[Colour, Colour]
    key_azimuth: float
    key_elevation: float
    key_light: Colour
    fill_light: Colour
    sky_light: Colour
    ground_light: Colour
    camera_distance: float
    # of the picture's height and width at the face
    field_of_view: float
    camera_azimuth: float
    camera_height: float
    # where the face's middle lies beside and below the picture's middle, as a share of the picture
    offset_right: float
    offset_down: float


def draw_shot(seed: tuple[int, ...]) -> Shot:
    """Draws a take; the same seed gives the same take."""
    random = np.random.default_rng([0x73686F74, *seed])
    warmth = random.uniform(-0.09, 0.12)
    key, fill, sky = random.uniform(0.5, 0.85), random.uniform(0.08, 0.3), random.uniform(0.36, 0.5)
    first = _colour(random, (0.0, 0.55), (0.15, 0.9))
    second = _colour(random, (0.0, 0.55), (0.15, 0.9)) if random.random() < 0.5 else _darker(first, 0.6)
    return Shot(
        neckline=str(random.choice(NECKLINES)),
        clothing=_colour(random, (0.0, 0.75), (0.1, 0.9)),
        backdrop=str(random.choice(BACKDROPS)),
        backdrop_seed=int(random.integers(1 << 31)),
        backdrop_colours=(first, second),
        key_azimuth=float(random.uniform(-55, 55)),
        key_elevation=float(random.uniform(12, 50)),
        key_light=_light(key, warmth),
        fill_light=_light(fill, -0.6 * warmth),
        sky_light=_light(sky, random.uniform(-0.05, 0.05)),
        ground_light=_light(0.6 * sky, 0.06),
        camera_distance=float(random.uniform(1.0, 1.8)),
        field_of_view=float(random.uniform(0.275, 0.37)),
        camera_azimuth=float(random.normal(0, 4.0)),
        camera_height=float(random.normal(0, 0.03)),
        offset_right=float(np.clip(random.normal(0, 0.025), -0.06, 0.06)),
        offset_down=float(np.clip(random.normal(0.02, 0.02), -0.03, 0.06)),
    )


def _colour(random: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    return colorsys.hsv_to_rgb(random.random(), random.uniform(*saturation), random.uniform(*value))


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = colour
    return red * share, green * share, blue * share


def _light(intensity: float, warmth: float) -> Colour:
    return intensity * (1 + warmth), intensity, intensity * (1 - warmth)
