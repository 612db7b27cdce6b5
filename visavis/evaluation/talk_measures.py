"""Measures generated talking faces on clips whose truth is known: lips, identity, borders, pictures.

Whatever needs a judge that is not there is named as not measured. Nothing here is called by the name of a published
measure; those are in `originals`.

F frames without the portrait, D embedding, L lags
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visavis.contract import FRAME_RATE
from visavis.evaluation.blinks import blinks_per_minute, count_blinks, eye_opening
from visavis.evaluation.boundary_jerk import boundary_jerk
from visavis.evaluation.clip_people import somebody_speaks
from visavis.evaluation.colour import colour_distance
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.estimate import Estimate, defined, estimate, mean_over_clips, ratio_of_sums
from visavis.evaluation.face_points import SignalMoments, correlation, landmark_error
from visavis.evaluation.frechet import fit_gaussian, frechet_distance
from visavis.evaluation.judges import Judges, SeenClip, look
from visavis.evaluation.lip_motion import lag_frames, lip_gap, moments_at_lag
from visavis.evaluation.originals.measures import OriginalMeasures
from visavis.evaluation.portraits import Portraits
from visavis.evaluation.report import Measure
from visavis.evaluation.seams import FrameChanges, frame_changes, seam
from visavis.evaluation.sync_scores import SyncScores
from visavis.evaluation.video_vae import as_pictures
from visavis.training.data.clips import Clip

CORRELATION_BAR: Final = 0.8
LAG_BAR: Final = 0.5
OWN_PORTRAIT_BAR: Final = 0.95
_NO_FACE: Final = "no face was found"
_STILL: Final = "no face moved across a border and elsewhere"
_NOTHING_MOVED: Final = "nobody moved the lips"

Pictures = npt.NDArray[np.uint8]
Curve = npt.NDArray[np.float64]


@dataclass(slots=True)
class TalkMeasures:
    """Collects clip by clip."""

    judges: Judges
    portraits: Portraits | None
    originals: OriginalMeasures | None = None
    _lip_moments: list[SignalMoments] = field(default_factory=list)
    _lags: list[float] = field(default_factory=list)
    _landmark_errors: list[float] = field(default_factory=list)
    _blinks: list[tuple[int, int]] = field(default_factory=list)
    _true_blinks: list[tuple[int, int]] = field(default_factory=list)
    _faces_found: list[float] = field(default_factory=list)
    _jerks: list[tuple[FrameChanges, FrameChanges]] = field(default_factory=list)
    _changes: list[tuple[FrameChanges, FrameChanges]] = field(default_factory=list)
    _cosines: list[float] = field(default_factory=list)
    _nearest: list[float] = field(default_factory=list)
    _embeddings: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    _sync: list[SyncScores] = field(default_factory=list)
    _true_sync: list[SyncScores] = field(default_factory=list)
    _detail: list[tuple[float, float]] = field(default_factory=list)
    _colour_shifts: list[float] = field(default_factory=list)
    _colour_drifts: list[float] = field(default_factory=list)
    _curves: dict[str, list[Curve]] = field(default_factory=dict)

    def add(self, clip: Clip, made_FHW3: Pictures) -> None:
        """A clip, and what was made of its portrait and speech: its frames from 1 on, or the first of them.

        Raises ValueError for more frames than the clip has, or another picture size.
        """
        truth_FHW3 = clip.frames_FHW3[1 : 1 + len(made_FHW3)]
        if truth_FHW3.shape != made_FHW3.shape:
            raise ValueError(f"clip {clip.key} has frames {truth_FHW3.shape}, what was made {made_FHW3.shape}")
        portrait, truth, made = (look(part, self.judges) for part in (clip.frames_FHW3[:1], truth_FHW3, made_FHW3))
        self._add_pictures(clip.frames_FHW3[:1], truth_FHW3, made_FHW3, portrait, truth, made)
        self._add_points(truth, made)
        self._add_identity(clip, truth, made)
        self._add_sync(clip, truth, made)
        if self.originals is not None:
            self.originals.add(truth_FHW3, made_FHW3, clip.samples_S)

    def results(self) -> list[Measure]:
        """Everything, in the order of a report. Raises EvaluationError for no clips."""
        if not self._detail:
            raise EvaluationError("there is no clip to measure")
        return [
            *self._lips(),
            *self._identity(),
            *self._borders(),
            Measure("sharpness_ratio", defined(estimate(self._detail, ratio_of_sums)), why_not="the truth is all flat"),
            Measure("colour_shift", mean_over_clips(self._colour_shifts)),
            Measure("colour_drift", mean_over_clips(self._colour_drifts)),
            *self._sync_measures(),
            *(self.originals.results() if self.originals is not None else []),
        ]

    def over_time(self) -> dict[str, list[float]]:
        """Sharpness, identity and colour in each second, mean over clips; a name is there where it was measured."""
        seconds = {}
        for name, curves in self._curves.items():
            frames = min(map(len, curves)) // FRAME_RATE * FRAME_RATE
            mean_F = np.mean([curve[:frames] for curve in curves], axis=0)
            seconds[name] = [float(value) for value in mean_F.reshape(-1, FRAME_RATE).mean(axis=1)]
        return seconds

    def _add_pictures(
        self,
        portrait_1HW3: Pictures,
        truth_FHW3: Pictures,
        made_FHW3: Pictures,
        portrait: SeenClip,
        truth: SeenClip,
        made: SeenClip,
    ) -> None:
        self._detail.append((float(made.sharpness_F.sum()), float(truth.sharpness_F.sum())))
        shift_F = colour_distance(made.colours_F3, portrait.colours_F3[0])
        self._colour_shifts.append(float(shift_F.mean()))
        first, last = (made.colours_F3[part].mean(axis=0) for part in (slice(FRAME_RATE), slice(-FRAME_RATE, None)))
        self._colour_drifts.append(float(colour_distance(last[None], first)[0]))
        self._curve("sharpness", made.sharpness_F / truth.sharpness_F.mean())
        self._curve("colour_shift", shift_F)
        whole = [as_pictures(np.concatenate([portrait_1HW3, frames])) for frames in (truth_FHW3, made_FHW3)]
        self._changes.append((frame_changes(whole[0]), frame_changes(whole[1])))

    def _add_points(self, truth: SeenClip, made: SeenClip) -> None:
        if truth.faces is None or made.faces is None:
            return
        self._faces_found.append(float(made.faces.found_F.mean()))
        gaps = lip_gap(truth.faces), lip_gap(made.faces)
        self._lip_moments.append(moments_at_lag(*gaps, 0))
        self._lags.append(lag_frames(*gaps))
        self._landmark_errors.append(landmark_error(truth.faces, made.faces))
        for faces, blinks in ((made.faces, self._blinks), (truth.faces, self._true_blinks)):
            blinks.append((count_blinks(eye_opening(faces)), len(faces.found_F)))
        jerks = boundary_jerk(truth.faces), boundary_jerk(made.faces)
        if jerks[0] is not None and jerks[1] is not None and min(astuple(jerks[0])) > 0:
            self._jerks.append((jerks[0], jerks[1]))

    def _add_identity(self, clip: Clip, truth: SeenClip, made: SeenClip) -> None:
        if self.portraits is None or clip.key not in self.portraits.keys:
            return
        if truth.embeddings_FD is None or made.embeddings_FD is None:
            return
        cosines_F = self.portraits.cosines(made.embeddings_FD, clip.key)
        self._cosines.append(float(cosines_F.mean()))
        self._nearest.append(float(self.portraits.nearest(made.embeddings_FD, clip.key).float().mean()))
        self._curve("identity_cosine", cosines_F.double().numpy())
        self._embeddings[0].append(truth.embeddings_FD)
        self._embeddings[1].append(made.embeddings_FD)

    def _add_sync(self, clip: Clip, truth: SeenClip, made: SeenClip) -> None:
        if self.judges.sync_net is None or not somebody_speaks(clip):
            return
        for seen, scores in ((made, self._sync), (truth, self._true_sync)):
            if seen.mouths_FKK is not None:
                scores.append(self.judges.sync_net.scores(seen.mouths_FKK, clip.samples_S))

    def _curve(self, name: str, values_F: Curve) -> None:
        self._curves.setdefault(name, []).append(values_F)

    def _lips(self) -> list[Measure]:
        why = self.judges.why_no_faces if self.judges.faces is None else _NO_FACE
        lags = [lag for lag in self._lags if math.isfinite(lag)]
        errors = [error for error in self._landmark_errors if math.isfinite(error)]
        seen = bool(errors)
        return [
            Measure(
                "lip_gap_correlation",
                correlation(self._lip_moments) if seen else None,
                lowest=CORRELATION_BAR,
                why_not=why,
            ),
            Measure(
                "lip_lag_frames",
                mean_over_clips(lags) if lags else None,
                lowest=-LAG_BAR,
                highest=LAG_BAR,
                why_not=_NOTHING_MOVED if seen else why,
            ),
            Measure("landmark_error_px", mean_over_clips(errors) if seen else None, why_not=why),
            Measure("blinks_per_minute", blinks_per_minute(self._blinks) if seen else None, why_not=why),
            Measure("blinks_per_minute_of_truth", blinks_per_minute(self._true_blinks) if seen else None, why_not=why),
            Measure("frames_with_face", mean_over_clips(self._faces_found) if self._faces_found else None, why_not=why),
        ]

    def _identity(self) -> list[Measure]:
        why = _NO_FACE
        if self.judges.faces is None:
            why = self.judges.why_no_faces
        elif self.judges.embedder is None:
            why = self.judges.why_no_embedder
        alone = self.portraits is not None and self.portraits.people_count < 2
        return [
            Measure("identity_cosine", self._mean(self._cosines), why_not=why),
            Measure(
                "own_portrait_nearest",
                None if alone else self._mean(self._nearest),
                lowest=OWN_PORTRAIT_BAR,
                why_not="there is one person only" if alone else why,
            ),
            Measure("face_embedding_frechet", self._embedding_distance(), why_not=why),
        ]

    def _embedding_distance(self) -> float | None:
        if not self._embeddings[0]:
            return None
        truth, made = (fit_gaussian(torch.cat(rows).double().numpy()) for rows in self._embeddings)
        return frechet_distance(truth, made)

    def _borders(self) -> list[Measure]:
        why = self.judges.why_no_faces if self.judges.faces is None else _STILL
        jerk = defined(seam(*zip(*self._jerks, strict=True))) if self._jerks else None
        moving = [pair for pair in self._changes if min(astuple(pair[0])) > 0]
        edge = defined(seam(*zip(*moving, strict=True))) if moving else None
        return [Measure("boundary_jerk", jerk, why_not=why), Measure("seam_ratio", edge, why_not=_STILL)]

    def _sync_measures(self) -> list[Measure]:
        why = self.judges.why_no_sync_net if self.judges.sync_net is None else _NO_FACE
        why = self.judges.why_no_faces if self.judges.faces is None else why
        names: Sequence[tuple[str, list[SyncScores]]] = (("", self._sync), ("_of_truth", self._true_sync))
        read: Sequence[tuple[str, Callable[[SyncScores], float]]] = (
            ("own_sync_confidence", lambda scores: scores.confidence),
            ("own_sync_distance", lambda scores: scores.distance),
        )
        return [
            Measure(name + end, self._mean([value(each) for each in scores]), why_not=why)
            for end, scores in names
            for name, value in read
        ]

    @staticmethod
    def _mean(values: Sequence[float]) -> Estimate | None:
        return mean_over_clips(values) if values else None
