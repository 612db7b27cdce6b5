"""Landmarks that were found once, kept on disk: the same pictures are compared with many others.

FOLDER/HASH.npz, HASH of the pictures
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.training.data.footage.detectors import Boxes, Faces, FindsFaces

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RememberedFaces:
    """Asks `finder` for the faces of pictures that it has not seen before; the rest of it as it is."""

    finder: FindsFaces
    folder: Path

    def faces(self, pictures_FHW3: Pictures) -> Faces:
        """As `FindsFaces.faces`."""
        digest = hashlib.sha256(repr(pictures_FHW3.shape).encode())
        digest.update(np.ascontiguousarray(pictures_FHW3).data)
        path = self.folder / f"{digest.hexdigest()[:32]}.npz"
        if not path.is_file():
            self._keep(path, self.finder.faces(pictures_FHW3))
        with np.load(path, allow_pickle=False) as arrays:
            boxes = Boxes(arrays["box_pictures"], arrays["boxes"], arrays["box_scores"])
            return Faces(arrays["landmarks"], arrays["found"], boxes)

    def hands(self, pictures_FHW3: Pictures) -> Boxes:
        """As `FindsFaces.hands`."""
        return self.finder.hands(pictures_FHW3)

    def text(self, pictures_FHW3: Pictures) -> Boxes:
        """As `FindsFaces.text`."""
        return self.finder.text(pictures_FHW3)

    def _keep(self, path: Path, faces: Faces) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                landmarks=faces.landmarks_FN2,
                found=faces.found_F,
                box_pictures=faces.boxes.pictures_N,
                boxes=faces.boxes.boxes_N4,
                box_scores=faces.boxes.scores_N,
            )
        partial.replace(path)
