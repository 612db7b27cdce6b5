"""People who do not exist: who they are, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.training.data.wardrobe import Wardrobe

Colour = tuple[float, float, float]

_HAIR_TINTS: tuple[Colour, ...] = (
    (1.0, 1.0, 1.0),
    (0.55, 0.5, 0.48),
    (0.3, 0.27, 0.26),
    (1.0, 0.8, 0.55),
    (0.95, 0.62, 0.45),
    (0.85, 0.85, 0.9),
)
_HAIR_FOR_MEN = frozenset({"afro01", "short01", "short02", "short04"})
_HAIR_FOR_WOMEN = frozenset({"afro01", "long01", "ponytail01", "short01", "short04"})
_AGES = {"young": (0.5, 0.66), "middleage": (0.66, 0.82), "old": (0.85, 1.0)}


@dataclass(frozen=True, slots=True)
class Person:
    """One identity with its clothes, light and framing. Angles in degrees, distances in metres, colours 0 to 1."""

    seed: int
    # anny's phenotype labels, each 0 to 1
    phenotype: dict[str, float]
    skin: str
    hair: str
    eyebrows: str
    eyes: str
    hair_tint: Colour
    clothing: Colour
    background_top: Colour
    background_bottom: Colour
    key_light_azimuth: float
    key_light_elevation: float
    key_light_intensity: float
    fill_light_intensity: float
    camera_distance: float
    view_angle: float
    camera_height: float


def draw_person(seed: int, wardrobe: Wardrobe) -> Person:
    """Draws an identity; the same seed and wardrobe give the same person."""
    random = np.random.default_rng([0x70657273, seed])
    skin = str(random.choice(wardrobe.skins))
    male = "_male_" in skin
    suited = _HAIR_FOR_MEN if male else _HAIR_FOR_WOMEN
    hair = str(random.choice([name for name in wardrobe.hair if name in suited] or list(wardrobe.hair)))
    top = random.uniform(0.25, 0.9, 3)
    return Person(
        seed=seed,
        phenotype=_phenotype(random, skin, male),
        skin=skin,
        hair=hair,
        eyebrows=str(random.choice(wardrobe.eyebrows)),
        eyes=str(random.choice(wardrobe.eyes)),
        hair_tint=_HAIR_TINTS[random.integers(len(_HAIR_TINTS))],
        clothing=_colour(random.uniform(0.08, 0.85, 3)),
        background_top=_colour(top),
        background_bottom=_colour(np.clip(top * random.uniform(0.45, 0.95), 0, 1)),
        key_light_azimuth=float(random.uniform(-50, 50)),
        key_light_elevation=float(random.uniform(15, 50)),
        key_light_intensity=float(random.uniform(0.6, 0.8)),
        fill_light_intensity=float(random.uniform(0.25, 0.45)),
        camera_distance=1.25,
        view_angle=float(random.uniform(15.5, 17.5)),
        camera_height=float(random.uniform(-0.01, 0.02)),
    )


def _phenotype(random: np.random.Generator, skin: str, male: bool) -> dict[str, float]:
    age = next(bounds for prefix, bounds in _AGES.items() if skin.startswith(prefix))
    ancestry = "african" if "dark" in skin else str(random.choice(["caucasian", "asian"]))
    other = random.dirichlet([0.5, 0.5, 0.5]) * 0.3
    mixture = dict(zip(("african", "asian", "caucasian"), other, strict=True))
    mixture[ancestry] += 0.7
    return {
        "gender": float(random.uniform(0.0, 0.15) if male else random.uniform(0.85, 1.0)),
        "age": float(random.uniform(*age)),
        "muscle": float(random.uniform(0.3, 0.7)),
        "weight": float(random.uniform(0.25, 0.75)),
        "height": 0.5,
        "proportions": float(random.uniform(0.5, 1.0)),
        **{name: float(share) for name, share in mixture.items()},
    }


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
