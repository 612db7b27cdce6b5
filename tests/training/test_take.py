"""What a clip's person does and says, on the clip's time line."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.training.made_up_speaker import ToneSpeaker
from visavis.training.data.body import Body, lip_gap
from visavis.training.data.clip_plan import ClipPlan, plan_clip
from visavis.training.data.take import Take, perform
from visavis.training.data.voices import VOICES

FRAMES = 121


def take_of(plan: ClipPlan) -> Take:
    return perform(plan, VOICES, ToneSpeaker(), FRAMES, eye_width=0.2)


def silent_plan() -> ClipPlan:
    return next(plan for plan in (plan_clip(0, index, VOICES) for index in range(500)) if not plan.voice)


def spoken_plan(sentences: tuple[str, ...] = ("Papa.",), pauses: tuple[float, ...] = (0.4,)) -> ClipPlan:
    plan = next(plan for plan in (plan_clip(0, index, VOICES) for index in range(500)) if plan.voice)
    return dataclasses.replace(plan, sentences=sentences, pauses=pauses, noise=0.0, tempo=1.0)


def test_a_clip_held_in_silence_keeps_its_mouth_shut_and_goes_on_living(body: Body) -> None:
    take = take_of(dataclasses.replace(silent_plan(), noise=0.0))
    assert not take.phonemes
    assert not take.samples_S.any()
    assert not take.curves["jawOpen"].any()
    assert lip_gap(body.figure({}).pose(take.curves)).max() < 0.0005
    assert take.head.yaw.std() > 0
    assert take.curves["eyeLookOutLeft"].any()


@pytest.mark.parametrize("index", range(5))
def test_the_portrait_frame_has_a_shut_mouth_and_open_eyes(body: Body, index: int) -> None:
    take = take_of(plan_clip(4, index, VOICES))
    assert lip_gap(body.figure({}).pose(take.curves))[0] < 0.0005
    assert take.curves["eyeBlinkLeft"][0] == 0


def test_sample_0_belongs_to_frame_1() -> None:
    take = take_of(spoken_plan(pauses=(0.4,)))
    assert len(take.samples_S) == 640 * (FRAMES - 1)
    first_sound = int(np.flatnonzero(take.samples_S)[0])
    assert abs(first_sound - 6_400) < 40
    # 0.4 s is where frame 11 begins; lips open from p to a some 80 ms later
    opening = int((take.curves["jawOpen"] > 0.1).argmax())
    assert 11 <= opening <= 14
    assert take.phonemes[0].start == pytest.approx(0.4)


def test_sentences_follow_each_other_and_stop_with_the_clip() -> None:
    take = take_of(spoken_plan(("One sentence.", "Another one follows and goes on for a long time."), (0.1, 0.5)))
    assert max(sound.start for sound in take.phonemes) < 4.8
    starts = [sound.start for sound in take.phonemes]
    assert starts == sorted(starts)
    assert np.abs(take.samples_S[-640:]).max() > 0.1


def test_noise_of_the_room_is_as_loud_as_planned() -> None:
    take = take_of(dataclasses.replace(silent_plan(), noise=0.01))
    assert take.samples_S.std() == pytest.approx(0.01, rel=0.05)


def test_every_curve_is_between_nothing_and_all() -> None:
    take = take_of(plan_clip(9, 0, VOICES))
    assert all(len(curve) == FRAMES and curve.min() >= 0 and curve.max() <= 1 for curve in take.curves.values())


def test_eyes_blink_now_and_then() -> None:
    blinks = [
        int(
            (
                np.diff((take_of(dataclasses.replace(silent_plan(), index=index)).curves["eyeBlinkLeft"] > 0.9) * 1)
                == 1
            ).sum()
        )
        for index in range(30)
    ]
    assert 0.6 < np.mean(blinks) < 3
