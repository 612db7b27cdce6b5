"""`visavis data portrait`: one picture of a person who does not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from visavis.training.data.people import draw_person
from visavis.training.data.renderer import Body, PersonRenderer
from visavis.training.data.wardrobe import open_wardrobe

_FRIENDLY = {"mouthSmileLeft": 0.25, "mouthSmileRight": 0.25, "browInnerUp": 0.15}


def render_portrait(assets: Path, destination: Path, seed: int, size: int = 512) -> None:
    """Renders the person of `seed`, mouth closed, to a JPEG or PNG. Raises AssetError for an incomplete asset folder."""
    wardrobe, body = open_wardrobe(assets), Body()
    person = draw_person(seed, wardrobe)
    vertices_V3 = body.vertices(person, {action: np.array([value]) for action, value in _FRIENDLY.items()})[0]
    with PersonRenderer(person, wardrobe, body, size, supersampling=2) as renderer:
        picture = renderer.render(vertices_V3)
    destination.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(destination, quality=92)
