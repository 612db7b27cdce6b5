"""People who do not exist: who they are, drawn from a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.training.data.texture import Colour
from visavis.training.data.wardrobe import Wardrobe

# sRGB
_HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.11, 0.095, 0.09),
    "dark brown": (0.21, 0.145, 0.11),
    "brown": (0.33, 0.23, 0.16),
    "auburn": (0.42, 0.22, 0.13),
    "dark blond": (0.52, 0.41, 0.28),
    "blond": (0.72, 0.58, 0.39),
    "grey": (0.56, 0.55, 0.54),
    "white": (0.8, 0.79, 0.77),
}
_DARK_HAIR = ("black", "black", "dark brown")
_ANY_YOUNG_HAIR = ("black", "dark brown", "dark brown", "brown", "brown", "auburn", "dark blond", "blond")
_OLD_HAIR = ("grey", "grey", "white", "dark brown", "dark blond")
_OLD_DARK_HAIR = ("grey", "grey", "white", "black")
_HAIR_FOR_MEN = frozenset({"afro01", "short01", "short02", "short04"})
_HAIR_FOR_WOMEN = frozenset({"afro01", "long01", "ponytail01", "short01", "short04"})
_AGES = {"young": (0.5, 0.66), "middleage": (0.66, 0.82), "old": (0.85, 1.0)}


@dataclass(frozen=True, slots=True)
class Person:
    """One identity: body, skin, hair and eyes. What a picture of them adds is a `Shot`."""

    number: int
    # anny's phenotype labels, each 0 to 1
    phenotype: dict[str, float]
    skin: str
    # multiplies the skin's texture, so that people who share it differ
    skin_tone: Colour
    hair: str
    hair_colour: Colour
    eyebrows: str
    eyebrow_opacity: float
    eyelashes: str
    eyes: str
    # how far the lids stand open beyond the average, as a share of ARKit's eyeWide
    eye_width: float


def draw_person(number: int, wardrobe: Wardrobe) -> Person:
    """Draws an identity; the same number and wardrobe give the same person."""
    random = np.random.default_rng([0x70657273, number])
    skin = str(random.choice(wardrobe.skins))
    male = "_male_" in skin
    dark = "dark" in skin
    ancestry = "african" if dark else str(random.choice(["caucasian", "caucasian", "asian"]))
    styles = _HAIR_FOR_MEN if male else _HAIR_FOR_WOMEN
    suited = [name for name in wardrobe.hair if name in styles and (dark or "afro" not in name)]
    hair = str(random.choice(suited or list(wardrobe.hair)))
    brightness, warmth = random.uniform(0.86, 1.12), random.uniform(-0.05, 0.05)
    return Person(
        number=number,
        phenotype=_phenotype(random, skin, male, ancestry),
        skin=skin,
        skin_tone=(brightness * (1 + warmth), brightness, brightness * (1 - warmth)),
        hair=hair,
        hair_colour=_hair_colour(random, old=skin.startswith("old"), dark=dark or ancestry == "asian"),
        eyebrows=str(random.choice(wardrobe.eyebrows)),
        eyebrow_opacity=float(random.uniform(0.9, 1.4)),
        eyelashes=str(random.choice(wardrobe.eyelashes)),
        eyes=_eyes(random, wardrobe, brown=dark or ancestry == "asian"),
        eye_width=float(random.uniform(0.1, 0.4)),
    )


def _phenotype(random: np.random.Generator, skin: str, male: bool, ancestry: str) -> dict[str, float]:
    age = next(bounds for prefix, bounds in _AGES.items() if skin.startswith(prefix))
    other = random.dirichlet([0.5, 0.5, 0.5]) * 0.3
    mixture = dict(zip(("african", "asian", "caucasian"), other, strict=True))
    mixture[ancestry] += 0.7
    return {
        "gender": float(random.uniform(0.85, 1.0) if not male else random.uniform(0.0, 0.15)),
        "age": float(random.uniform(*age)),
        "muscle": float(random.uniform(0.3, 0.7)),
        "weight": float(random.uniform(0.25, 0.75)),
        "height": 0.5,
        "proportions": float(random.uniform(0.5, 1.0)),
        **{name: float(share) for name, share in mixture.items()},
    }


def _hair_colour(random: np.random.Generator, *, old: bool, dark: bool) -> Colour:
    names = (_OLD_DARK_HAIR if dark else _OLD_HAIR) if old else _DARK_HAIR if dark else _ANY_YOUNG_HAIR
    base = np.array(_HAIR_COLOURS[str(random.choice(names))])
    red, green, blue = (float(value) for value in np.clip(base * random.uniform(0.85, 1.15), 0.03, 0.9))
    return red, green, blue


def _eyes(random: np.random.Generator, wardrobe: Wardrobe, *, brown: bool) -> str:
    suited = [name for name in wardrobe.eyes if name.startswith("brown")] if brown else []
    return str(random.choice(suited or list(wardrobe.eyes)))
