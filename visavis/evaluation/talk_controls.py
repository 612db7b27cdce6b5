"""Controls that must fail, and speech of which there is no truth: strange speech, a strange portrait, silence, people.

F frames
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.evaluation.clip_people import somebody_speaks
from visavis.evaluation.estimate import Estimate, estimate, mean_over_clips, ratio_of_sums
from visavis.evaluation.face_points import SignalMoments, correlation
from visavis.evaluation.judges import Judges, look
from visavis.evaluation.lip_motion import Signal, lag_frames, lip_gap, moments_at_lag
from visavis.evaluation.portraits import Portraits
from visavis.evaluation.report import Measure
from visavis.evaluation.speech_loudness import loudness
from visavis.training.data.clips import Clip

SHUFFLED_BAR: Final = 0.2
LOST_IDENTITY_BAR: Final = 0.05
SHUT_GAP: Final = 0.01
SHUT_BAR: Final = 0.95

Pictures = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]


@dataclass(slots=True)
class SwapControl:
    """One person's portrait with another's speech: it controls both.

    Its lips are compared with the truth of the portrait's clip, whose speech it did not hear: no correlation may be
    left but that of the two truths: clips begin and end alike. Its face is looked for among the portraits, as the
    speech's owner's: it may not be found. And lips must still follow the speech that it did hear.
    """

    judges: Judges
    portraits: Portraits | None
    _strange: list[SignalMoments] = field(default_factory=list)
    _heard: list[SignalMoments] = field(default_factory=list)
    _truths: list[SignalMoments] = field(default_factory=list)
    _nearest: list[float] = field(default_factory=list)

    def add(self, face: Clip, voice: Clip, made_FHW3: Pictures) -> None:
        """What was made of the portrait of `face` and the speech of `voice`."""
        made = look(made_FHW3, self.judges)
        if made.faces is None or self.judges.faces is None:
            return
        gap_F = lip_gap(made.faces)
        truths = [self.judges.faces.faces(clip.frames_FHW3[1 : 1 + len(made_FHW3)]) for clip in (face, voice)]
        own_F, heard_F = (lip_gap(truth) for truth in truths)
        self._strange.append(moments_at_lag(own_F, gap_F, 0))
        self._heard.append(moments_at_lag(heard_F, gap_F, 0))
        self._truths.append(moments_at_lag(own_F, heard_F, 0))
        if self.portraits is not None and made.embeddings_FD is not None and voice.key in self.portraits.keys:
            self._nearest.append(float(self.portraits.nearest(made.embeddings_FD, voice.key).float().mean()))

    def results(self) -> list[Measure]:
        """The two controls, the lips of the second, and how alike the clips are that were swapped."""
        why = self.judges.why_no_faces if self.judges.faces is None else "no clip was made with another's speech"
        no_embedder = self.judges.why_no_embedder if self.judges.embedder is None else why
        return [
            Measure(
                "control_shuffled_speech_lip_gap_correlation",
                correlation(self._strange) if self._strange else None,
                highest=SHUFFLED_BAR,
                why_not=why,
            ),
            Measure(
                "control_wrong_portrait_own_nearest",
                mean_over_clips(self._nearest) if self._nearest else None,
                highest=LOST_IDENTITY_BAR,
                why_not=no_embedder,
            ),
            Measure(
                "control_wrong_portrait_lip_gap_correlation",
                correlation(self._heard) if self._heard else None,
                why_not=why,
            ),
            Measure(
                "lip_gap_correlation_of_shuffled_truth",
                correlation(self._truths) if self._truths else None,
                why_not=why,
            ),
        ]


@dataclass(slots=True)
class SilenceMeasure:
    """Whether mouths stay shut: the share of frames whose lips are less than a hundredth of the face's height apart."""

    judges: Judges
    _made: list[tuple[int, int]] = field(default_factory=list)
    _portraits: list[tuple[int, int]] = field(default_factory=list)

    def add(self, portrait_HW3: npt.NDArray[np.uint8], made_FHW3: Pictures) -> None:
        """A portrait whose mouth is shut, and what was made of it without any sound."""
        for pictures_FHW3, counts in ((made_FHW3, self._made), (portrait_HW3[None], self._portraits)):
            if self.judges.faces is not None:
                gap_F = lip_gap(self.judges.faces.faces(pictures_FHW3))
                known_F = gap_F[np.isfinite(gap_F)]
                counts.append((int((known_F < SHUT_GAP).sum()), len(known_F)))

    def results(self) -> list[Measure]:
        """Of what was made; and of the portraits, which says what the detector makes of a shut mouth."""
        why = self.judges.why_no_faces if self.judges.faces is None else "nothing was made of silence"
        made, portraits = (_share(counts) for counts in (self._made, self._portraits))
        return [
            Measure("mouth_shut_in_silence", made, lowest=SHUT_BAR, why_not=why),
            Measure("mouth_shut_in_portraits", portraits, why_not=why),
        ]


@dataclass(slots=True)
class LoudnessMeasure:
    """Whether lips move in time with speech of which there is no truth: their gap against the speech's loudness.

    Clips with their truth say how high this goes; loudness and lips differ also in people.
    """

    judges: Judges
    _recorded: list[tuple[Signal, Signal]] = field(default_factory=list)
    _truth: list[SignalMoments] = field(default_factory=list)

    def add_recording(self, samples_S: Samples, made_FHW3: Pictures) -> None:
        """Recorded speech, and what was made of it."""
        if self.judges.faces is not None:
            gap_F = lip_gap(self.judges.faces.faces(made_FHW3))
            self._recorded.append((loudness(samples_S, len(made_FHW3)), gap_F))

    def add_truth(self, clip: Clip, frames: int) -> None:
        """A clip as it is, its first frames behind the portrait."""
        if self.judges.faces is not None and somebody_speaks(clip):
            gap_F = lip_gap(self.judges.faces.faces(clip.frames_FHW3[1 : 1 + frames]))
            self._truth.append(moments_at_lag(loudness(clip.samples_S, len(gap_F)), gap_F, 0))

    def results(self) -> list[Measure]:
        """Correlations: of recordings, of recordings with lips made of the next one, of clips with their truth."""
        why = self.judges.why_no_faces if self.judges.faces is None else "no recording was given (--recordings)"
        own = [moments_at_lag(loud_F, gap_F, 0) for loud_F, gap_F in self._recorded]
        nexts = [*self._recorded[1:], *self._recorded[:1]]
        pairs = zip(self._recorded, nexts, strict=True) if len(nexts) > 1 else ()
        strange = [moments_at_lag(loud_F, gap_F, 0) for (loud_F, _), (_, gap_F) in pairs]
        lags = [lag for lag in (lag_frames(*pair) for pair in self._recorded) if np.isfinite(lag)]
        return [
            Measure("recorded_speech_lip_loudness_correlation", correlation(own) if own else None, why_not=why),
            Measure("recorded_speech_lip_lag_frames", mean_over_clips(lags) if lags else None, why_not=why),
            Measure(
                "control_shuffled_recordings_lip_loudness_correlation",
                correlation(strange) if strange else None,
                why_not=why if not own else "one recording cannot be shuffled",
            ),
            Measure(
                "lip_loudness_correlation_of_truth",
                correlation(self._truth) if self._truth else None,
                why_not=self.judges.why_no_faces if self.judges.faces is None else "nobody speaks in these clips",
            ),
        ]


def _share(counts: list[tuple[int, int]]) -> Estimate | None:
    seen = [(shut, frames) for shut, frames in counts if frames]
    return estimate(seen, ratio_of_sums) if seen else None
