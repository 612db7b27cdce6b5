"""Who looks at pictures: the landmark detector, the face embedder, our SyncNet; and what they see of a rendering.

F frames, H W picture, D embedding, N landmarks
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visavis.evaluation.colour import mean_lab
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.face_crops import FACE, MOUTH, cut_out, ellipses_of
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.evaluation.sharpness import sharpness
from visavis.evaluation.sync_net import SyncNet, grey
from visavis.evaluation.tested_part import weights_fingerprint
from visavis.models.checkpoints import placed
from visavis.training.data.footage.detectors import Faces, FindsFaces

_WEIGHTS: Final = Path(__file__).resolve().parents[2] / "weights" / "judges"

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Judges:
    """Those that are there; for those that are not, what to do about it."""

    faces: FindsFaces | None
    embedder: FaceEmbedder | None
    sync_net: SyncNet | None
    why_no_faces: str = "`make detectors` installs the landmark detector"
    why_no_embedder: str = "no trained face embedder is here: `visavis train face-embedder`"
    why_no_sync_net: str = "no trained SyncNet of ours is here: `visavis train sync-net`"

    def about(self) -> dict[str, Any]:
        """What a report says of them."""
        networks = {"face_embedder": self.embedder, "sync_net": self.sync_net}
        prints = {name: weights_fingerprint(network) for name, network in networks.items() if network is not None}
        return {"landmarks": "MediaPipe's face mesh" if self.faces is not None else None, "fingerprints": prints}


@dataclass(frozen=True, slots=True)
class SeenClip:
    """What the judges see of a rendering; None where a judge is not there, or no frame shows a face."""

    faces: Faces | None
    # of length 1
    embeddings_FD: Tensor | None
    mouths_FKK: npt.NDArray[np.uint8] | None
    sharpness_F: npt.NDArray[np.float64]
    colours_F3: npt.NDArray[np.float64]


def load_judges(faces: FindsFaces | None, why_no_faces: str, folder: Path | None) -> Judges:
    """`folder` holds `face_embedder` and `sync_net`; None: weights/judges. Raises EvaluationError for broken ones."""
    place = folder or _WEIGHTS
    embedder, sync_net = (
        _network(kind, place / name) for kind, name in ((FaceEmbedder, "face_embedder"), (SyncNet, "sync_net"))
    )
    return Judges(faces, embedder, sync_net, why_no_faces)


def look(frames_FHW3: Pictures, judges: Judges) -> SeenClip:
    """Looks at square pictures. Raises DetectorError."""
    faces = None if judges.faces is None else judges.faces.faces(frames_FHW3)
    places_FE4 = None if faces is None else ellipses_of(faces, frames_FHW3.shape[1])
    embeddings_FD, mouths_FKK = None, None
    if places_FE4 is not None and judges.embedder is not None:
        embeddings_FD = judges.embedder.embed(cut_out(frames_FHW3, places_FE4, FACE))
    if places_FE4 is not None and judges.sync_net is not None:
        mouths_FKK = grey(cut_out(frames_FHW3, places_FE4, MOUTH))
    return SeenClip(faces, embeddings_FD, mouths_FKK, sharpness(frames_FHW3), mean_lab(frames_FHW3))


def _network(kind: Any, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        return None
    try:
        network = kind.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"cannot load {folder}: {error}") from error
    return placed(network, torch.device("cpu"), torch.float32).eval().requires_grad_(False)
