"""FID, FVD, E-FID, Sync-C and Sync-D of clips, as far as the files of the original networks are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from visavis.evaluation.estimate import mean_over_clips
from visavis.evaluation.originals.clip_features import (
    DescribesClip,
    Features,
    FrechetCollector,
    Pictures,
    i3d_features,
    inception_features,
    load_i3d,
)
from visavis.evaluation.originals.face_tracks import cut_out, link_faces
from visavis.evaluation.originals.inception import load_inception
from visavis.evaluation.originals.reconstruction import (
    FaceReconstruction,
    align,
    load_reconstruction,
    load_standard_face,
)
from visavis.evaluation.originals.s3fd import find_faces, load_s3fd
from visavis.evaluation.originals.syncnet import load_syncnet, track_scores
from visavis.evaluation.report import Measure
from visavis.evaluation.sync_scores import SyncScores
from visavis.training.data.footage.detectors import FindsFaces

INCEPTION_FILE: Final = "pt_inception-2015-12-05-6726825d.pth"
I3D_FILE: Final = "i3d_torchscript.pt"
SYNCNET_FILES: Final = ("syncnet_v2.model", "sfd_face.pth")
RECONSTRUCTION_FILES: Final = ("epoch_20.pth", "similarity_Lm3D_all.mat")

FID, FVD, E_FID, SYNC_C, SYNC_D = "FID", "FVD", "E-FID", "Sync-C", "Sync-D"
_SAMPLES_A_FRAME: Final = 640
_FULL_SCALE: Final = 32_767
# In MediaPipe's mesh: corners of the eye on the picture's left, of the other, tip of the nose, corners of the mouth.
_LEFT_EYE, _RIGHT_EYE, _NOSE, _MOUTH = (33, 133), (362, 263), 1, (61, 291)

ScoresClip = Callable[[Pictures, npt.NDArray[np.float32]], SyncScores | None]


class OriginalMeasures:
    """Collects clip by clip. A network whose file is not in `folder` leaves its measure out, and says so."""

    def __init__(self, folder: Path | None, faces: FindsFaces | None) -> None:
        """`faces` finds the five points by which E-FID aligns pictures. Raises EvaluationError for a broken file."""
        self._why_not: dict[str, str] = {}
        self._frechet: dict[str, FrechetCollector] = {}
        self._scores: list[SyncScores] = []
        self._trackless = 0
        self._score: ScoresClip | None = None
        if paths := self._files(folder, [FID], INCEPTION_FILE):
            self._frechet[FID] = FrechetCollector(inception_features(load_inception(*paths)))
        if paths := self._files(folder, [FVD], I3D_FILE):
            self._frechet[FVD] = FrechetCollector(i3d_features(load_i3d(*paths)))
        if paths := self._files(folder, [E_FID], *RECONSTRUCTION_FILES):
            if faces is None:
                self._why_not[E_FID] = "needs the detectors: `make detectors`"
            else:
                network, standard = load_reconstruction(paths[0]), load_standard_face(paths[1])
                self._frechet[E_FID] = FrechetCollector(_expressions(network, standard, faces))
        if paths := self._files(folder, [SYNC_C, SYNC_D], *SYNCNET_FILES):
            self._score = _sync(*paths)

    def add(self, real_FHW3: Pictures, made_FHW3: Pictures, samples_S: npt.NDArray[np.float32]) -> None:
        """A clip as it was and as it was made, both without the portrait, and its speech, 640 samples a frame."""
        for collector in self._frechet.values():
            collector.add(real_FHW3, made_FHW3)
        if self._score is not None:
            scores = self._score(made_FHW3, samples_S)
            if scores is None:
                self._trackless += 1
            else:
                self._scores.append(scores)

    def results(self) -> list[Measure]:
        """In the order of the paper's Table 1."""
        return [
            *(self._distance(name) for name in (FID, FVD, E_FID)),
            self._sync_measure(SYNC_C, [each.confidence for each in self._scores]),
            self._sync_measure(SYNC_D, [each.distance for each in self._scores]),
        ]

    def _files(self, folder: Path | None, measures: list[str], *names: str) -> list[Path]:
        """Their paths, or none when one is missing; then it is noted."""
        paths = [folder / name for name in names] if folder is not None else []
        lacking = [path.name for path in paths if not path.is_file()] or ([] if paths else list(names))
        for measure in measures if lacking else []:
            self._why_not[measure] = f"needs {' and '.join(lacking)} in the folder of --originals"
        return [] if lacking else paths

    def _distance(self, name: str) -> Measure:
        if name in self._why_not:
            return Measure(name, None, why_not=self._why_not[name])
        return Measure(name, self._frechet[name].distance())

    def _sync_measure(self, name: str, values: list[float]) -> Measure:
        if name in self._why_not:
            return Measure(name, None, why_not=self._why_not[name])
        if not values:
            return Measure(name, None, why_not=f"no face track of more than 100 frames in {self._trackless} clips")
        return Measure(name, mean_over_clips(values))


def _sync(syncnet_path: Path, detector_path: Path) -> ScoresClip:
    """syncnet_python's pipeline on one clip, without the lossy AVI and JPEG files between its steps."""
    network, detector = load_syncnet(syncnet_path), load_s3fd(detector_path)

    def score(frames_FHW3: Pictures, samples_S: npt.NDArray[np.float32]) -> SyncScores | None:
        tracks = link_faces([find_faces(detector, picture) for picture in frames_FHW3])
        if not tracks:
            return None
        longest = max(tracks, key=lambda track: len(track.boxes_F4))
        heard = samples_S[_SAMPLES_A_FRAME * longest.first_frame :][: _SAMPLES_A_FRAME * len(longest.boxes_F4)]
        pcm = np.rint(np.clip(heard, -1, 1) * _FULL_SCALE).astype(np.int16)
        return track_scores(network, cut_out(frames_FHW3, longest), pcm)

    return score


def _expressions(network: FaceReconstruction, standard_53: npt.NDArray[np.float64], faces: FindsFaces) -> DescribesClip:
    """E-FID's: a row of 64 expression coefficients for each frame with a face."""

    @torch.no_grad()
    def describe(frames_FHW3: Pictures) -> Features:
        found = faces.faces(frames_FHW3)
        rows = []
        for picture, mesh_N2 in zip(frames_FHW3[found.found_F], found.landmarks_FN2[found.found_F], strict=True):
            aligned = align(picture, _five_points(mesh_N2), standard_53)
            rows.append(network.expressions(aligned[None]))
        return np.asarray(torch.cat(rows).double().numpy()) if rows else np.zeros((0, 64))

    return describe


def _five_points(mesh_N2: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    eyes = [mesh_N2[list(corners)].mean(axis=0) for corners in (_LEFT_EYE, _RIGHT_EYE)]
    return np.stack([*eyes, mesh_N2[_NOSE], *mesh_N2[list(_MOUTH)]]).astype(np.float64)
