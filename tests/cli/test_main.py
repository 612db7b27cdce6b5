"""The front of the command: fast, readable, and with one-line errors."""

import subprocess
import sys
import wave
from pathlib import Path

import pytest
from PIL import Image

import visavis
from visavis.cli.main import build_parser, main


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "visavis.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == visavis.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("demo",),
        ("talk",),
        ("read",),
        ("up",),
        ("serve",),
        ("bench",),
        ("bench", "pipeline"),
        ("bench", "transport"),
        ("bench", "capacity"),
        ("load",),
        ("import-ltx",),
        ("data",),
        ("data", "portrait"),
        ("info",),
        ("health",),
        ("model",),
        ("model", "fetch"),
    ],
)
def test_every_command_explains_itself(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*arguments, "--help"])
    assert ended.value.code == 0
    assert "%(" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("dance",), ("talk",), ("serve", "kitchen"), ("demo", "--fas")])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_the_front_imports_nothing_heavy() -> None:
    unwanted = "{'torch', 'grpc', 'numpy', 'av', 'rich', 'asyncio'}"
    code = (
        "import sys; from visavis.cli.main import build_parser; build_parser();"
        f"sys.exit(', '.join({unwanted} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_missing_portrait_is_one_line(tmp_path: Path) -> None:
    finished = run("talk", "--portrait", "none.jpg", "--speech", "none.wav", "-o", str(tmp_path / "a.mp4"))
    assert finished.returncode == 1
    assert finished.stderr.strip() == "visavis: error: none.jpg does not exist"


def test_a_text_file_as_speech_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.wav").write_text("hello")
    portrait, speech = str(tmp_path / "a.png"), str(tmp_path / "a.wav")
    finished = run("talk", "--synthetic-person", "--portrait", portrait, "--speech", speech, "-o", "a.mp4")
    assert finished.returncode == 1
    assert finished.stderr.startswith("visavis: error: ")
    assert finished.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    finished = run("info", "--server", f"unix:{tmp_path / 'nothing'}")
    assert finished.returncode == 1
    assert "no server answers" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_a_file_in_the_way_of_the_output_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    finished = run("demo", "-o", str(tmp_path / "out" / "a.mp4"))
    assert finished.returncode == 1
    assert "cannot be written" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_info_lists_services_and_libraries() -> None:
    finished = run("info")
    assert finished.returncode == 0
    assert "generator" in finished.stdout
    assert "grpcio" in finished.stdout
