"""compose.yaml starts what the images are, with settings that the services understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.containers import ROLES, build, image_environment
from tools.kustomize import REPOSITORY

DEPLOY = REPOSITORY / "deploy"


def compose(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content["services"]  # type: ignore[no-any-return]


def test_every_service_is_there() -> None:
    assert set(compose("compose.yaml")) == {*ROLES, "redis"}


@pytest.mark.parametrize("role", ROLES)
def test_services_understand_their_environment(role: str, tmp_path: Path) -> None:
    service = compose("compose.yaml")[role]
    own = {name: value.replace("${VISAVIS_MODEL:-mini}", "mini") for name, value in service["environment"].items()}
    gpu = compose("compose.gpu.yaml").get(role, {}).get("environment", {})
    for environment in (own, {**own, **gpu}):
        settings, known = build(role, {**image_environment(role), **environment}, tmp_path)
        assert set(environment) <= set(known)
        assert settings.redis.url == "redis://redis:6379/0"
        # Nothing is cut off: compose waits longer than the service drains.
        assert float(service["stop_grace_period"].removesuffix("s")) > settings.drain_seconds + 10


@pytest.mark.parametrize("role", ROLES)
def test_images_are_built_from_their_dockerfiles(role: str) -> None:
    service = compose("compose.yaml")[role]
    assert (DEPLOY / service["build"]["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / service["build"]["dockerfile"]).stem == role.replace("-", "_")
    assert service["image"].startswith(f"visavis/{role}:")


def test_only_the_gateway_can_be_reached_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in compose("compose.yaml").items() if "ports" in service}
    assert ports == {"gateway": ["127.0.0.1:50050:50050"]}


@pytest.mark.parametrize("name", [*ROLES, "redis"])
def test_containers_are_locked_up(name: str) -> None:
    service = compose("compose.yaml")[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
