"""The environment, read once and checked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.runtime.settings import (
    Environment,
    SettingsError,
    default_instance_id,
    join_address,
    read_service_settings,
    split_address,
)


def read(**variables: str) -> Environment:
    return Environment({f"VISAVIS_{name}": value for name, value in variables.items()})


def test_an_empty_environment_gives_defaults() -> None:
    settings = read_service_settings(read(), default_port=50051, default_slots=3)
    assert settings.listen_address == "127.0.0.1:50051"
    assert settings.slots == 3
    assert settings.health_address == settings.operations_address == ""
    assert settings.tls.certificate is None
    assert settings.instance_id


def test_variables_are_read(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.touch()
    key.touch()
    settings = read_service_settings(
        read(
            SLOTS="7",
            DRAIN_SECONDS="1.5",
            REDIS_URL="redis://r:1/2",
            TLS_CERTIFICATE=str(certificate),
            TLS_KEY=str(key),
            WORKER_PROCESSORS="0, 1",
            INSTANCE_ID="g1",
        )
    )
    assert (settings.slots, settings.drain_seconds, settings.redis.url) == (7, 1.5, "redis://r:1/2")
    assert (settings.tls.certificate, settings.tls.key) == (certificate, key)
    assert settings.worker.processors == (0, 1)
    assert settings.instance_id == "g1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLOTS", "many"),
        ("SLOTS", "0"),
        ("SLOTS", "-1"),
        ("DRAIN_SECONDS", "soon"),
        ("DRAIN_SECONDS", "nan"),
        ("DRAIN_SECONDS", "inf"),
        ("DRAIN_SECONDS", "-1"),
        ("LISTEN_ADDRESS", "50051"),
        ("LISTEN_ADDRESS", "host:port"),
        ("LISTEN_ADDRESS", "host:70000"),
        ("LISTEN_ADDRESS", "::1:50051"),
        ("HEALTH_ADDRESS", "50060"),
        ("OPERATIONS_ADDRESS", "50070"),
        ("OPERATIONS_ADDRESS", "0.0.0.0:50070"),
        ("OPERATIONS_ADDRESS", "[::]:50070"),
        ("OPERATIONS_ADDRESS", "localhost.example:50070"),
        ("ADVERTISE_ADDRESS", "host:port"),
        ("ADVERTISE_ADDRESS", "fd00::g"),
        ("LOG_LEVEL", "LOUD"),
        ("TLS_CERTIFICATE", "/nowhere/cert.pem"),
        ("WORKER_PROCESSORS", "a,b"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"VISAVIS_{name}"):
        read_service_settings(read(**{name: value}))


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "file.pem").touch()
    for name in ("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_AUTHORITY"):
        with pytest.raises(SettingsError, match="TLS_KEY"):
            read_service_settings(read(**{name: str(tmp_path / "file.pem")}))


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("Yes", True), ("off", False), ("false", False)])
def test_flags(value: str, expected: bool) -> None:
    assert read(X=value).flag("X", default=not expected) is expected
    with pytest.raises(SettingsError):
        read(X="maybe").flag("X", default=True)


@given(st.sampled_from(["127.0.0.1", "::1", "pod.local", "0.0.0.0"]), st.integers(0, 65535))
def test_addresses_survive_joining_and_splitting(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "address", ["::1:80", "fd00::1", "[::1]", "[::1", "[]:80", "[host]:80", ":80", "host:", "host:²"]
)
def test_what_may_be_no_address_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize(
    "address", ["", "pod.local", "pod.local:7000", "10.0.0.7", "fd00::1", "[fd00::1]", "[fd00::1]:7"]
)
def test_what_an_instance_may_be_reached_under(address: str) -> None:
    assert read_service_settings(read(ADVERTISE_ADDRESS=address)).advertise_address == address


def test_every_process_has_an_instance_id_of_its_own() -> None:
    assert default_instance_id() != default_instance_id()
