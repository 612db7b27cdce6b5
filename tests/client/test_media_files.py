"""Speech from audio files and portraits from picture files."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from visavis.client import MediaError
from visavis.client.audio_file import read_speech
from visavis.client.portrait_file import read_portrait

TONE_HZ = 440


def write_audio(path: Path, codec: str, rate: int, layout: str, seconds: float = 0.5) -> None:
    """A tone, the same in every channel."""
    tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(rate * seconds)) / rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"strict": "experimental"})
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        channels = stream.channels
        samples = np.tile(tone.astype(np.float32), (channels, 1))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1024)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "expected_rate", "expected_channels"),
    [
        ("a.wav", "pcm_s16le", 16_000, "mono", 16_000, 1),
        ("a.wav", "pcm_f32le", 44_100, "stereo", 44_100, 2),
        ("a.wav", "pcm_u8", 8_000, "mono", 8_000, 1),
        ("a.wav", "pcm_s16le", 192_000, "mono", 48_000, 1),
        ("a.wav", "pcm_s16le", 12_010, "mono", 48_000, 1),
        ("a.wav", "pcm_s16le", 48_000, "5.1", 48_000, 1),
        ("a.mp3", "libmp3lame", 44_100, "stereo", 44_100, 2),
        ("a.flac", "flac", 22_050, "mono", 22_050, 1),
        ("a.ogg", "vorbis", 48_000, "stereo", 48_000, 2),
        ("b.ogg", "libopus", 48_000, "stereo", 48_000, 2),
    ],
)
def test_common_audio_files_are_read(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, expected_rate: int, expected_channels: int
) -> None:
    write_audio(tmp_path / name, codec, rate, layout)
    speech = read_speech(tmp_path / name)
    assert (speech.sample_rate_hz, speech.samples_SC.shape[1]) == (expected_rate, expected_channels)
    assert speech.seconds == pytest.approx(0.5, abs=0.06)  # MP3 and Opus pad
    channel = speech.samples_SC[:, 0].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(channel * np.hanning(len(channel))))
    assert np.argmax(spectrum) / speech.seconds == pytest.approx(TONE_HZ, abs=4)


def test_a_wav_file_is_read_bit_exactly(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", "pcm_s16le", 16_000, "stereo")
    with av.open(str(tmp_path / "a.wav")) as container:
        expected = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert np.array_equal(read_speech(tmp_path / "a.wav").samples_SC.reshape(1, -1), expected)


def test_unusable_audio_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    with wave.open(str(tmp_path / "short.wav"), "wb") as empty:
        empty.setparams((1, 2, 16_000, 0, "NONE", ""))
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    for name in ("empty.wav", "text.wav", "short.wav", "picture.png", "missing.wav", "."):
        with pytest.raises(MediaError) as caught:
            read_speech(tmp_path / name)
        assert "\n" not in str(caught.value)


def decoded(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))


def test_a_portrait_is_cropped_and_scaled_down(tmp_path: Path) -> None:
    picture = np.zeros((1000, 3000, 3), np.uint8)
    picture[:, 1000:2000] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    portrait = decoded(read_portrait(tmp_path / "a.png", max_side=256))
    assert (portrait.format, portrait.size) == ("JPEG", (256, 256))
    assert np.asarray(portrait).mean() > 250


def test_a_portrait_is_turned_upright(tmp_path: Path) -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[:100] = 255  # the stored top, which EXIF orientation 3 puts at the bottom
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    portrait = np.asarray(decoded(read_portrait(tmp_path / "a.jpg")))
    assert portrait[:50].mean() < 10 < 240 < portrait[-50:].mean()


def test_transparency_becomes_grey(tmp_path: Path) -> None:
    Image.new("RGBA", (128, 128), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.abs(np.asarray(decoded(read_portrait(tmp_path / "a.png"))).astype(int) - 128).max() < 4


def test_a_large_photograph_is_scaled_down_before_the_upload(tmp_path: Path) -> None:
    Image.new("L", (8000, 6250), 90).save(tmp_path / "a.jpg")  # 50 megapixels: the server would refuse it
    assert decoded(read_portrait(tmp_path / "a.jpg")).size == (1024, 1024)


def test_unusable_portraits_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "other.gif")
    Image.new("1", (20_000, 6_000)).save(tmp_path / "huge.png")
    for name in ("empty.jpg", "text.jpg", "cut.jpg", "small.png", "other.gif", "huge.png", "missing.jpg", "."):
        with pytest.raises(MediaError) as caught:
            read_portrait(tmp_path / name)
        assert "\n" not in str(caught.value)
