"""A picture of originals beside their reconstructions: people with their mouths shut, and open.

H W picture
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from visavis.evaluation.video_vae import ReconstructedClip

Picture = npt.NDArray[np.uint8]

_PEOPLE_A_ROW = 2
_CAPTION_PIXELS = 16
_GAP_PIXELS = 8
_CAPTIONS = ("original", "reconstruction")


class Sheet:
    """Collects a row of four pictures for each of the first `people` different people."""

    def __init__(self, people: int) -> None:
        self._people = people
        self._rows: dict[object, Picture] = {}

    def add(self, rebuilt: ReconstructedClip) -> None:
        """Takes the frames in which the mouth is lowest and highest, unless this person is there already."""
        clip = rebuilt.clip
        identity = clip.record.get("plan", {}).get("identity", clip.key)
        if identity in self._rows or len(self._rows) == self._people:
            return
        # frame 0 is the portrait, which no client gets
        height_F = clip.ellipses_FE4[1:, 0, 3]
        moments = (1 + int(height_F.argmin()), 1 + int(height_F.argmax()))
        cells = [frames[moment] for moment in moments for frames in (clip.frames_FHW3, rebuilt.frames_FHW3)]
        self._rows[identity] = np.hstack(cells)

    def write(self, path: Path) -> None:
        """Writes a JPEG or PNG; nothing was added: ValueError."""
        if not self._rows:
            raise ValueError("there is nobody to draw")
        rows = list(self._rows.values())
        height, width = rows[0].shape[:2]
        columns = min(_PEOPLE_A_ROW, len(rows))
        lines = -(-len(rows) // columns)
        size = (columns * (width + _GAP_PIXELS) - _GAP_PIXELS, _CAPTION_PIXELS + lines * height)
        sheet = Image.new("RGB", size, "white")
        for number, row in enumerate(rows):
            line, column = divmod(number, columns)
            sheet.paste(Image.fromarray(row), (column * (width + _GAP_PIXELS), _CAPTION_PIXELS + line * height))
        _write_captions(ImageDraw.Draw(sheet), columns, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, quality=90)


def _write_captions(draw: ImageDraw.ImageDraw, columns: int, width: int) -> None:
    for column in range(columns):
        for cell in range(4):
            left = column * (width + _GAP_PIXELS) + cell * width // 4
            draw.text((left + 2, 2), _CAPTIONS[cell % 2], fill="black")
