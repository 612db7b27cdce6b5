"""A whole visavis on this machine: Valkey, the three stages and the gateway as separate processes."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visavis.cli.service_programs import service_command, service_python_path
from visavis.cli.supervisor import Supervisor
from visavis.cli.valkey import valkey_answers, valkey_command
from visavis.client import BlockingClient, ServerUnavailable

STAGES: Final = ("audio-encoder", "generator", "decoder")
DRAIN_SECONDS: Final = 3.0
STOP_SECONDS: Final = 8.0
START_SECONDS: Final = 300.0
_VALKEY_START_SECONDS: Final = 10.0
_HEARTBEAT_WAIT_SECONDS: Final = 30.0
_TIER_VALKEY, _TIER_STAGE, _TIER_GATEWAY = 0, 1, 2


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """What to start.

    model: preset or model folder.
    redis_url: a running Redis or Valkey; None starts an embedded one.
    run_folder: where outputs and logs go; None takes a temporary folder that is removed in the end.
    gateway_address: where the gateway listens; port 0 takes a free one.
    environment: further VISAVIS_* variables for every service; `service_environment`: for one.
    """

    model: str
    redis_url: str | None
    run_folder: Path | None
    gateway_address: str
    environment: Mapping[str, str]
    service_environment: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """A running system. Addresses are host:port."""

    supervisor: Supervisor
    redis_url: str
    addresses: Mapping[str, str]
    metrics: Mapping[str, str]

    @property
    def gateway_address(self) -> str:
        """Where clients connect."""
        return self.addresses["gateway"]


def default_settings(model: str, sampling: str | None = None) -> SystemSettings:
    """Embedded Valkey, free ports, temporary folder; `sampling`: standard or fast, None as the environment says."""
    return SystemSettings(
        model=model,
        redis_url=None,
        run_folder=None,
        gateway_address="127.0.0.1:0",
        environment=sampling_environment(sampling),
        service_environment={},
    )


def sampling_environment(sampling: str | None) -> dict[str, str]:
    """What makes a system's generator sample so."""
    return {} if sampling is None else {"VISAVIS_SAMPLING": sampling}


@contextmanager
def local_system(settings: SystemSettings, say: Callable[[str], None]) -> Iterator[LocalSystem]:
    """Starts everything, waits until all of it is ready, and stops all of it on leaving.

    say: hears one line per step. Raises ProcessDied, NotReady or CommandError.
    """
    commands = {name: service_command(name) for name in (*STAGES, "gateway")}
    with (
        _folders(settings.run_folder) as (run_folder, socket_path),
        Supervisor(run_folder, stop_seconds=STOP_SECONDS) as supervisor,
    ):
        redis_url = settings.redis_url or _start_valkey(supervisor, socket_path)
        say("starting the audio encoder, the generator, the decoder and the gateway")
        for name, command in commands.items():
            environment = service_environment(settings, name, redis_url)
            supervisor.start(name, command, environment, tier=_TIER_GATEWAY if name == "gateway" else _TIER_STAGE)
        ready = {}
        for name in commands:
            ready[name] = supervisor.wait_ready(supervisor.process(name), START_SECONDS)
            say(f"{name} is ready at {ready[name]['address']}")
        _wait_for_heartbeats(supervisor, str(ready["gateway"]["address"]))
        yield LocalSystem(
            supervisor=supervisor,
            redis_url=redis_url,
            addresses={name: str(line["address"]) for name, line in ready.items()},
            metrics={name: str(line["metrics"]) for name, line in ready.items()},
        )


def service_environment(settings: SystemSettings, name: str, redis_url: str) -> dict[str, str]:
    """The environment of one service: this process's own, overridden by what the system decides."""
    inherited = dict(os.environ)
    decided = {
        "PYTHONPATH": service_python_path(inherited.get("PYTHONPATH", "")),
        "PYTHONUNBUFFERED": "1",
        "VISAVIS_MODEL": settings.model,
        "VISAVIS_REDIS_URL": redis_url,
        "VISAVIS_LISTEN_ADDRESS": settings.gateway_address if name == "gateway" else "127.0.0.1:0",
        "VISAVIS_METRICS_ADDRESS": "127.0.0.1:0",
    }
    defaults = {"VISAVIS_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    return {
        **defaults,
        **inherited,
        **decided,
        **settings.environment,
        **settings.service_environment.get(name, {}),
    }


def _wait_for_heartbeats(supervisor: Supervisor, gateway: str) -> None:
    """Services are ready before the gateway has heard of them; a session would find no stage until then."""
    with BlockingClient(gateway) as client:

        def all_known() -> bool:
            try:
                return all(stage.instances for stage in client.capacity().stages)
            except ServerUnavailable:
                return False

        supervisor.wait_until(all_known, supervisor.process("gateway"), _HEARTBEAT_WAIT_SECONDS)


def _start_valkey(supervisor: Supervisor, socket_path: Path) -> str:
    environment = {"PATH": os.environ.get("PATH", "")}
    process = supervisor.start("valkey", valkey_command(socket_path), environment, tier=_TIER_VALKEY)
    supervisor.wait_until(lambda: valkey_answers(socket_path), process, _VALKEY_START_SECONDS)
    return f"unix://{socket_path}"


@contextmanager
def _folders(run_folder: Path | None) -> Iterator[tuple[Path, Path]]:
    """The run folder, and the path of a socket in a folder of its own (such paths must be short)."""
    temporary = Path(tempfile.mkdtemp(prefix="visavis-"))
    try:
        yield run_folder or temporary, temporary / "valkey.sock"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
