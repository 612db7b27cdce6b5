"""Settings of every service, and the only reader of the environment.

Variables are named VISAVIS_*; a wrong value raises `SettingsError` that names the variable and says what fits.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PREFIX = "VISAVIS_"


class SettingsError(ValueError):
    """A setting has an impossible value; the message names the variable and says what fits."""


class Environment:
    """Typed reading of VISAVIS_* variables; names are given without the prefix."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    @classmethod
    def of_process(cls) -> Self:
        return cls({name: value for name, value in os.environ.items() if name.startswith(PREFIX)})

    def text(self, name: str, default: str) -> str:
        return self._variables.get(PREFIX + name, default).strip()

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise SettingsError(f"{PREFIX}{name} is {value!r}; use one of {', '.join(choices)}")
        return value

    def integer(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} is {value!r}; use a whole number") from None
        if not minimum <= number <= maximum:
            raise SettingsError(f"{PREFIX}{name} is {number}; use {minimum} to {maximum}")
        return number

    def seconds(self, name: str, default: float, *, minimum: float = 0.0) -> float:
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} is {value!r}; use a number of seconds") from None
        if not minimum <= number < float("inf"):  # also refuses NaN
            raise SettingsError(f"{PREFIX}{name} is {number}; use at least {minimum} seconds")
        return number

    def ratio(self, name: str, default: float) -> float:
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0.0 <= number <= 1.0:  # also refuses NaN
            raise SettingsError(f"{PREFIX}{name} is {value!r}; use a number from 0 to 1")
        return number

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, "true" if default else "false").lower()
        if value in ("1", "true", "yes", "on"):
            return True
        if value in ("0", "false", "no", "off"):
            return False
        raise SettingsError(f"{PREFIX}{name} is {value!r}; use true or false")

    def file(self, name: str) -> Path | None:
        value = self.text(name, "")
        if not value:
            return None
        path = Path(value)
        if not path.is_file():
            raise SettingsError(f"{PREFIX}{name} names {value!r}, which is not a file")
        return path

    def processors(self, name: str) -> tuple[int, ...]:
        """Processor numbers separated by commas, "0,2"; empty means no pinning."""
        value = self.text(name, "")
        try:
            return tuple(int(part) for part in value.split(",") if part.strip())
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} is {value!r}; use processor numbers such as 0,1") from None


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """How to reach Redis or Valkey."""

    # redis://, rediss:// (TLS), unix://; redis+sentinel://host:26379,host:26379/primary-name/0; redis+cluster://host:6379
    url: str
    # Of one operation, connecting included.
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """PEM files of one process, as server and as client of other services."""

    # Server: own certificate chain and key; None means plain text.
    certificate: Path | None
    key: Path | None
    # Server: clients must show a certificate signed by this authority (mTLS); None asks for none.
    client_authority: Path | None
    # Client: authority of the servers this process calls; None means it calls them in plain text.
    server_authority: Path | None
    # Client: the name that the servers' certificates carry, where it is not the address; empty takes the address.
    server_name: str


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go. What is not set here, OTEL_* variables say (headers, certificate, timeout)."""

    # Of an OTLP collector's gRPC port, http:// (plain text) or https://; empty: nothing is traced.
    endpoint: str
    # Part of the sessions that are traced, where the caller has not decided it.
    sampled_ratio: float


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The worker process that owns the device."""

    # Of OpenMP and MKL in the worker; 0 leaves the number to them.
    threads: int
    # Processors the worker is pinned to; empty leaves it free.
    processors: tuple[int, ...]
    # Starting, loading and warming up.
    start_timeout_seconds: float
    # Opening a session; a call without a session.
    open_timeout_seconds: float
    call_timeout_seconds: float
    # Calls waiting or running at once; more get CapacityExhausted.
    max_pending_calls: int
    # A command or step that runs longer makes the worker hung: not serving, no new sessions.
    hang_seconds: float
    # One that runs longer than this has the worker killed.
    kill_seconds: float
    # A thread of the worker that does not compute sends signs of life; without one for so long (a stopped process, a
    # deadlock that holds the interpreter) the worker is killed. Not while it loads and warms up.
    silence_seconds: float


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The Kubernetes pod this process runs in, for its deletion cost."""

    name: str
    namespace: str
    # Of the API server.
    kubernetes_url: str
    # Folder with `token` and `ca.crt`.
    credentials: Path
    # At most one write in this time.
    deletion_cost_seconds: float


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service process."""

    instance_id: str
    # host:port; port 0 takes a free one.
    listen_address: str
    metrics_address: str
    # host:port of a second port with nothing but the health service, always in plain text; empty means none.
    health_address: str
    # host:port of the operations service, which speaks plain text and obeys everybody: on the loopback interface only;
    # empty means none.
    operations_address: str
    # host or host:port under which the gateway reaches this instance; empty derives it from the bound address.
    advertise_address: str
    slots: int
    # Items of one session in the stage at once; when reached, the stage stops reading that stream.
    max_in_flight: int
    config_timeout_seconds: float
    # Of RetryInfo when every slot is taken.
    retry_after_seconds: float
    drain_seconds: float
    heartbeat_seconds: float
    lease_seconds: float
    log_level: str
    redis: RedisSettings
    # None outside Kubernetes, and where the pod may not write its annotation.
    pod: PodSettings | None
    tls: TlsSettings
    tracing: TracingSettings
    worker: WorkerSettings


