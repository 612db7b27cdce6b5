"""What `visavis load` says about arguments that make no sense."""

from pathlib import Path

import pytest

from visavis.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "nowhere"], "--target is HOST:PORT"),
        (["--target", "a:1", "--sessions", "0"], "--sessions is at least 1"),
        (["--target", "a:1", "--processes", "-1"], "--processes is at least 1"),
        (["--target", "a:1", "--duration", "nan"], "--duration is at least 1"),
        (["--target", "a:1", "--slo-in-time", "99"], "a share between 0 and 1"),
        (["--target", "a:1", "--ramp", "0:0,10:5", "--find-capacity"], "--ramp then says seconds"),
        (["--target", "a:1", "--ramp", "10:5"], "a schedule begins at 0 seconds"),
        (["--target", "a:1", "--ramp", "soon"], "--ramp is a number of seconds"),
        (["--target", "a:1", "--json", "/"], "/ cannot be written"),
        (["--target", "a:1", "--speech", "none.wav"], "none.wav does not exist"),
        (["--target", "a:1", "--tls-certificate", "none.pem"], "TLS:"),
        (["--target", "127.0.0.1:1"], "no server answers at 127.0.0.1:1"),
    ],
)
def test_nonsense_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("visavis: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_without_sound_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--target", "a:1", "--speech", str(tmp_path)]) == 1
    assert f"{tmp_path} has no sound file in it" in capsys.readouterr().err
