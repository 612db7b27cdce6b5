"""The real detectors, where `make detectors` has installed them, and what is said where it has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import visavis.demo
from tests.training.footage.made_up_footage import Pixels, write_video
from visavis.training.data.footage.detectors import OWN_PYTHON, DetectorError, Detectors
from visavis.training.data.footage.face_track import Square, ellipses

needs_detectors = pytest.mark.skipif(not OWN_PYTHON.is_file(), reason="MediaPipe is not here: `make detectors`")

# a person who does not exist, and a hand of the same kind (anny's body, a MakeHuman skin; both CC0)
_PORTRAIT = Path(visavis.demo.__path__[0]) / "portrait.jpg"
_HAND = Path(__file__).with_name("hand.png")


@pytest.fixture(scope="module")
def detectors() -> Iterator[Detectors]:
    with Detectors() as running:
        yield running


@pytest.fixture(scope="module")
def portrait() -> Pixels:
    return np.asarray(Image.open(_PORTRAIT).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS))


@needs_detectors
def test_a_face_is_found_with_its_irises_at_every_size(detectors: Detectors, portrait: Pixels) -> None:
    wide = np.full((256, 640, 3), 110, dtype=np.uint8)
    wide[:, 300:556] = portrait
    alone, aside = detectors.faces(portrait[None]), detectors.faces(wide[None])
    for faces in (alone, aside):
        assert faces.found_F.all()
        assert faces.landmarks_FN2.shape == (1, 478, 2)
        assert len(faces.boxes.scores_N) == 1
    assert np.abs(aside.landmarks_FN2 - (300, 0) - alone.landmarks_FN2).mean() < 2
    (_, (left_x, left_y, half_width, _), (right_x, _, _, _)) = ellipses(alone.landmarks_FN2, Square(0, 0, 256))[0]
    assert left_x > right_x  # the person's left
    iris = alone.landmarks_FN2[0, 473] / 256
    assert np.hypot(*(iris - (left_x, left_y))) < half_width


@needs_detectors
def test_no_face_is_no_face(detectors: Detectors) -> None:
    faces = detectors.faces(np.full((2, 128, 128, 3), 90, dtype=np.uint8))
    assert not faces.found_F.any()
    assert np.isnan(faces.landmarks_FN2).all()
    assert not len(faces.boxes.scores_N)


@needs_detectors
def test_a_hand_before_a_face_is_found(detectors: Detectors, portrait: Pixels) -> None:
    covered = Image.fromarray(portrait)
    hand = Image.open(_HAND)
    covered.paste(hand, (70, 90), hand)
    found = detectors.hands(np.stack([portrait, np.asarray(covered)]))
    assert set(found.pictures_N) == {1}
    assert found.scores_N.max() > 0.8
    left, top, right, bottom = found.boxes_N4[found.scores_N.argmax()]
    assert 60 < left < right < 210
    assert 80 < top < bottom < 256


@needs_detectors
def test_subtitles_are_found(detectors: Detectors, portrait: Pixels) -> None:
    titled = Image.fromarray(portrait)
    ImageDraw.Draw(titled).text(
        (128, 220),
        "so what did you say",
        (255, 255, 255),
        ImageFont.load_default(16),
        "mm",
        stroke_width=1,
        stroke_fill=0,
    )
    found = detectors.text(np.stack([portrait, np.asarray(titled)])[:, 153:])
    assert set(found.pictures_N) == {1}


@needs_detectors
def test_the_program_reads_videos_and_answers_once(portrait: Pixels, tmp_path: Path) -> None:
    import subprocess

    from visavis.training.data.footage import detectors as client

    video = write_video(tmp_path / "a.mp4", np.stack([portrait] * 3), None)
    program = Path(client.__file__).parents[4] / "tools" / "find_landmarks.py"
    command = [str(OWN_PYTHON), str(program), str(video), "--out", str(tmp_path / "found.npz")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert finished.stdout == "3 pictures\n"
    with np.load(tmp_path / "found.npz") as found:
        assert int(found["protocol"]) == client.PROTOCOL
        assert found["landmarks"].shape == (3, 478, 2)
        assert {"hand_boxes", "face_boxes"} <= set(found)
        assert "text_boxes" not in found


@needs_detectors
def test_pictures_of_a_wrong_shape_are_refused_and_the_next_are_taken(detectors: Detectors, portrait: Pixels) -> None:
    with pytest.raises(DetectorError, match=r"not uint8 pictures"):
        detectors.faces(np.zeros((3, 3), dtype=np.uint8))
    assert detectors.faces(portrait[None]).found_F.all()


def test_missing_detectors_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="make detectors"), Detectors(tmp_path / "python"):
        pass


def test_an_interpreter_without_detectors_says_how_to_get_them(portrait: Pixels) -> None:
    import sys

    with Detectors(Path(sys.executable)) as running, pytest.raises(DetectorError, match="make detectors"):
        running.faces(portrait[None])
