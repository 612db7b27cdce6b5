"""The number of sessions reaches the pod's annotation; trouble on the way harms nobody."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.runtime.certificates import make_authority, make_identity
from tests.runtime.kubernetes_api import KubernetesApi, kubernetes_api
from visavis.runtime.pod_deletion_cost import PodDeletionCost
from visavis.runtime.settings import Environment, PodSettings, SettingsError, read_service_settings


def settings_of(api: KubernetesApi, credentials: Path) -> PodSettings:
    credentials.joinpath("token").write_text(f"{api.token}\n")
    return PodSettings("generator-a", "visavis", api.url, credentials, deletion_cost_seconds=0.05)


async def test_only_changes_are_written(tmp_path: Path) -> None:
    sessions = [0, 0, 3, 3, 1]
    with kubernetes_api("secret") as api:
        cost = PodDeletionCost(settings_of(api, tmp_path), lambda: sessions[0])
        while sessions:
            await cost.write_if_changed()
            sessions.pop(0)
    assert api.costs() == ["0", "3", "1"]
    assert {path for path, _ in api.patches} == {"/api/v1/namespaces/visavis/pods/generator-a"}


async def test_a_renewed_token_is_read(tmp_path: Path) -> None:
    with kubernetes_api("first") as api:
        cost = PodDeletionCost(settings_of(api, tmp_path), lambda: len(api.patches))
        await cost.write_if_changed()
        api.token = "second"
        tmp_path.joinpath("token").write_text("second")
        await cost.write_if_changed()
    assert api.costs() == ["0", "1"]


@pytest.mark.parametrize("trouble", ["forbidden", "unreachable", "no token"])
async def test_trouble_is_logged_once_and_overcome(
    trouble: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kubernetes_api("secret") as api:
        settings = settings_of(api, tmp_path)
        away = PodSettings("generator-a", "visavis", "http://127.0.0.1:1", tmp_path, 0.05)
        cost = PodDeletionCost(away if trouble == "unreachable" else settings, lambda: 2)
        if trouble == "no token":
            tmp_path.joinpath("token").unlink()
        api.status = 403
        with caplog.at_level(logging.WARNING):
            await cost.write_if_changed()
            await cost.write_if_changed()
        assert [record.name for record in caplog.records].count(PodDeletionCost.__module__) == 1
        if trouble == "forbidden":
            api.status = 200
            await cost.write_if_changed()
            assert api.costs() == ["2"]
            assert api.refused == 2


async def test_the_api_server_must_show_the_clusters_certificate(tmp_path: Path) -> None:
    authority, stranger = make_authority(tmp_path, "ca"), make_authority(tmp_path, "stranger")
    with kubernetes_api("secret", make_identity(tmp_path, "server", authority)) as api:
        settings = settings_of(api, tmp_path)
        for trusted, written in ((stranger, []), (authority, ["4"])):
            tmp_path.joinpath("ca.crt").write_bytes(trusted.certificate.read_bytes())
            await PodDeletionCost(settings, lambda: 4).write_if_changed()
            assert api.costs() == written


def test_it_is_off_unless_the_pod_is_named() -> None:
    assert read_service_settings(Environment({})).pod is None
    named = Environment({"VISAVIS_POD_NAME": "p", "VISAVIS_POD_NAMESPACE": "n"})
    pod = read_service_settings(named).pod
    assert pod is not None
    assert (pod.name, pod.namespace, pod.kubernetes_url) == ("p", "n", "https://kubernetes.default.svc")


@pytest.mark.parametrize("variables", [{"POD_NAME": "p"}, {"POD_NAMESPACE": "n"}, {"KUBERNETES_URL": "kubernetes:443"}])
def test_half_a_pod_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"VISAVIS_{next(iter(variables))}"):
        read_service_settings(Environment({f"VISAVIS_{name}": value for name, value in variables.items()}))
