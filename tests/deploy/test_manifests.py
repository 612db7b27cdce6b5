"""Manifests and code agree: settings, ports, probes, labels, times; and pods are as locked up as they can be."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.containers import (
    NAMESPACED_OVERLAYS,
    ROLES,
    build,
    containers,
    dockerfile,
    environment_of,
    expanded,
    image_environment,
    manifests,
    named,
    of_kind,
    service_container,
)
from tools.kustomize import OVERLAYS, kubectl_kustomize, render, render_with
from visavis import __version__
from visavis.runtime.readiness import LIVENESS, STARTUP
from visavis.runtime.server import CLOSING_SECONDS, advertised_address
from visavis.runtime.settings import split_address

GPU_OVERLAYS = ("a100", "h100")
every_overlay = pytest.mark.parametrize("overlay", NAMESPACED_OVERLAYS)
every_role = pytest.mark.parametrize("role", ROLES)


def port_of(role: str, variable: str) -> int:
    return split_address(image_environment(role)[f"VISAVIS_{variable}"])[1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_the_same(overlay: str) -> None:
    command = kubectl_kustomize()
    if command is None:
        pytest.skip("no kubectl that knows components")
    manifests(overlay)
    assert render_with(command, OVERLAYS[overlay]) == render(overlay)


@every_overlay
def test_everything_is_in_the_namespace(overlay: str) -> None:
    outside = [each for each in manifests(overlay) if each["metadata"].get("namespace") != "visavis"]
    assert [each["kind"] for each in outside] == ["Namespace"]
    assert all(each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "visavis" for each in outside)


@every_overlay
@every_role
def test_each_service_understands_its_environment(overlay: str, role: str, tmp_path: Path) -> None:
    container = service_container(overlay, role)
    variables = environment_of(overlay, container)
    settings, known = build(role, variables, tmp_path)
    assert {name for name in variables if name.startswith("VISAVIS_")} <= set(known)
    assert split_address(settings.listen_address) == ("0.0.0.0", port_of(role, "LISTEN_ADDRESS"))
    names = [variable["name"] for variable in container.spec["env"]]
    assert len(names) == len(set(names))
    assert settings.redis.url.startswith("redis://visavis:")
    if role != "gateway":
        assert (
            advertised_address(settings.advertise_address, "0.0.0.0:1") == f"10.1.2.3:{port_of(role, 'LISTEN_ADDRESS')}"
        )
        assert settings.worker.threads >= 1


@every_overlay
@every_role
def test_ports_are_those_that_the_image_listens_on(overlay: str, role: str) -> None:
    container = service_container(overlay, role)
    ports = {port["name"]: port["containerPort"] for port in container.spec["ports"]}
    names = {"grpc": "LISTEN_ADDRESS", "metrics": "METRICS_ADDRESS", "health": "HEALTH_ADDRESS"}
    assert ports == {name: port_of(role, variable) for name, variable in names.items()}
    exposed = re.search(r"^EXPOSE (.*)$", dockerfile(role), re.M)
    assert exposed is not None
    assert [int(port) for port in exposed[1].split()] == list(ports.values())
    service = named(overlay, "Service", role)["spec"]
    assert [(port["targetPort"], port["port"]) for port in service["ports"]] == [("grpc", ports["grpc"])]
    if role != "gateway":
        assert service["clusterIP"] == "None"


@every_role
def test_defaults_are_the_ports_of_the_images(role: str, tmp_path: Path) -> None:
    """Who starts a service by hand finds it where the images have it."""
    settings, _ = build(role, {}, tmp_path)
    assert split_address(settings.listen_address)[1] == port_of(role, "LISTEN_ADDRESS")


@every_overlay
@every_role
def test_probes_ask_the_health_port_for_what_it_answers(overlay: str, role: str) -> None:
    container = service_container(overlay, role)
    wanted = {"startupProbe": STARTUP, "readinessProbe": "", "livenessProbe": LIVENESS}
    for probe, service in wanted.items():
        assert container.spec[probe]["grpc"].get("service", "") == service
        assert container.spec[probe]["grpc"]["port"] == port_of(role, "HEALTH_ADDRESS")
    assert f'CMD ["visavis", "health", "127.0.0.1:{port_of(role, "HEALTH_ADDRESS")}"]' in dockerfile(role)


@every_overlay
@every_role
def test_times_fit_into_each_other(overlay: str, role: str, tmp_path: Path) -> None:
    container = service_container(overlay, role)
    settings, _ = build(role, environment_of(overlay, container), tmp_path)
    pre_stop = container.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = container.pod["terminationGracePeriodSeconds"]
    assert grace >= pre_stop + settings.drain_seconds + CLOSING_SECONDS + 10
    startup = container.spec["startupProbe"]
    if role != "gateway":
        # The worker gives up by itself first, and says why.
        assert startup["periodSeconds"] * startup["failureThreshold"] > settings.worker.start_timeout_seconds
    liveness = container.spec["livenessProbe"]
    assert liveness["timeoutSeconds"] <= liveness["periodSeconds"]
    deployment = named(overlay, "Deployment", role)["spec"]
    rollout = startup["periodSeconds"] * startup["failureThreshold"] + grace
    assert deployment["progressDeadlineSeconds"] > rollout


@every_overlay
@every_role
def test_pods_without_redis_are_not_evicted(overlay: str, role: str) -> None:
    """They are not ready and serve their sessions on: one that is not ready counts as one that is away."""
    budget = named(overlay, "PodDisruptionBudget", role)["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget.get("unhealthyPodEvictionPolicy", "IfHealthyBudget") == "IfHealthyBudget"


@every_overlay
def test_selectors_find_their_pods(overlay: str) -> None:
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(overlay, "Deployment", "StatefulSet")]
    selectors: list[dict[str, str]] = []
    for each in of_kind(overlay, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        selectors.append(each["spec"]["selector"]["matchLabels"])
    selectors += [each["spec"]["selector"] for each in of_kind(overlay, "Service")]
    for deployment in of_kind(overlay, "Deployment"):
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
        keys = {constraint["topologyKey"] for constraint in spread}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for selector in selectors:
        assert sum(selector.items() <= labels.items() for labels in pods) == 1, selector


@every_overlay
def test_what_pods_refer_to_is_there(overlay: str) -> None:
    """Secrets are by reference: they are made by hand or by cert-manager, and none is in the repository."""
    assert of_kind(overlay, "Secret") == []
    present = {(each["kind"], each["metadata"]["name"]) for each in manifests(overlay)}
    made = {("Secret", each["spec"]["secretName"]) for each in of_kind(overlay, "Certificate")}
    by_hand = {
        ("Secret", "visavis-redis"),
        ("ConfigMap", "kube-root-ca.crt"),
        ("PersistentVolumeClaim", "visavis-models"),
    }
    for container in containers(overlay):
        assert ("ServiceAccount", container.pod["serviceAccountName"]) in present
        assert references(container.pod) <= present | made | by_hand


def references(pod: Any) -> set[tuple[str, str]]:
    """ConfigMaps, Secrets and volumes that a pod cannot start without."""
    found: set[tuple[str, str]] = set()
    if isinstance(pod, list):
        return found.union(*map(references, pod))
    if not isinstance(pod, dict) or pod.get("optional"):
        return found
    for key, value in pod.items():
        if key in ("configMapRef", "configMap", "configMapKeyRef"):
            found.add(("ConfigMap", value["name"]))
        elif key in ("secretKeyRef", "secretRef", "secret") and not value.get("optional"):
            found.add(("Secret", value.get("name") or value["secretName"]))
        elif key == "persistentVolumeClaim":
            found.add(("PersistentVolumeClaim", value["claimName"]))
        else:
            found |= references(value)
    return found


@every_overlay
def test_every_container_is_locked_up(overlay: str) -> None:
    for container in containers(overlay):
        pod, own = container.pod["securityContext"], container.spec["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["runAsUser"] > 10_000
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container.pod["automountServiceAccountToken"] is False
        assert {"memory"} <= set(container.spec["resources"]["limits"])


@every_overlay
def test_our_images_have_the_version_of_the_code(overlay: str) -> None:
    ours = [each.spec["image"] for each in containers(overlay) if each.workload in ROLES]
    assert {image.rpartition(":")[2].removesuffix("-cpu") for image in ours} == {__version__}
    for container in containers(overlay):
        if container.workload in ROLES:
            assert container.spec["image"].startswith(f"visavis/{container.workload}:")


@pytest.mark.parametrize("overlay", GPU_OVERLAYS)
@pytest.mark.parametrize("role", ["generator", "decoder"])
def test_gpus_are_whole_and_of_one_kind(overlay: str, role: str, tmp_path: Path) -> None:
    container = service_container(overlay, role)
    for kind in ("requests", "limits"):
        assert container.spec["resources"][kind]["nvidia.com/gpu"] == "1"
    affinity = container.pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ((expression,),) = [term["matchExpressions"] for term in affinity["nodeSelectorTerms"]]
    assert (expression["key"], expression["operator"]) == ("nvidia.com/gpu.product", "In")
    for product in expression["values"]:
        assert overlay.upper() in product
        assert not re.search(r"MIG|SHARED", product)
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in container.pod["tolerations"]
    assert environment_of(overlay, container)["VISAVIS_DEVICE"] == "cuda"
    assert not container.spec["image"].endswith("-cpu")


@pytest.mark.parametrize("overlay", [overlay for overlay in NAMESPACED_OVERLAYS if overlay not in GPU_OVERLAYS])
def test_without_gpus_nothing_asks_for_one(overlay: str) -> None:
    assert "nvidia" not in json.dumps(of_kind(overlay, "Deployment"))


@pytest.mark.parametrize(("overlay", "surges"), [("a100", False), ("cpu", False), ("alternatives", True)])
def test_a_rollout_surges_only_where_there_are_spare_cards(overlay: str, surges: bool) -> None:
    for role in ("audio-encoder", "generator", "decoder"):
        rolling = named(overlay, "Deployment", role)["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": int(surges), "maxUnavailable": int(not surges)}


@pytest.mark.parametrize("overlay", GPU_OVERLAYS)
def test_the_route_leads_to_the_gateway(overlay: str) -> None:
    (rule,) = named(overlay, "GRPCRoute", "visavis")["spec"]["rules"]
    assert [match["method"]["service"] for match in rule["matches"]] == ["visavis.v1.TalkingHeadService"]
    assert rule["backendRefs"] == [{"name": "gateway", "port": port_of("gateway", "LISTEN_ADDRESS")}]
    policy = named(overlay, "BackendTLSPolicy", "visavis")["spec"]
    assert policy["validation"]["hostname"] in named(overlay, "Certificate", "gateway")["spec"]["dnsNames"]
    hosts = named(overlay, "GRPCRoute", "visavis")["spec"]["hostnames"]
    assert hosts == named(overlay, "Certificate", "visavis-public")["spec"]["dnsNames"]
    (listener,) = named(overlay, "Gateway", "visavis")["spec"]["listeners"]
    assert [listener["hostname"]] == hosts


@pytest.mark.parametrize("overlay", GPU_OVERLAYS)
@every_role
def test_certificates_carry_the_names_that_are_called(overlay: str, role: str, tmp_path: Path) -> None:
    settings, _ = build(role, environment_of(overlay, service_container(overlay, role)), tmp_path)
    assert settings.tls.certificate is not None
    assert (settings.tls.client_authority is not None) == (role != "gateway")
    if role in ("gateway", "generator"):
        assert settings.tls.server_authority is not None
        for stage in ("audio-encoder", "generator", "decoder"):
            assert settings.tls.server_name in named(overlay, "Certificate", stage)["spec"]["dnsNames"]


@pytest.mark.parametrize("overlay", [*GPU_OVERLAYS, "alternatives"])
def test_models_are_verified_before_a_stage_starts(overlay: str, tmp_path: Path) -> None:
    from visavis.cli.main import build_parser

    for role in ("audio-encoder", "generator", "decoder"):
        (first,) = [each for each in containers(overlay) if each.workload == role and each.starts_first]
        variables = environment_of(overlay, first)
        command = [expanded(word, variables) for word in first.spec["command"]]
        options = build_parser().parse_args(command[1:])
        assert len(options.manifest_sha256) == 64
        service = environment_of(overlay, service_container(overlay, role))
        assert service["VISAVIS_MODEL"] == str(getattr(options, "target", None) or options.folder)
        assert first.spec["image"] == service_container(overlay, role).spec["image"]


@pytest.mark.parametrize("overlay", GPU_OVERLAYS)
@every_role
def test_pods_write_their_deletion_cost_with_what_they_are_given(overlay: str, role: str, tmp_path: Path) -> None:
    container = service_container(overlay, role)
    pod = build(role, environment_of(overlay, container), tmp_path)[0].pod
    assert pod is not None
    assert (pod.name, pod.namespace) == ("pod-a", "visavis")
    mounts = {mount["name"]: mount["mountPath"] for mount in container.spec["volumeMounts"]}
    assert mounts["credentials"] == str(pod.credentials)
    (credentials,) = [volume for volume in container.pod["volumes"] if volume["name"] == "credentials"]
    files = json.dumps(credentials)
    assert '"path": "token"' in files
    assert '"path": "ca.crt"' in files
    subjects = named(overlay, "RoleBinding", "own-pod-deletion-cost")["subjects"]
    assert {"kind": "ServiceAccount", "name": role, "namespace": "visavis"} in subjects
    assert named(overlay, "Role", "own-pod-deletion-cost")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}
    ]


def test_an_overlay_that_does_not_render_is_an_error(tmp_path: Path) -> None:
    manifests("cpu")
    from tools.kustomize import kustomize

    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(subprocess.CalledProcessError):
        render_with(kustomize(), tmp_path)
