"""The wheel holds the library alone, its roles ask for no more than they need, and constraints.txt pins all of it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from visavis import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
CUDA = ("cuda-", "nvidia-", "triton")


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: list[str]) -> Message:
    (name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def requirements(metadata: Message, extra: str = "") -> set[str]:
    """Returns the names that one extra (or the base) asks for, extras of visavis itself resolved."""
    found: set[str] = set()
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if bool(requirement.marker and "extra" in str(requirement.marker)) != bool(extra):
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "visavis":
            found.update(*(requirements(metadata, inner) for inner in requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def with_dependencies(roots: Iterable[str]) -> set[str]:
    """Returns these distributions and all that they need, as they are installed here."""
    found: set[str] = set()
    pending = [Requirement(root) for root in roots]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        wanted = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
        if name in found and not requirement.extras:
            continue
        found.add(name)
        inner = map(Requirement, importlib.metadata.requires(name) or [])
        pending += [each for each in inner if not each.marker or any(map(each.marker.evaluate, wanted))]
    return found


def test_only_the_library_is_published(names: list[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"visavis", f"visavis-{__version__}.dist-info"}


def test_types_stubs_presets_and_license_are_in_it(names: list[str]) -> None:
    presets = {f"visavis/presets/{path.name}" for path in REPOSITORY.glob("configs/*.toml")}
    assert presets
    assert presets <= set(names)
    assert {"visavis/py.typed", "visavis/v1/talking_head_pb2.py", "visavis/v1/talking_head_pb2.pyi"} <= set(names)
    assert f"visavis-{__version__}.dist-info/licenses/LICENSE" in names


def test_every_file_of_the_library_is_in_it(names: list[str]) -> None:
    paths = {path for path in REPOSITORY.glob("visavis/**/*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(REPOSITORY)) for path in paths} <= set(names)


def test_presets_are_found_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "from visavis.configs import config_path; print(config_path('mini'))"
    # The interpreter looks into its working directory first.
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == tmp_path / "visavis" / "presets" / "mini.toml"


def test_the_base_needs_three_distributions(metadata: Message) -> None:
    assert requirements(metadata) == {"grpcio", "numpy", "protobuf"}


def test_every_role_has_an_extra(metadata: Message) -> None:
    roles = {"audio-encoder", "generator", "decoder", "gateway", "client", "training", "dev", "up", "voices"}
    assert roles <= set(metadata.get_all("Provides-Extra", []))


@pytest.mark.parametrize("role", ["gateway", "client"])
def test_gateway_and_client_install_no_torch(metadata: Message, role: str) -> None:
    installed = with_dependencies(requirements(metadata) | requirements(metadata, role))
    assert not installed & {"torch", "diffusers", "transformers", "safetensors"}
    assert role == "client" or not installed & {"av", "pillow"}


def test_only_the_voices_pull_the_gpl_part(metadata: Message) -> None:
    pulling = [
        extra for extra in metadata.get_all("Provides-Extra", []) if "piper-tts" in requirements(metadata, extra)
    ]
    assert pulling == ["voices"]


def test_constraints_pin_everything_that_dev_pulls(metadata: Message) -> None:
    lines = REPOSITORY.joinpath("constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    needed = with_dependencies(requirements(metadata) | requirements(metadata, "dev"))
    assert sorted(name for name in needed - pinned if not name.startswith(CUDA)) == []


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-cpu.txt", "pyproject.toml", "package-lock.json"])
def test_no_registry_address_and_no_machine_path_is_committed(name: str) -> None:
    text = REPOSITORY.joinpath(name).read_text()
    assert "://" not in text
    assert "file:" not in text
    assert " @ " not in text


def test_cuda_is_refused_only_by_the_cpu_constraints() -> None:
    assert not [
        line for line in REPOSITORY.joinpath("constraints.txt").read_text().splitlines() if line.startswith(CUDA)
    ]
    assert REPOSITORY.joinpath("constraints-cpu.txt").read_text().count("<0") >= 4


def test_git_ignores_no_source() -> None:
    """A pattern such as `data/` without its leading slash once kept a package out of every commit."""
    if not REPOSITORY.joinpath(".git").exists():
        pytest.skip("not a git checkout")
    sources = ["visavis", "services", "gateway", "tests", "tools", "protos", "configs"]
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *sources]
    ignored = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [name for name in ignored if Path(name).suffix in {".py", ".pyi", ".proto", ".toml"}] == []
