"""Each measure of a talking face on renderings of which it is known what is wrong with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.evaluation.coded_faces import CodedFaces, coded_clip, random_gaps
from visavis.contract import CHUNK_FRAMES
from visavis.evaluation.blinks import blinks_per_minute, count_blinks
from visavis.evaluation.boundary_jerk import boundary_jerk
from visavis.evaluation.colour import colour_distance, mean_lab
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.estimate import Estimate
from visavis.evaluation.face_crops import FACE, cut_out
from visavis.evaluation.face_embedder import FaceEmbedder
from visavis.evaluation.judges import Judges, load_judges
from visavis.evaluation.lip_motion import lag_frames
from visavis.evaluation.long_stream import StreamEnds, StreamMeasures, long_speech
from visavis.evaluation.portraits import portraits_of
from visavis.evaluation.remembered_faces import RememberedFaces
from visavis.evaluation.report import Measure
from visavis.evaluation.sharpness import sharpness
from visavis.evaluation.speech_loudness import loudness
from visavis.evaluation.sync_net import SyncNet
from visavis.evaluation.talk_controls import LoudnessMeasure, SilenceMeasure, SwapControl
from visavis.evaluation.talk_measures import TalkMeasures
from visavis.training.data.clips import Clip


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    embedder = FaceEmbedder(widths=(8, 8, 16, 16), embedding=16).eval()
    sync_net = SyncNet(picture_widths=(8, 8, 8, 8), embedding=16).eval()
    return Judges(CodedFaces(), embedder, sync_net)


CLIPS = [coded_clip(index, random_gaps(index)) for index in range(4)]


def _measured(judges: Judges, pairs: list[tuple[Clip, np.ndarray]]) -> dict[str, Measure]:
    collected = TalkMeasures(judges, portraits_of(CLIPS, judges))
    for clip, made in pairs:
        collected.add(clip, made)
    return {measure.name: measure for measure in collected.results()}


def _value(measure: Measure) -> float:
    assert measure.value is not None, measure.why_not
    return measure.value.value if isinstance(measure.value, Estimate) else float(measure.value)


def test_the_truth_is_the_truth(judges: Judges) -> None:
    measures = _measured(judges, [(clip, clip.frames_FHW3[1:]) for clip in CLIPS])

    expected = {
        "lip_gap_correlation": 1,
        "lip_lag_frames": 0,
        "landmark_error_px": 0,
        "frames_with_face": 1,
        "own_portrait_nearest": 1,
        "face_embedding_frechet": 0,
        "boundary_jerk": 1,
        "sharpness_ratio": 1,
    }
    for name, value in expected.items():
        assert _value(measures[name]) == pytest.approx(value, abs=1e-5), name
    assert _value(measures["identity_cosine"]) > 0.99
    assert measures["lip_gap_correlation"].met
    assert measures["own_portrait_nearest"].met
    assert _value(measures["own_sync_distance"]) == _value(measures["own_sync_distance_of_truth"])


def test_late_lips_are_late_and_strange_lips_do_not_correlate(judges: Judges) -> None:
    late = [(clip, np.roll(clip.frames_FHW3[1:], 3, axis=0)) for clip in CLIPS]
    strange = [(clip, CLIPS[index - 1].frames_FHW3[1:]) for index, clip in enumerate(CLIPS)]

    lag = _measured(judges, late)["lip_lag_frames"]
    assert _value(lag) == pytest.approx(3, abs=0.2)
    assert not lag.met
    measures = _measured(judges, strange)
    assert abs(_value(measures["lip_gap_correlation"])) < 0.3
    assert _value(measures["own_portrait_nearest"]) < 0.05
    assert not measures["own_portrait_nearest"].met
    assert _value(measures["face_embedding_frechet"]) == pytest.approx(0, abs=1e-5)  # the same people, others' clips


def test_a_lag_has_fractions() -> None:
    times = np.arange(300)

    def wave(delay: float) -> npt.NDArray[np.float64]:
        return np.asarray(np.sin((times - delay) / 4.3) + 0.7 * np.sin((times - delay) / 2.1 + 1))

    for delay in (-7.0, 0.0, 0.3, 2.5, 3.0):
        assert lag_frames(wave(0), wave(delay)) == pytest.approx(delay, abs=0.1)
    with_gaps = wave(2)
    with_gaps[50:60] = np.nan
    assert lag_frames(wave(0), with_gaps) == pytest.approx(2, abs=0.1)
    assert math.isnan(lag_frames(wave(0), np.zeros(300)))


def test_blinks_are_counted() -> None:
    opening = np.ones(250)
    opening[[20, 21, 22, 100, 180, 181]] = 0.1
    opening[150] = np.nan
    assert count_blinks(opening) == 3
    assert blinks_per_minute([(3, 250)]).value == pytest.approx(18)
    assert count_blinks(np.full(5, np.nan)) == 0


def test_a_jerk_at_borders_is_told_from_one_elsewhere() -> None:
    gaps = np.linspace(0.2, 0.6, 3 * CHUNK_FRAMES)
    borders, elsewhere = gaps.copy(), gaps.copy()
    borders[CHUNK_FRAMES:] += 0.2
    borders[2 * CHUNK_FRAMES :] += 0.2
    elsewhere[7:] += 0.2
    jerks = [boundary_jerk(CodedFaces().faces(coded_clip(0, signal).frames_FHW3)) for signal in (borders, elsewhere)]
    assert jerks[0] is not None
    assert jerks[1] is not None
    assert jerks[0].at_borders > 10 * jerks[0].elsewhere
    assert jerks[1].at_borders < jerks[1].elsewhere
    assert boundary_jerk(CodedFaces().faces(coded_clip(0, gaps[:20]).frames_FHW3)) is None


def test_soft_pictures_are_less_sharp_and_tinted_ones_have_moved(judges: Judges) -> None:
    soft = [
        (clip, ((clip.frames_FHW3[1:].astype(int) + np.roll(clip.frames_FHW3[1:], 1, axis=2)) // 2).astype(np.uint8))
        for clip in CLIPS[:2]
    ]
    red = [(clip, clip.frames_FHW3[1:].copy()) for clip in CLIPS[:2]]
    for _, made in red:
        made[48:, :, :, 0] = np.minimum(255, made[48:, :, :, 0].astype(int) + 40)

    assert _value(_measured(judges, soft)["sharpness_ratio"]) < 0.9
    truth = _measured(judges, [(clip, clip.frames_FHW3[1:]) for clip in CLIPS[:2]])
    tinted = _measured(judges, red)
    assert _value(tinted["colour_drift"]) > _value(truth["colour_drift"]) + 5
    assert _value(tinted["colour_shift"]) > _value(truth["colour_shift"]) + 2


def test_colours_are_those_of_cie_lab() -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [119, 119, 119]], dtype=np.uint8)
    lab = mean_lab(np.tile(colours[:, None, None], (1, 2, 2, 1)))
    # Of sRGB red: 53.24, 80.09, 67.20.
    expected = np.array([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]])
    np.testing.assert_allclose(lab[:3], expected, atol=0.03)
    assert lab[3, 0] == pytest.approx(50.03, abs=0.05)
    assert colour_distance(lab[:1], lab[1]) == pytest.approx(100, abs=0.01)
    flat = np.full((1, 8, 8, 3), 9, dtype=np.uint8)
    flat[0, 4, 4] = 9 + 51
    assert sharpness(flat)[0] == pytest.approx(0.2 * 8 / 36, rel=1e-4)


def test_loudness_is_in_decibels_below_the_loudest_frame() -> None:
    samples = np.ones(640 * 4, dtype=np.float32)
    for frame, level in enumerate((0.5, 0.05, 0.005, 0.0005)):
        samples[640 * frame : 640 * (frame + 1)] *= level
    np.testing.assert_allclose(loudness(samples, 5), [1, 0.5, 0, 0, 0], atol=1e-6)
    assert not loudness(np.zeros(640, dtype=np.float32), 1).any()


def test_controls_fail_where_a_model_does_what_it_should(judges: Judges) -> None:
    """A perfect model gives the face the other's lips; one that does not hear gives it its own."""
    perfect, deaf = (SwapControl(judges, portraits_of(CLIPS, judges)) for _ in range(2))
    for face, voice in zip(CLIPS, [*CLIPS[1:], CLIPS[0]], strict=True):
        obedient = face.frames_FHW3[1:].copy()
        obedient[:, :8, :8] = voice.frames_FHW3[1:, :8, :8]
        perfect.add(face, voice, obedient)
        deaf.add(face, voice, face.frames_FHW3[1:])

    found, other = ({measure.name: measure for measure in each.results()} for each in (perfect, deaf))
    assert found["control_wrong_portrait_own_nearest"].met
    assert _value(found["control_wrong_portrait_lip_gap_correlation"]) == pytest.approx(1, abs=1e-6)
    left = _value(found["lip_gap_correlation_of_shuffled_truth"])
    assert abs(left) < 0.3
    assert _value(found["control_shuffled_speech_lip_gap_correlation"]) == pytest.approx(left)
    assert _value(other["control_shuffled_speech_lip_gap_correlation"]) == pytest.approx(1, abs=1e-6)
    assert other["control_shuffled_speech_lip_gap_correlation"].met is False


