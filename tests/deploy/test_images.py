"""Images hold what their role needs and no more. Without Docker: what only a build can show is not shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

import pytest

from tests.deploy.containers import ROLES, dockerfile, image_environment
from tests.deploy.image_contents import (
    build_context,
    copied_files,
    copies,
    distributions,
    dockerignore,
    hide_the_rest,
    is_ignored,
    stages,
    write_library,
    write_stage,
)
from tools.pin_images import pinned
from visavis.models.shipped_weights import INSTALLED_FOLDER
from visavis.runtime.embedded_redis import EmbeddedRedis

# Tracing must be able to start; that nobody takes its spans harms nothing.
NOBODY = "http://127.0.0.1:1"
LOOK_FOR_WEIGHTS: Final = "from visavis.models.shipped_weights import *; print(shipped_weights('mini', 'vae', {}))"

every_role = pytest.mark.parametrize("role", ROLES)


@every_role
def test_everything_that_is_copied_is_in_the_build_context(role: str) -> None:
    context = build_context()
    for stage in stages(role):
        for copy in copies(stage):
            assert copied_files(copy, context)


def test_the_build_context_has_nothing_else() -> None:
    used = {
        file
        for role in ROLES
        for stage in stages(role)
        for copy in copies(stage)
        for file in copied_files(copy, build_context())
    }
    assert sorted(build_context() - used) == []


@pytest.mark.parametrize(
    ("file", "ignored"),
    [("a.md", True), ("keep.md", False), ("keep/b/c.py", False), ("keep/__pycache__/c.py", True), ("keep/c.pyc", True)],
)
def test_ignoring(file: str, ignored: bool) -> None:
    assert is_ignored(file, ["*", "!keep.md", "!keep", "**/__pycache__", "**/*.py[co]"]) is ignored


@every_role
def test_bases_have_a_version_and_the_user_is_nobody(role: str) -> None:
    default = re.search(r"^ARG BASE=(\S+)$", dockerfile(role), re.M)
    assert default is not None
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?", default[1])
    assert ("cuda" in default[1]) == (role != "gateway")
    build, run = stages(role)
    assert (build[0], run[0]) == ("FROM ${BASE} AS build", "FROM ${BASE} AS run")
    assert "USER 10001:10001" in run
    assert f"'.[{role},tracing]'" in " ".join(build)


def test_the_gateway_has_no_torch() -> None:
    assert not {"torch", "diffusers", "transformers", "av", "pillow"} & set(distributions("gateway"))


def test_digests_are_written_behind_tags_and_replaced() -> None:
    text = "ARG BASE=python:3.12-slim\nimage: valkey/valkey:9.0-alpine\nimage: visavis/gateway:1\n# python: 3"
    once = pinned(text, lambda image: f"sha256:{'a' * 64}")
    assert once.count("@sha256:") == 2
    assert "visavis/gateway:1\n" in once
    again = pinned(once, lambda image: f"sha256:{'b' * 64}")
    assert again == once.replace("a" * 64, "b" * 64)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as redis:
        yield redis.url


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as the builds of all four images make it: they copy the same."""
    sources = {
        role: {copy for copy in copies(stages(role)[0]) if copy.target in ("configs", "visavis")} for role in ROLES
    }
    assert all(sources[role] == sources["gateway"] for role in ROLES)
    site = tmp_path_factory.mktemp("library") / "site"
    write_library("gateway", site)
    return site


@contextmanager
def running(
    command: list[str], folder: Path, environment: dict[str, str], log: IO[str]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(300)
@every_role
def test_what_the_image_holds_is_enough_to_serve(role: str, library: Path, redis_url: str, tmp_path: Path) -> None:
    site, app = tmp_path / "site", tmp_path / "app"
    shutil.copytree(library, site)
    write_stage(role, 1, app)
    hide_the_rest(role, site)
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", dockerfile(role), re.M)
    assert entry is not None
    program, *arguments = json.loads(entry[1])
    assert program == "python"
    inherited = {name: os.environ[name] for name in ("PATH", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    free = dict.fromkeys(("VISAVIS_LISTEN_ADDRESS", "VISAVIS_METRICS_ADDRESS", "VISAVIS_HEALTH_ADDRESS"), "127.0.0.1:0")
    own = {
        "PYTHONPATH": str(site),
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VISAVIS_WORKER_THREADS": "1",
    }
    model = {
        "VISAVIS_MODEL": "tiny",
        "VISAVIS_DEVICE": "cpu",
        "VISAVIS_REDIS_URL": redis_url,
        "VISAVIS_OTLP_ENDPOINT": NOBODY,
    }
    environment = {**inherited, **free, **own, **model}
    log = tmp_path / "log"
    with log.open("w") as errors, running([sys.executable, *arguments], app, environment, errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        for command in (["health", json.loads(line)["health"], "--seconds", "60"], ["model", "--help"]):
            visavis = [
                sys.executable,
                "-c",
                "import sys; from visavis.cli.main import main; sys.exit(main())",
                *command,
            ]
            done = subprocess.run(visavis, cwd=app, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 0
    assert sorted(path for path in app.rglob("*") if path.suffix == ".pyc") == []


@every_role
def test_what_the_extra_does_not_bring_is_hidden(role: str, tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    hide_the_rest(role, tmp_path)
    probe = "import importlib.util as u; print(*[n for n in ('torch', 'av', 'grpc', 'hypothesis') if u.find_spec(n)])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    wanted = {"gateway": {"grpc"}, "decoder": {"grpc", "torch", "av"}}.get(role, {"grpc", "torch"})
    assert set(done.stdout.split()) == wanted


def test_trained_weights_are_in_the_images_of_the_stages_and_not_in_the_wheel(library: Path) -> None:
    in_images = PurePosixPath("/opt/visavis") / INSTALLED_FOLDER.relative_to(sys.prefix)
    for role in ROLES:
        targets = [copy.target for copy in copies(stages(role)[1]) if "weights" in copy.sources]
        assert targets == ([] if role == "gateway" else [str(in_images)])
        # The interpreter's prefix is that folder, as it is the environment's.
        assert image_environment(role)["PATH"].startswith("/opt/visavis/bin:")
    context = [file for file in build_context() if file.startswith("weights/")]
    assert context, "COPY needs the folder even while nothing is trained"
    assert not is_ignored("weights/mini/vae/model.safetensors", dockerignore())
    for part in ("teacher", "teacher_speech_ae"):
        assert is_ignored(f"weights/mini/{part}/model.safetensors", dockerignore())
    assert not [path for path in library.rglob("*") if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in library.rglob("*") if path.is_file()) < 8_000_000


def test_an_installed_library_finds_weights_or_says_where_they_belong(library: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    command = [str(tmp_path / "venv/bin/python"), "-c", LOOK_FOR_WEIGHTS]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"}

    def look() -> tuple[str, str]:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip(), done.stderr

    belongs = tmp_path / "venv/share/visavis/weights"
    found, said = look()
    assert found == "None"
    assert f"copy weights/mini of visavis' repository to {belongs / 'mini'}" in said
    (belongs / "mini/vae").mkdir(parents=True)
    (belongs / "mini/vae/config.json").write_text("{}")
    assert look() == (str(belongs / "mini/vae"), "")
