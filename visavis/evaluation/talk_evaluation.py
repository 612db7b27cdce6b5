"""The whole evaluation of a talking model: every clip, the controls, silence, recorded speech."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.contract import CHUNK_SAMPLES
from visavis.evaluation.clip_people import person_of, somebody_speaks
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.judges import Judges
from visavis.evaluation.originals.measures import OriginalMeasures
from visavis.evaluation.portraits import Portraits
from visavis.evaluation.report import Measure
from visavis.evaluation.talk_controls import LoudnessMeasure, SilenceMeasure, SwapControl
from visavis.evaluation.talk_measures import TalkMeasures
from visavis.evaluation.talkers import Talker, talk
from visavis.training.data.clips import Clip

_SILENT_CHUNKS = 5

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TalkPlan:
    """How much is made besides the clips themselves.

    `control_clips` get the next person's speech, `silent_clips` portraits get none (five chunks), and each of
    `recordings` is spoken by another portrait.
    """

    seed: int
    control_clips: int
    silent_clips: int
    recordings: Mapping[str, Samples]


@dataclass(frozen=True, slots=True)
class TalkEvaluation:
    """What is evaluated, and by whom. `announce` hears what is being made."""

    talker: Talker
    judges: Judges
    portraits: Portraits | None
    originals: OriginalMeasures
    announce: Callable[[str], None]

    def run(self, clips: Sequence[Clip], plan: TalkPlan) -> list[Measure]:
        """Everything, in the order of a report. Raises EvaluationError for no clips."""
        if not clips:
            raise EvaluationError("there is no clip to measure")
        own = TalkMeasures(self.judges, self.portraits, self.originals)
        loudness = LoudnessMeasure(self.judges)
        for number, clip in enumerate(clips, start=1):
            self.announce(f"clip {number} of {len(clips)}")
            made_FHW3 = talk(self.talker, clip.frames_FHW3[0], clip.samples_S, plan.seed)
            own.add(clip, made_FHW3)
            loudness.add_truth(clip, len(made_FHW3))
        return [
            *own.results(),
            *self._controls(clips, plan),
            *self._silence(clips, plan),
            *self._recordings(clips, plan, loudness),
        ]

    def _controls(self, clips: Sequence[Clip], plan: TalkPlan) -> list[Measure]:
        control = SwapControl(self.judges, self.portraits)
        for face, voice in swapped(clips)[: plan.control_clips]:
            self.announce(f"control: the face of clip {face.key}, the speech of {voice.key}")
            control.add(face, voice, talk(self.talker, face.frames_FHW3[0], voice.samples_S, plan.seed))
        return control.results()

    def _silence(self, clips: Sequence[Clip], plan: TalkPlan) -> list[Measure]:
        measure = SilenceMeasure(self.judges)
        silence_S = np.zeros(_SILENT_CHUNKS * CHUNK_SAMPLES, dtype=np.float32)
        for clip in clips[: plan.silent_clips]:
            self.announce(f"silence: clip {clip.key}")
            portrait_HW3 = clip.frames_FHW3[0]
            measure.add(portrait_HW3, talk(self.talker, portrait_HW3, silence_S, plan.seed))
        return measure.results()

    def _recordings(self, clips: Sequence[Clip], plan: TalkPlan, loudness: LoudnessMeasure) -> list[Measure]:
        for number, (name, samples_S) in enumerate(plan.recordings.items()):
            clip = clips[number % len(clips)]
            self.announce(f"recording {name}: clip {clip.key}")
            loudness.add_recording(samples_S, talk(self.talker, clip.frames_FHW3[0], samples_S, plan.seed))
        return loudness.results()


def swapped(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """Each speaking clip with the next one that another person speaks."""
    speaking = [clip for clip in clips if somebody_speaks(clip)]
    pairs = zip(speaking, [*speaking[1:], *speaking[:1]], strict=True)
    return [(face, voice) for face, voice in pairs if person_of(face) != person_of(voice)]