def read_service_settings(
    environment: Environment, *, default_port: int = 0, default_slots: int = 4
) -> ServiceSettings:
    """Reads what every service needs; raises SettingsError."""
    return ServiceSettings(
        instance_id=environment.text("INSTANCE_ID", "") or default_instance_id(),
        listen_address=_address(environment, "LISTEN_ADDRESS", f"127.0.0.1:{default_port}"),
        metrics_address=_address(environment, "METRICS_ADDRESS", "127.0.0.1:0"),
        health_address=_address(environment, "HEALTH_ADDRESS", "", optional=True),
        operations_address=_loopback_address(environment, "OPERATIONS_ADDRESS"),
        advertise_address=_advertised(environment, "ADVERTISE_ADDRESS"),
        slots=environment.integer("SLOTS", default_slots, minimum=1, maximum=10_000),
        max_in_flight=environment.integer("MAX_IN_FLIGHT", 3, minimum=1, maximum=64),
        config_timeout_seconds=environment.seconds("CONFIG_TIMEOUT_SECONDS", 10.0, minimum=0.01),
        retry_after_seconds=environment.seconds("RETRY_AFTER_SECONDS", 2.0),
        drain_seconds=environment.seconds("DRAIN_SECONDS", 30.0),
        heartbeat_seconds=environment.seconds("HEARTBEAT_SECONDS", 2.0, minimum=0.05),
        lease_seconds=environment.seconds("LEASE_SECONDS", 15.0, minimum=0.1),
        log_level=environment.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
        redis=read_redis_settings(environment),
        pod=read_pod_settings(environment),
        tls=read_tls_settings(environment),
        tracing=read_tracing_settings(environment),
        worker=read_worker_settings(environment),
    )


def read_redis_settings(environment: Environment) -> RedisSettings:
    return RedisSettings(
        url=environment.text("REDIS_URL", "redis://127.0.0.1:6379/0"),
        timeout_seconds=environment.seconds("REDIS_TIMEOUT_SECONDS", 2.0, minimum=0.01),
    )


def read_pod_settings(environment: Environment) -> PodSettings | None:
    """None unless VISAVIS_POD_NAME names the pod."""
    name, namespace = environment.text("POD_NAME", ""), environment.text("POD_NAMESPACE", "")
    if bool(name) != bool(namespace):
        raise SettingsError(f"{PREFIX}POD_NAME and {PREFIX}POD_NAMESPACE belong together; set both or none")
    url = environment.text("KUBERNETES_URL", "https://kubernetes.default.svc").rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise SettingsError(f"{PREFIX}KUBERNETES_URL is {url!r}; use https://host:port")
    credentials = environment.text("POD_CREDENTIALS", "/var/run/secrets/kubernetes.io/serviceaccount")
    seconds = environment.seconds("POD_DELETION_COST_SECONDS", 30.0, minimum=0.05)
    return PodSettings(name, namespace, url, Path(credentials), seconds) if name else None