def test_silence_wants_shut_mouths_and_recordings_want_moving_ones(judges: Judges) -> None:
    silence, speech = SilenceMeasure(judges), LoudnessMeasure(judges)
    shut = coded_clip(0, np.concatenate([np.zeros(46), np.full(2, 0.5)])).frames_FHW3
    silence.add(shut[0], shut)
    results = {measure.name: measure for measure in silence.results()}
    assert _value(results["mouth_shut_in_silence"]) == pytest.approx(46 / 48)
    assert results["mouth_shut_in_silence"].met
    assert _value(results["mouth_shut_in_portraits"]) == 1

    for seed in range(2):
        gaps = random_gaps(seed, 96)
        samples = np.random.default_rng(seed).normal(size=640 * 96) * np.repeat(10 ** (2 * gaps - 2), 640)
        speech.add_recording(samples.astype(np.float32), coded_clip(seed, gaps).frames_FHW3)
    results = {measure.name: measure for measure in speech.results()}
    assert _value(results["recorded_speech_lip_loudness_correlation"]) > 0.9
    assert abs(_value(results["control_shuffled_recordings_lip_loudness_correlation"])) < 0.4
    assert _value(results["recorded_speech_lip_lag_frames"]) == pytest.approx(0, abs=0.3)


def test_who_is_not_there_does_not_judge(tmp_path: Path) -> None:
    blind = load_judges(None, "`make detectors` first", tmp_path)
    measures = _measured(blind, [(CLIPS[0], CLIPS[0].frames_FHW3[1:])])
    for name in ("lip_gap_correlation", "boundary_jerk", "identity_cosine", "own_sync_confidence"):
        assert measures[name].value is None
        assert "make detectors" in measures[name].why_not
    assert _value(measures["seam_ratio"]) == pytest.approx(1)
    with pytest.raises(EvaluationError, match="no clip"):
        TalkMeasures(blind, None).results()
    with pytest.raises(ValueError, match="what was made"):
        TalkMeasures(blind, None).add(CLIPS[0], CLIPS[0].frames_FHW3)


