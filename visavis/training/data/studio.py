"""Renders clips: one process's body, wardrobe and voices, kept between clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from visavis.training.data.body import load_body
from visavis.training.data.clip_plan import ClipPlan, plan_clip
from visavis.training.data.clips import Clip
from visavis.training.data.landmarks import RIMS
from visavis.training.data.people import draw_person
from visavis.training.data.regions import REGIONS, ellipse_around
from visavis.training.data.renderer import HeadPose, PersonRenderer
from visavis.training.data.shot import draw_shot
from visavis.training.data.take import SpeaksSentences, Take, perform
from visavis.training.data.voices import voices_of
from visavis.training.data.wardrobe import open_wardrobe

# 2: ellipses around the rims of lips and lids; those of 1 missed the corners of the mouth and took in half the nose.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """What all clips of a data set share. `frames` is 8k + 1; the picture is `size` x `size`."""

    seed: int
    engines: tuple[str, ...]
    frames: int = 121
    size: int = 256


class Studio:
    """Renders any clip of a data set; which clips it rendered before makes no difference."""

    def __init__(self, assets: Path, settings: ClipSettings, speaker: SpeaksSentences) -> None:
        """Raises AssetError for an incomplete asset folder, ValueError for unknown engines."""
        self._wardrobe = open_wardrobe(assets)
        self._settings = settings
        self._speaker = speaker
        self._voices = voices_of(settings.engines)
        self._body = load_body()

    def render(self, index: int) -> Clip:
        """Clip `index`. Raises AssetError or VoiceError."""
        return self.film(plan_clip(self._settings.seed, index, self._voices))

    def film(self, plan: ClipPlan) -> Clip:
        """The clip of any plan. Raises AssetError or VoiceError."""
        person = draw_person(plan.identity, self._wardrobe)
        shot = draw_shot((plan.seed, plan.index))
        take = perform(plan, self._voices, self._speaker, self._settings.frames, person.eye_width)
        renderer = PersonRenderer(person, shot, self._wardrobe, self._body, self._settings.size)
        frames_FHW3, ellipses_FE4 = self._pictures(renderer, take)
        return Clip(
            key=plan.key,
            frames_FHW3=frames_FHW3,
            samples_S=take.samples_S,
            actions=tuple(take.curves),
            curves_FA=np.stack(list(take.curves.values()), axis=1).astype(np.float32),
            head_F6=_head_columns(take),
            ellipses_FE4=ellipses_FE4,
            phonemes=take.phonemes,
            record={"format": FORMAT, "plan": asdict(plan), "person": asdict(person), "shot": asdict(shot)},
        )

    def _pictures(self, renderer: PersonRenderer, take: Take) -> tuple[np.ndarray, np.ndarray]:
        pictures, ellipses = [], []
        head = take.head
        for number, points_V3 in enumerate(renderer.pose(take.curves)):
            right, back, up = (float(value) for value in head.shift_F3[number])
            pose = HeadPose(
                float(head.yaw[number]), float(head.pitch[number]), float(head.roll[number]), (right, back, up)
            )
            pictures.append(renderer.render(points_V3, pose))
            ellipses.append(
                [ellipse_around(renderer.screen(RIMS[name]), name, self._settings.size) for name in REGIONS]
            )
        return np.stack(pictures), np.array(ellipses, dtype=np.float32)


def plan_record(plans: Sequence[ClipPlan]) -> dict[str, int]:
    """How many clips, people and voices some plans have."""
    return {
        "clips": len(plans),
        "people": len({plan.identity for plan in plans}),
        "voices": len({plan.voice for plan in plans if plan.voice}),
        "silent": sum(not plan.voice for plan in plans),
    }


def _head_columns(take: Take) -> np.ndarray:
    head = take.head
    return np.column_stack([head.yaw, head.pitch, head.roll, head.shift_F3]).astype(np.float32)
