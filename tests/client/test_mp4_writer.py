"""The MP4 file: sound in sync with the frames, marked as synthetic."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from visavis.client import AudioFormat
from visavis.client.mp4_writer import Mp4Writer

SIZE = 64
FLASH = 30


def write_flash_and_click(path: Path, audio_format: AudioFormat, frames: int = 50) -> None:
    """Black and silent, but frame FLASH is white and a click begins with it. Written in uneven segments."""
    pictures = np.zeros((frames, SIZE, SIZE, 3), np.uint8)
    pictures[FLASH] = 255
    per_frame = audio_format.samples_per_frame
    samples = np.zeros((frames * per_frame, audio_format.channel_count))
    samples[FLASH * per_frame : (FLASH + 1) * per_frame] = 0.8
    if audio_format.sample_type == np.int16:
        samples = samples * 32767
    pcm = samples.astype(audio_format.sample_type)
    with Mp4Writer(path, SIZE, SIZE, audio_format) as writer:
        for start, end in ((0, 1), (1, 8), (8, 32), (32, frames)):
            writer.write(pictures[start:end], pcm[start * per_frame : end * per_frame].tobytes())


def read(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Frame times, frame brightness, sound as a player places it on the time line, and its rate."""
    with av.open(str(path)) as container:
        times, brightness = [], []
        for picture in container.decode(video=0):
            times.append(picture.time)
            brightness.append(float(picture.to_ndarray(format="gray").mean()))
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        line = np.zeros(rate * 4)
        for sound in container.decode(audio=0):
            start = round((sound.time or 0.0) * rate)
            wave = sound.to_ndarray()[0]
            skip = max(0, -start)
            line[start + skip : start + len(wave)] = wave[skip:]
    return np.array(times), np.array(brightness), line, rate


def duration(stream: av.AudioStream | av.VideoStream) -> float:
    """In seconds."""
    assert stream.duration is not None
    assert stream.time_base is not None
    return float(stream.duration * stream.time_base)


@pytest.mark.parametrize(
    "audio_format",
    [
        AudioFormat.s16(16_000),
        AudioFormat.s16(22_050),
        AudioFormat.f32(48_000, 2),
        AudioFormat.s16(44_100, 2),
        AudioFormat.s16(10_025),
    ],
)
def test_flash_and_click_start_together(tmp_path: Path, audio_format: AudioFormat) -> None:
    write_flash_and_click(tmp_path / "a.mp4", audio_format)
    times, brightness, sound, rate = read(tmp_path / "a.mp4")
    assert len(times) == 50
    assert np.allclose(times, np.arange(50) / 25, atol=1e-4)
    assert int(np.argmax(brightness)) == FLASH
    click = int(np.argmax(sound > 0.4))
    assert abs(click / rate - FLASH / 25) < 0.0015


def test_sound_is_as_long_as_the_frames(tmp_path: Path) -> None:
    write_flash_and_click(tmp_path / "a.mp4", AudioFormat.s16(22_050))
    with av.open(str(tmp_path / "a.mp4")) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        assert duration(video) == pytest.approx(2.0, abs=1e-3)
        assert duration(audio) == pytest.approx(2.0, abs=0.05)  # ends with an AAC frame
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert video.average_rate == 25


def test_the_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    write_flash_and_click(tmp_path / "a.mp4", AudioFormat.s16(16_000))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert "synthetic" in container.metadata["comment"]


def test_sound_of_another_length_is_refused(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", SIZE, SIZE, AudioFormat.s16(16_000)) as writer:
        with pytest.raises(ValueError, match="1 frames"):
            writer.write(np.zeros((1, SIZE, SIZE, 3), np.uint8), bytes(2))
        writer.write(np.zeros((1, SIZE, SIZE, 3), np.uint8), bytes(2 * 640))


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        Mp4Writer(tmp_path / "a.mp4", 63, 64, AudioFormat.s16(16_000))