def test_faces_are_looked_for_once(tmp_path: Path) -> None:
    finder = CodedFaces()
    remembered = RememberedFaces(finder, tmp_path)
    first, again = (remembered.faces(CLIPS[0].frames_FHW3) for _ in range(2))
    remembered.faces(CLIPS[1].frames_FHW3)
    assert finder.asked == 2
    np.testing.assert_array_equal(first.landmarks_FN2, again.landmarks_FN2)


def test_a_cut_out_holds_the_face_wherever_it_is() -> None:
    clip = CLIPS[0]
    shifted = replace(clip, frames_FHW3=np.roll(clip.frames_FHW3, (4, 6), axis=(1, 2)))
    shifted.ellipses_FE4[...] = clip.ellipses_FE4
    places = clip.ellipses_FE4[:1].repeat(len(clip.frames_FHW3), axis=0)
    moved = places.copy()
    moved[..., 0] += 6 / 64
    moved[..., 1] += 4 / 64
    one, other = cut_out(clip.frames_FHW3, places, FACE), cut_out(shifted.frames_FHW3, moved, FACE)
    inner = (slice(None), slice(24, -24), slice(24, -24))
    assert one.shape == (97, FACE.pixels, FACE.pixels, 3)
    np.testing.assert_allclose(one[inner].astype(int), other[inner].astype(int), atol=1)


def test_a_stream_that_changes_is_told_from_one_that_does_not(judges: Judges) -> None:
    clip = CLIPS[0]
    speech = long_speech(clip.samples_S[:61_440], [np.ones(20_000, dtype=np.float32)], 30.0)
    assert len(speech) == round(30 / 0.96) * 15_360
    np.testing.assert_array_equal(speech[:61_440], speech[-61_440:])
    with pytest.raises(ValueError, match="no room"):
        long_speech(clip.samples_S, [speech], 5.0)

    truth = clip.frames_FHW3[1:]
    dull = truth.copy()
    dull[:, 8:] = (0.7 * dull[:, 8:]).astype(np.uint8)
    dull[:, :8, :8, 0] = np.random.default_rng(0).integers(0, 255, size=(96, 1, 1))
    same, changed = (StreamMeasures(judges, portraits_of(CLIPS, judges)) for _ in range(2))
    same.add(clip, StreamEnds(truth, truth))
    changed.add(clip, StreamEnds(truth, dull))
    kept = {measure.name: measure for measure in same.results()}
    lost = {measure.name: measure for measure in changed.results()}
    for name in ("stream_identity_ratio", "stream_lip_gap_correlation_ratio", "stream_sharpness_ratio"):
        assert _value(kept[name]) == pytest.approx(1)
        assert kept[name].met
    assert kept["stream_colour_change"].met
    for name in ("stream_lip_gap_correlation_ratio", "stream_sharpness_ratio", "stream_colour_change"):
        assert lost[name].met is False
    json.dumps([_value(measure) for measure in kept.values()])
