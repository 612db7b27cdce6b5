"""A made-up asset folder: one small quad a garment, tied to the base mesh, with plain textures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# Vertices of the base mesh around the mouth and brow; what is worn there is in the picture.
_FACE_VERTICES = (100, 200, 300, 400)

_QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n"


def make_assets(root: Path) -> Path:
    """Writes the folder and returns it."""
    for folder, name in (
        ("hair/short01", "short01"),
        ("eyebrows/eyebrow001", "eyebrow001"),
        ("eyelashes/eyelashes01", "eyelashes01"),
        ("eyes/low-poly", "low-poly"),
        ("teeth/teeth_base", "teeth_base"),
        ("tongue/tongue01", "tongue01"),
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / f"{name}.obj").write_text(_QUAD)
        rows = "\n".join(str(vertex) for vertex in _FACE_VERTICES)
        (root / folder / f"{name}.mhclo").write_text(f"obj_file {name}.obj\nverts 0\n{rows}\ndelete_verts\n1 - 4\n")
    for texture, colour in (
        ("skins/textures/young_lightskinned_male_diffuse.png", (200, 160, 140)),
        ("hair/short01/short01_diffuse.png", (60, 40, 30)),
        ("eyebrows/eyebrow001/eyebrow001.png", (30, 20, 10)),
        ("eyelashes/eyelashes01/eyelashes01.png", (0, 0, 0)),
        ("eyes/materials/blue_eye.png", (40, 90, 200)),
        ("teeth/materials/teeth.png", (240, 240, 230)),
        ("tongue/tongue01/tongue01_diffuse.png", (180, 60, 70)),
    ):
        path = root / texture
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), colour, dtype=np.uint8)).save(path)
    return root
