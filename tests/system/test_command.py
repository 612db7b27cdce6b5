"""The command against the running system: own files in, an MP4 file out."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.client.test_media_files import write_audio
from tests.system.parts import portrait_jpeg
from visavis.cli.local_system import LocalSystem


def visavis(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "visavis.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("speech_name", "codec", "layout"), [("a.mp3", "libmp3lame", "stereo"), ("a.flac", "flac", "mono")]
)
@pytest.mark.parametrize("stream", ["jpeg", "h264"])
def test_talk_renders_own_files_on_a_running_server(
    system: LocalSystem, tmp_path: Path, speech_name: str, codec: str, layout: str, stream: str
) -> None:
    write_audio(tmp_path / speech_name, codec, 44_100, layout, seconds=1.5)
    (tmp_path / "me.jpg").write_bytes(portrait_jpeg())
    output = tmp_path / "deep" / "hello.mp4"
    finished = visavis(
        *("talk", "--server", system.gateway_address, "--synthetic-person", "--codec", stream, "--fast"),
        *("--portrait", str(tmp_path / "me.jpg"), "--speech", str(tmp_path / speech_name), "-o", str(output)),
    )
    assert finished.returncode == 0, finished.stderr
    first_line = finished.stdout.splitlines()[0]
    assert "random" in first_line
    assert "noise" in first_line
    assert "whole chunk" in finished.stdout
    with av.open(str(output)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        assert "synthetic" in container.metadata["comment"]
    assert frames == 48
    assert [path.name for path in output.parent.iterdir()] == ["hello.mp4"]


def test_a_portrait_that_the_server_refuses_is_one_line_and_no_file(system: LocalSystem, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", "pcm_s16le", 16_000, "mono")
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "me.png")
    finished = visavis(
        *("talk", "--server", "127.0.0.1:9", "--synthetic-person"),
        *("--portrait", str(tmp_path / "me.png"), "--speech", str(tmp_path / "a.wav"), "-o", str(tmp_path / "a.mp4")),
    )
    assert finished.returncode == 1
    assert finished.stderr.strip().splitlines()[-1].startswith("visavis: error: no server answers")
    assert not (tmp_path / "a.mp4").exists()


def test_info_shows_a_running_server(system: LocalSystem) -> None:
    finished = visavis("info", "--server", system.gateway_address)
    assert finished.returncode == 0, finished.stderr
    assert "tiny" in finished.stdout
    assert "generator" in finished.stdout
