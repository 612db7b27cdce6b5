"""`visavis read`: what it writes, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from visavis.cli.main import main
from visavis.cli.read import at_model_rate
from visavis.client import Speech


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(path)
    return path


def write_speech(path: Path, samples: int, rate: int = 22_050, channels: int = 1) -> Path:
    pcm = (np.random.default_rng(1).standard_normal((samples, channels)) * 3000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    return path


def read(portrait: Path, speech: Path, output: Path, *more: str) -> int:
    files = ["--portrait", str(portrait), "--speech", str(speech), "-o", str(output)]
    return main(["read", *files, "--preset", "tiny", *more])


def pictures(path: Path) -> list[str]:
    """A digest of each picture."""
    with av.open(str(path)) as container:
        return [hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest() for frame in container.decode(video=0)]


def test_a_file_is_written_that_says_what_it_is(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 1.25 s and a bit: 32 frames, the last of them with some silence.
    speech = write_speech(tmp_path / "speech.wav", 27_600, channels=2)
    output = tmp_path / "new" / "out.mp4"
    assert read(portrait, speech, output, "--consent-by", "Ada", "--seed", "4", "--guidance", "2", "--steps", "1") == 0
    said = capsys.readouterr().out
    assert "Ada states that the person" in said
    assert "weights of 'tiny' are random" in said
    assert "1.28 s, marked as synthetic" in said
    with av.open(str(output)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 64, 64)
        assert video.average_rate == 25
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 22_050, 2)
        assert "synthetic" in container.metadata["comment"]
        assert "the person in the portrait agreed, says Ada" in container.metadata["comment"]
        assert sum(1 for _ in container.decode(video=0)) == 32
        assert video.duration is not None
        assert video.time_base is not None
        assert float(video.duration * video.time_base) == pytest.approx(1.28)
    assert list(output.parent.iterdir()) == [output]

    again, other = tmp_path / "again.mp4", tmp_path / "other.mp4"
    same = ("--synthetic-person", "--guidance", "2", "--steps", "1")
    assert read(portrait, speech, again, *same, "--seed", "4") == read(portrait, speech, other, *same) == 0
    assert pictures(output) == pictures(again) != pictures(other)


def test_what_cannot_be_rendered_is_one_line(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = write_speech(tmp_path / "speech.wav", 1000)
    empty = write_speech(tmp_path / "empty.wav", 0)
    noise = tmp_path / "noise.jpg"
    noise.write_bytes(b"no picture")
    output = tmp_path / "out.mp4"
    for arguments, expected in (
        ((tmp_path / "none.png", speech, output), "none.png does not exist"),
        ((portrait, tmp_path / "none.wav", output), "none.wav does not exist"),
        ((noise, speech, output), "not a JPEG or PNG"),
        ((portrait, empty, output), "holds no sound"),
        ((portrait, speech, tmp_path), "is a folder"),
        ((portrait, speech, output, "--steps", "0"), "--steps is at least 1"),
        ((portrait, speech, output, "--guidance", "nan"), "--guidance"),
        ((portrait, speech, output, "--seed", "-1"), "--seed"),
        ((portrait, speech, output, "--synthetic-person", "--preset", "huge"), "neither a preset"),
    ):
        assert read(*arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith("visavis: error: ")
        assert expected in said
        assert said.count("\n") == 1
        assert not output.exists()


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_speech_is_heard_at_its_pace_and_to_its_end(rate: int) -> None:
    # A tone of 400 Hz for half a second, then a click at 0.7 s.
    time = np.arange(int(0.8 * rate)) / rate
    tone = np.where(time < 0.5, np.sin(2 * np.pi * 400 * time), 0.0) * 0.5
    tone[int(0.7 * rate) : int(0.71 * rate)] = 0.9
    stereo = np.stack([tone, tone], axis=1)
    heard = at_model_rate(Speech((stereo * 32767).astype(np.int16), rate), 20)
    assert heard.shape == (12_800,)
    assert heard.dtype == np.float32
    crossings = np.flatnonzero(np.diff(np.signbit(heard[:8000])))
    assert len(crossings) == pytest.approx(400, abs=2)
    assert np.argmax(heard[8000:] > 0.6) + 8000 == pytest.approx(0.7 * 16_000, abs=16)
