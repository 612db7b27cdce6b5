"""Which stretches make a clip, and what the clip looks like. Detectors see plain shapes by their colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.footage.made_up_footage import Pixels, write_video
from tests.training.footage.plain_footage import BLUE, GREY, RED, PlainFinder, draw_disc, film, tone
from visavis.training.data.footage.examine import REASONS, Dropped, Kept, Limits, examine, sound_of
from visavis.training.data.footage.face_track import Square, fill_gaps, largest_jump, static_square
from visavis.training.data.footage.video import Frame, read_frames, read_sound

LIMITS = Limits(frames=9, size=64, most_frames_without_face=1)


def look(
    tmp_path: Path, frames: Pixels, seconds_of_tone: int = 9, loudness: float = 0.2, limits: Limits = LIMITS
) -> Kept | Dropped:
    samples = tone(seconds_of_tone, loudness=loudness) if seconds_of_tone else None
    path = write_video(tmp_path / "a.mp4", frames, samples)
    return examine(list(read_frames(path)), read_sound(path), PlainFinder(), limits)


def reason(verdict: Kept | Dropped) -> str:
    assert isinstance(verdict, Dropped)
    assert verdict.reason in REASONS
    return verdict.reason


def test_a_good_stretch_is_kept(tmp_path: Path) -> None:
    clip = look(tmp_path, film())
    assert isinstance(clip, Kept)
    assert clip.frames_FHW3.shape == (9, 64, 64, 3)
    assert clip.samples_S.shape == (8 * 640,)
    assert clip.ellipses_FE4.shape == (9, 3, 4)


def test_one_square_holds_the_face_of_all_frames(tmp_path: Path) -> None:
    clip = look(tmp_path, film())
    assert isinstance(clip, Kept)
    disc = clip.frames_FHW3.min(axis=3) > 200
    for side in (disc[:, 0], disc[:, -1], disc[:, :, 0], disc[:, :, -1]):
        assert not side.any()
    rows = [np.flatnonzero(picture.any(axis=1)).mean() for picture in disc]
    assert max(rows) - min(rows) > 0.7  # the picture stands still, the face nods
    height = np.ptp(np.flatnonzero((clip.frames_FHW3.min(axis=3) > 172).any(axis=(0, 2)))) + 1
    assert 64 / height == pytest.approx(1.02 * LIMITS.margin, rel=0.04)


def test_the_mouth_is_where_it_is_in_the_crop(tmp_path: Path) -> None:
    clip = look(tmp_path, film())
    assert isinstance(clip, Kept)
    disc = clip.frames_FHW3[0].min(axis=2) > 200
    rows = np.flatnonzero(disc.any(axis=1)) / 64
    x, y, half_width, _ = clip.ellipses_FE4[0, 0]
    assert y == pytest.approx(rows.mean() + 0.25 * np.ptp(rows), abs=0.03)
    assert x == pytest.approx(np.flatnonzero(disc.any(axis=0)).mean() / 64, abs=0.03)
    assert half_width == pytest.approx(1.25 * 0.3 * np.ptp(rows) / 2, abs=0.03)


def test_the_sound_of_a_later_stretch_is_its_own() -> None:
    sound = np.arange(30 * 640, dtype=np.float32)
    frames = [Frame(number, 0.0, None, 0) for number in range(10, 19)]  # type: ignore[arg-type]
    heard = sound_of(frames, sound)
    assert heard[0] == 11 * 640
    assert len(heard) == 8 * 640


def hand(frames: Pixels) -> None:
    frames[2:6, 50:70, 70:90] = RED


def subtitles(frames: Pixels) -> None:
    frames[:, 90:96, 60:100] = BLUE


def letters_elsewhere(frames: Pixels) -> None:
    frames[:, 2:8, 60:100] = BLUE


def second_face(frames: Pixels) -> None:
    for picture in frames:
        draw_disc(picture, 20, (60, 135))


def face_of_a_passer_by(frames: Pixels) -> None:
    for picture in frames:
        draw_disc(picture, 7, (20, 145))


def away(frames: Pixels) -> None:
    frames[3:6] = GREY


def blinked_away(frames: Pixels) -> None:
    frames[4] = GREY


@pytest.mark.parametrize(
    ("change", "expected"),
    [(hand, "hand"), (subtitles, "text"), (second_face, "several_faces"), (away, "no_face")],
)
def test_what_spoils_a_clip_is_the_reason(tmp_path: Path, change: Callable[[Pixels], None], expected: str) -> None:
    frames = film()
    change(frames)
    assert reason(look(tmp_path, frames)) == expected


@pytest.mark.parametrize("change", [letters_elsewhere, face_of_a_passer_by, blinked_away])
def test_what_does_no_harm_is_kept(tmp_path: Path, change: Callable[[Pixels], None]) -> None:
    frames = film()
    change(frames)
    assert isinstance(look(tmp_path, frames), Kept)


def test_a_face_cut_by_the_edge_is_dropped(tmp_path: Path) -> None:
    assert reason(look(tmp_path, film(middle=(60, 80), radius=26)[:, 40:])) == "face_at_edge"


def test_a_small_face_is_dropped(tmp_path: Path) -> None:
    assert reason(look(tmp_path, film(radius=10))) == "face_too_small"


def test_a_face_that_jumps_is_dropped(tmp_path: Path) -> None:
    frames = np.concatenate([film(5, middle=(60, 60)), film(4, middle=(60, 95))])
    assert reason(look(tmp_path, frames)) == "face_jumps"


def test_silence_no_sound_and_short_sound_are_told_apart(tmp_path: Path) -> None:
    assert reason(look(tmp_path, film(), loudness=1e-5)) == "too_quiet"
    assert reason(look(tmp_path, film(), seconds_of_tone=0)) == "no_sound"
    assert reason(look(tmp_path, film(), seconds_of_tone=4)) == "no_sound"


def test_a_short_stretch_is_a_cut(tmp_path: Path) -> None:
    assert reason(look(tmp_path, film(8))) == "cut"


def test_the_margin_is_smaller_where_the_picture_ends(tmp_path: Path) -> None:
    clip = look(tmp_path, film(radius=50), limits=replace(LIMITS, margin=3.0))
    assert isinstance(clip, Kept)
    assert (clip.square.top, clip.square.side) == (0.0, 120.0)


def test_gaps_are_filled_in_time() -> None:
    landmarks = np.full((4, 2, 2), np.nan, dtype=np.float32)
    landmarks[0], landmarks[3] = 1.0, 4.0
    filled = fill_gaps(landmarks, np.array([True, False, False, True]))
    np.testing.assert_allclose(filled[:, 0, 0], [1, 2, 3, 4])


def test_a_jump_is_measured_in_face_heights() -> None:
    face = np.array([[0, 0], [10, 20]], dtype=np.float32)
    aside = face + np.array((10, 0), dtype=np.float32)
    assert largest_jump(np.stack([face, aside, aside])) == pytest.approx(0.5)


def test_a_square_stays_inside_the_picture() -> None:
    face = np.array([[[2, 2], [42, 42]]], dtype=np.float32)
    assert static_square(face, 100, 100, 1.5, 0.0) == Square(0.0, 0.0, 60.0)
    assert static_square(face - 5, 100, 100, 1.5, 0.0) is None
