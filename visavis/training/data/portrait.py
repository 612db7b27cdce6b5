"""`visavis data portrait`: one picture of a person who does not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from visavis.training.data.body import load_body
from visavis.training.data.people import draw_person
from visavis.training.data.renderer import PersonRenderer
from visavis.training.data.shot import draw_shot
from visavis.training.data.wardrobe import open_wardrobe

_FRIENDLY = {"mouthSmileLeft": 0.25, "mouthSmileRight": 0.25, "browInnerUp": 0.15}


def render_portrait(assets: Path, destination: Path, seed: int, size: int = 512) -> None:
    """Renders person `seed`, mouth closed, to a JPEG or PNG. Raises AssetError for an incomplete asset folder."""
    wardrobe = open_wardrobe(assets)
    person = draw_person(seed, wardrobe)
    renderer = PersonRenderer(person, draw_shot((seed,)), wardrobe, load_body(), size)
    face = {**_FRIENDLY, "eyeWideLeft": person.eye_width, "eyeWideRight": person.eye_width}
    points_V3 = renderer.pose({action: np.array([value]) for action, value in face.items()})[0]
    destination.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(renderer.render(points_V3)).save(destination, quality=92)
