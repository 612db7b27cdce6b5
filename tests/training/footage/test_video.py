"""Videos of any rate, size and container come out at 25 frames per second and 16 kHz, pictures and sound together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.training.footage.made_up_footage import Samples, write_video
from visavis.training.data.footage.stretches import stretches
from visavis.training.data.footage.video import Frame, VideoError, read_frames, read_sound

_SECONDS, _FLASH = 2.0, 1.2


def flash_and_click(frame_rate: Fraction, sample_rate_hz: int) -> tuple[np.ndarray, Samples]:
    """A white picture and a burst of noise that begin at 1.2 s and last a fifth of a second."""
    frames = np.full((int(_SECONDS * frame_rate), 48, 64, 3), 60, dtype=np.uint8)
    times = np.arange(len(frames)) / float(frame_rate)
    frames[(times >= _FLASH - 1e-6) & (times < _FLASH + 0.2)] = 230
    samples = np.zeros(int(_SECONDS * sample_rate_hz), dtype=np.float32)
    burst = np.random.default_rng(1).uniform(-0.5, 0.5, int(0.2 * sample_rate_hz)).astype(np.float32)
    start = int(_FLASH * sample_rate_hz)
    samples[start : start + len(burst)] = burst
    return frames, samples


@pytest.mark.parametrize(
    ("name", "frame_rate", "sample_rate_hz", "channels"),
    [
        ("a.mp4", Fraction(25), 48_000, 2),
        ("a.mp4", Fraction(30_000, 1_001), 44_100, 2),
        ("a.mkv", Fraction(50), 48_000, 1),
        ("a.mov", Fraction(24), 22_050, 1),
        ("a.mp4", Fraction(15), 16_000, 1),
    ],
)
def test_pictures_and_sound_stay_together_at_any_rate(
    tmp_path: Path, name: str, frame_rate: Fraction, sample_rate_hz: int, channels: int
) -> None:
    frames, samples = flash_and_click(frame_rate, sample_rate_hz)
    path = write_video(
        tmp_path / name, frames, samples, frame_rate=frame_rate, sample_rate_hz=sample_rate_hz, channels=channels
    )
    read = list(read_frames(path))
    assert [frame.number for frame in read] == list(range(len(read)))
    assert len(read) == pytest.approx(_SECONDS * 25, abs=1)
    bright = [frame.number for frame in read if frame.pixels().mean() > 150]
    assert bright[0] / 25 == pytest.approx(_FLASH, abs=float(1 / frame_rate) + 0.001)
    sound = read_sound(path)
    loud = np.flatnonzero(np.abs(sound) > 0.15)
    assert loud[0] / 16_000 == pytest.approx(_FLASH, abs=0.01)
    assert len(loud) > 500


def test_sound_that_begins_later_begins_later(tmp_path: Path) -> None:
    frames, samples = flash_and_click(Fraction(25), 48_000)
    path = write_video(tmp_path / "a.mkv", frames, samples[24_000:], sound_delay_seconds=0.5)
    sound = read_sound(path)
    assert np.flatnonzero(np.abs(sound) > 0.15)[0] / 16_000 == pytest.approx(_FLASH, abs=0.03)
    assert not np.abs(sound[:7_000]).max()


def test_a_cut_is_where_the_scene_changes(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    scenes = [np.kron(random.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    frames = np.stack([scenes[0]] * 20 + [scenes[1]] * 20)
    path = write_video(tmp_path / "a.mp4", frames, None)
    found = [(stretch[0].number, len(stretch)) for stretch in stretches(read_frames(path), 9)]
    assert found == [(0, 9), (9, 9), (18, 2), (20, 9), (29, 9), (38, 2)]


def test_a_video_without_sound_has_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", flash_and_click(Fraction(25), 48_000)[0], None)
    assert read_sound(path).shape == (0,)


def test_a_video_filmed_upright_is_turned(tmp_path: Path) -> None:
    frames = np.full((5, 48, 64, 3), 60, dtype=np.uint8)
    frames[:, :16] = 230  # the upper third
    path = write_video(tmp_path / "a.mp4", frames, None)
    path.write_bytes(_turned_a_quarter(path.read_bytes()))
    picture = next(read_frames(path)).pixels()
    assert picture.shape == (64, 48, 3)
    assert picture[:, -12:].mean() > 200  # turned to the right
    assert picture[:, :24].mean() < 80


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    frames = np.full((3, 1200, 1600, 3), 60, dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", frames, None)
    frame = next(read_frames(path))
    assert frame.pixels().shape == (1080, 1440, 3)
    assert frame.pixels(480).shape == (480, 640, 3)


@pytest.mark.parametrize("colour", [(200, 40, 40), (40, 200, 40), (40, 40, 200)])
def test_colours_come_back(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = np.tile(np.array(colour, dtype=np.uint8), (3, 48, 64, 1))
    frame = next(read_frames(write_video(tmp_path / "a.mp4", frames, None)))
    np.testing.assert_allclose(frame.pixels()[24, 32], colour, atol=6)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    with pytest.raises(VideoError, match="cannot be decoded"):
        list(read_frames(path))
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_sound(path)


def test_sound_alone_has_no_pictures(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "a.mkv"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(3_200))
    with pytest.raises(VideoError, match="no pictures"):
        list(read_frames(path))


def test_stretches_hold_frames_of_one_scene() -> None:
    changes = [0.0, 0.01, 0.5, 0.02, 0.02, 0.02]
    frames = [Frame(number, change, None, 0) for number, change in enumerate(changes)]  # type: ignore[arg-type]
    assert [[frame.number for frame in stretch] for stretch in stretches(frames, 3)] == [[0, 1], [2, 3, 4], [5]]


def _turned_a_quarter(data: bytes) -> bytes:
    """The MP4 with a track matrix that says: turn clockwise to see it upright, as phones write it."""
    one, straight = (1 << 16).to_bytes(4), (1 << 30).to_bytes(4)
    zero, minus = bytes(4), (-(1 << 16) & 0xFFFFFFFF).to_bytes(4)
    plain = one + zero * 3 + one + zero * 3 + straight
    turned = zero + one + zero + minus + zero * 4 + straight
    track = data.index(b"tkhd")
    return data[:track] + data[track:].replace(plain, turned, 1)