def read_tls_settings(environment: Environment) -> TlsSettings:
    settings = TlsSettings(
        certificate=environment.file("TLS_CERTIFICATE"),
        key=environment.file("TLS_KEY"),
        client_authority=environment.file("TLS_CLIENT_AUTHORITY"),
        server_authority=environment.file("TLS_SERVER_AUTHORITY"),
        server_name=environment.text("TLS_SERVER_NAME", ""),
    )
    if (settings.certificate is None) != (settings.key is None):
        raise SettingsError(f"{PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY belong together; set both or none")
    if settings.client_authority is not None and settings.certificate is None:
        raise SettingsError(f"{PREFIX}TLS_CLIENT_AUTHORITY needs {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY")
    return settings


def read_tracing_settings(environment: Environment) -> TracingSettings:
    endpoint = environment.text("OTLP_ENDPOINT", "")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise SettingsError(f"{PREFIX}OTLP_ENDPOINT is {endpoint!r}; use http://host:4317 or https://host:4317")
    return TracingSettings(endpoint=endpoint, sampled_ratio=environment.ratio("TRACE_RATIO", 1.0))


def read_worker_settings(environment: Environment) -> WorkerSettings:
    return WorkerSettings(
        threads=environment.integer("WORKER_THREADS", 0, maximum=1024),
        processors=environment.processors("WORKER_PROCESSORS"),
        start_timeout_seconds=environment.seconds("WORKER_START_TIMEOUT_SECONDS", 600.0, minimum=0.1),
        open_timeout_seconds=environment.seconds("WORKER_OPEN_TIMEOUT_SECONDS", 30.0, minimum=0.01),
        call_timeout_seconds=environment.seconds("WORKER_CALL_TIMEOUT_SECONDS", 60.0, minimum=0.01),
        max_pending_calls=environment.integer("WORKER_MAX_PENDING_CALLS", 8, minimum=1, maximum=512),
        hang_seconds=environment.seconds("WORKER_HANG_SECONDS", 20.0, minimum=0.05),
        kill_seconds=environment.seconds("WORKER_KILL_SECONDS", 120.0, minimum=0.1),
        silence_seconds=environment.seconds("WORKER_SILENCE_SECONDS", 5.0, minimum=0.1),
    )


def default_instance_id() -> str:
    """Unique per process, readable in logs."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port" as (host without brackets, port); raises ValueError.

    Manifests write brackets around whatever address a pod has, IPv4 too. An IPv6 address without brackets is refused:
    its last part could be a port or not.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    known_port = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not bare or not known_port or (not _is_ip(bare) if bracketed else ":" in bare):
        raise ValueError(f"{address!r} is not host:port (with an IPv6 address: [address]:port)")
    return bare, int(port)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def join_address(host: str, port: int) -> str:
    """The reverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advertised(environment: Environment, name: str) -> str:
    """host or host:port; an IPv6 address may stand without brackets, then without a port."""
    address = environment.text(name, "")
    host = address.removeprefix("[").removesuffix("]")
    if ":" not in address or _is_ip(host):
        return address
    return _address(environment, name, "")


def _address(environment: Environment, name: str, default: str, *, optional: bool = False) -> str:
    address = environment.text(name, default)
    if optional and not address:
        return address
    try:
        split_address(address)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}{name}: {error}; port 0 takes a free one") from None
    return address


def _loopback_address(environment: Environment, name: str) -> str:
    address = _address(environment, name, "", optional=True)
    if address:
        host, _ = split_address(address)
        if not _is_ip(host) or not ipaddress.ip_address(host).is_loopback:
            raise SettingsError(f"{PREFIX}{name} is {address!r}; use 127.0.0.1:PORT: whoever reaches it is obeyed")
    return address
