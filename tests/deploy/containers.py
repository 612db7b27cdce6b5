"""The containers of rendered manifests, with the environment that they start in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

import gateway.server
import services.audio_encoder.__main__
import services.decoder.__main__
import services.generator.__main__
from tools.kustomize import OVERLAYS, REPOSITORY, NoKustomize, Resource, resources
from visavis.runtime.service import ServiceDefinition
from visavis.runtime.settings import Environment, ServiceSettings

ROLES: Final = ("audio-encoder", "generator", "decoder", "gateway")
NAMESPACED_OVERLAYS: Final = [overlay for overlay in OVERLAYS if overlay != "cluster"]
BUILDS: Final[Mapping[str, Callable[[Environment], tuple[ServiceDefinition, ServiceSettings]]]] = {
    "audio-encoder": services.audio_encoder.__main__.build,
    "generator": services.generator.__main__.build,
    "decoder": services.decoder.__main__.build,
    "gateway": gateway.server.build,
}
# What the cluster would fill in.
_FIELDS: Final = {"status.podIP": "10.1.2.3", "metadata.name": "pod-a", "metadata.namespace": "visavis"}
_SECRETS: Final = {("visavis-redis", "url"): "redis://visavis:secret@redis.visavis.svc:6379/0"}


class RecordingEnvironment(Environment):
    """Notes what is read, with its default."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.read: dict[str, str] = {}

    def text(self, name: str, default: str) -> str:
        self.read[f"VISAVIS_{name}"] = default
        return super().text(name, default)


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a workload."""

    workload: str
    pod: Resource
    spec: dict[str, Any]
    starts_first: bool


@cache
def manifests(overlay: str) -> tuple[Resource, ...]:
    """The resources of an overlay; the test is skipped where nothing renders them."""
    try:
        return tuple(resources(overlay))
    except NoKustomize as error:
        pytest.skip(str(error))


def of_kind(overlay: str, *kinds: str) -> list[Resource]:
    return [resource for resource in manifests(overlay) if resource["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Resource:
    (found,) = [resource for resource in of_kind(overlay, kind) if resource["metadata"]["name"] == name]
    return found


def containers(overlay: str) -> Iterator[Container]:
    for workload in of_kind(overlay, "Deployment", "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        for key, first in (("containers", False), ("initContainers", True)):
            for spec in pod.get(key, ()):
                yield Container(workload["metadata"]["name"], pod, spec, first)


def service_container(overlay: str, role: str) -> Container:
    (found,) = [each for each in containers(overlay) if each.workload == role and not each.starts_first]
    return found


def environment_of(overlay: str, container: Container) -> dict[str, str]:
    """As kubelet makes it: the image's, then the maps', then the container's own."""
    found = image_environment(container.workload)
    for source in container.spec.get("envFrom", ()):
        if "configMapRef" in source:
            found.update(named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"])
    for variable in container.spec.get("env", ()):
        value = variable["value"] if "value" in variable else _value_from(container, variable["valueFrom"])
        found[variable["name"]] = expanded(value, found)
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """With `$(NAME)` replaced, as kubelet does in commands and values."""
    return re.sub(r"\$\((\w+)\)", lambda name: variables.get(name[1], name[0]), text)


def image_environment(role: str) -> dict[str, str]:
    """What the role's Dockerfile sets in its last stage."""
    text = dockerfile(role).rpartition("\nFROM ")[2]
    block = re.search(r"^ENV ((?:.*\\\n)*.*)$", text, re.M)
    assert block is not None
    pairs = (word.partition("=")[::2] for word in block[1].replace("\\\n", " ").split())
    return dict(pairs)


def dockerfile(role: str) -> str:
    return (REPOSITORY / "deploy/images" / f"{role.replace('-', '_')}.Dockerfile").read_text()


def build(role: str, variables: Mapping[str, str], files: Path) -> tuple[ServiceSettings, dict[str, str]]:
    """The service's own reading of its environment, and every variable that it reads with its default.

    Files that the cluster would mount are looked for in `files`.
    """
    local = {name: _local(value, files) for name, value in variables.items()}
    environment = RecordingEnvironment(local)
    _, settings = BUILDS[role](environment)
    return settings, environment.read


def _local(value: str, files: Path) -> str:
    if not value.startswith("/etc/"):
        return value
    path = files / value.removeprefix("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def _value_from(container: Container, source: dict[str, Any]) -> str:
    if "fieldRef" in source:
        return _FIELDS[source["fieldRef"]["fieldPath"]]
    if "secretKeyRef" in source:
        return _SECRETS[source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]]
    reference = source["resourceFieldRef"]
    assert (reference["resource"], reference["divisor"]) == ("requests.cpu", "1")
    asked = str(container.spec["resources"]["requests"]["cpu"])
    # Rounded up, as kubelet does.
    return str(-(-int(asked.removesuffix("m")) // 1000) if asked.endswith("m") else int(asked))
