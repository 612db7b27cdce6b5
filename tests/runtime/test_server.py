"""A whole service as a process: readiness, health, metrics, registration, draining, the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.patience import PATIENCE_SECONDS
from tests.runtime.certificates import make_authority, make_identity
from tests.runtime.kubernetes_api import kubernetes_api
from tests.runtime.messages import chunk_request, config_request
from tests.runtime.processes import is_alive, wait_until_dead
from tests.runtime.tone_engine import HANG, KILL, SECRET, Gate
from visavis.runtime.channels import open_channel
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import Draining, LimitExceeded, WorkerLost, error_from_rpc
from visavis.runtime.readiness import LIVENESS, STARTUP
from visavis.runtime.redis_connection import RedisClient
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.server import advertised_address
from visavis.runtime.settings import TlsSettings
from visavis.v1 import audio_encoder_pb2, audio_encoder_pb2_grpc
from visavis.v1.operations_pb2 import DrainRequest, DrainResponse
from visavis.v1.operations_pb2_grpc import OperationsServiceStub

REPOSITORY = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GRPC_NAME = "visavis.v1.AudioEncoderService"
# Processes start within this time, also where many threads want few cores.
START_SECONDS = 60.0
PLAIN = TlsSettings(certificate=None, key=None, client_authority=None, server_authority=None, server_name="")


class Process:
    """A running tone service."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.address = ""
        self.metrics = ""
        self.operations = ""
        self._log = log

    async def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self.process.stdout.readline()
        assert line, self._log.read_text()
        ready = json.loads(line)
        assert ready["event"] == "ready"
        self.address, self.metrics = ready["address"], ready["metrics"]
        self.operations = ready.get("operations", "")

    async def wait_until_listening(self) -> None:
        async def listening() -> bool:
            return "listening" in self.events()

        await wait_for(listening)
        entry = next(entry for entry in self.log() if entry["event"] == "listening")
        self.address, self.metrics = entry["address"], entry["metrics"]

    async def exit_code(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()

    def log(self) -> list[dict[str, Any]]:
        """Every line of the log is one JSON object."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line]

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log()]

    async def scrape(self) -> str:
        def get() -> str:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=PATIENCE_SECONDS) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(get)

    def worker_process_id(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


Start = Callable[..., AbstractAsyncContextManager[Process]]


@pytest.fixture
def start(redis_server: EmbeddedRedis, redis: RedisClient, tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(*, ready: bool = True, **variables: str) -> AsyncIterator[Process]:
        patience = {"REDIS_TIMEOUT_SECONDS": str(PATIENCE_SECONDS), "CONFIG_TIMEOUT_SECONDS": str(PATIENCE_SECONDS)}
        defaults = {"REDIS_URL": redis_server.url, "HEARTBEAT_SECONDS": "0.2", **patience}
        environment = {f"VISAVIS_{name}": value for name, value in {**defaults, **variables}.items()}
        log = tmp_path / "log.jsonl"
        with log.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.runtime.tone_service"),
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        service = Process(process, log)
        try:
            if ready:
                await service.wait_until_ready()
            yield service
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


@asynccontextmanager
async def channel_to(service: Process, tls: TlsSettings = PLAIN) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(service.address, tls) as channel:
        yield channel


async def health_of(channel: grpc.aio.Channel, name: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_SECONDS)).status


async def wait_for(condition: Callable[[], Awaitable[bool]]) -> None:
    """For what happens in another process and tells nobody."""
    async with asyncio.timeout(START_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def wait_for_health(channel: grpc.aio.Channel, status: Any) -> None:
    async def reached() -> bool:
        return bool(await health_of(channel) == status and await health_of(channel, GRPC_NAME) == status)

    await wait_for(reached)


@asynccontextmanager
async def session(channel: grpc.aio.Channel, session_id: str = "s1") -> AsyncIterator[Any]:
    stub: Any = audio_encoder_pb2_grpc.AudioEncoderServiceStub(channel)
    call = stub.Encode()
    try:
        await call.write(config_request(session_id))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await call.read()).HasField("ready")
        yield call
    finally:
        call.cancel()


async def speak(call: Any, index: int) -> None:
    await call.write(chunk_request(index))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await call.read()).HasField("draining"):
            pass
    assert answer.chunk.speech.header.chunk_index == index


async def end_of(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await call.read()
    return error_from_rpc(failure.value)


def registry_of(redis: RedisClient) -> Registry:
    return Registry(redis, heartbeat_seconds=0.2, timeout_seconds=PATIENCE_SECONDS)


async def test_a_service_is_found_by_its_heartbeat_serves_and_exits_with_zero(start: Start, redis: RedisClient) -> None:
    async with start(INSTANCE_ID="tone-1", SLOTS="6", TONE_SLOTS="2") as service:
        instance = await instance_of(redis, lambda instance: True)
        assert (instance.instance_id, instance.address) == ("tone-1", service.address)
        assert (instance.slots, instance.used_slots, instance.draining) == (2, 0, False)
        assert (instance.model_name, instance.random_weights) == ("tone", True)
        assert (instance.width, instance.height, instance.frame_rate) == (64, 48, 25)
        async with channel_to(service) as channel:
            assert await health_of(channel) == SERVING
            assert await health_of(channel, GRPC_NAME) == SERVING
            async with session(channel) as call:
                await speak(call, 1)
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert await registry_of(redis).list_instances("audio_encoder") == []
        assert (await service.process.communicate())[0] == b""  # the ready line was all
        assert {"listening", "draining", "the service has stopped"} <= set(service.events())


async def instance_of(redis: RedisClient, wanted: Callable[[StageInstance], bool]) -> StageInstance:
    """The service's heartbeat as soon as it is as wanted."""
    found: list[StageInstance] = []

    async def listed() -> bool:
        found[:] = await registry_of(redis).list_instances("audio_encoder")
        return bool(found) and wanted(found[0])

    await wait_for(listed)
    return found[0]


async def test_load_is_in_the_registry_at_once(start: Start, redis: RedisClient) -> None:
    async with start(HEARTBEAT_SECONDS="3600") as service, channel_to(service) as channel:
        async with session(channel):
            await instance_of(redis, lambda instance: instance.used_slots == 1)
        await instance_of(redis, lambda instance: instance.used_slots == 0)


async def test_metrics_reflection_and_limits(start: Start) -> None:
    async with start() as service, channel_to(service) as channel:
        async with session(channel) as call:
            await speak(call, 1)

            async def one_slot_used() -> bool:  # a heartbeat says so
                return 'visavis_used_slots{stage="audio_encoder"} 1.0' in await service.scrape()

            await wait_for(one_slot_used)
            metrics = await service.scrape()
            assert 'visavis_chunk_duration_seconds_bucket{le="0.96",stage="audio_encoder"}' in metrics
            assert 'visavis_chunk_duration_seconds_count{stage="audio_encoder"} 1.0' in metrics
            assert 'visavis_serving{stage="audio_encoder"} 1.0' in metrics
            memory = next(line for line in metrics.splitlines() if line.startswith("visavis_worker_resident_memory"))
            assert float(memory.split()[1]) > 10e6
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in reflection.ServerReflectionInfo(iter([request]))]
        assert GRPC_NAME in [service.name for service in answers[0].list_services_response.service]
        careless = grpc.aio.insecure_channel(service.address, options=[("grpc.max_send_message_length", -1)])
        async with careless, session(careless, "s2") as call:
            too_much = audio_encoder_pb2.SpeechChunk(samples=bytes(5 * 1024 * 1024))
            await call.write(audio_encoder_pb2.EncodeRequest(chunk=too_much))
            assert isinstance(await end_of(call), LimitExceeded)


async def test_not_serving_until_the_worker_is_warm(start: Start, gate: Gate) -> None:
    async with start(ready=False, TONE_GATE=str(gate.path), TONE_GATED="warm up") as service:
        await service.wait_until_listening()
        async with channel_to(service) as channel:
            assert await health_of(channel) == NOT_SERVING
            gate.open()
            await service.wait_until_ready()
            assert await health_of(channel) == SERVING


async def test_redis_down_at_start_and_later(start: Start) -> None:
    redis_server = EmbeddedRedis()
    await redis_server.start()
    await redis_server.stop()
    async with start(ready=False, REDIS_URL=redis_server.url) as service:
        await service.wait_until_listening()

        async def told() -> bool:
            return "Redis cannot be reached, trying on" in service.events()

        await wait_for(told)
        await asyncio.sleep(0.5)  # it tries again
        async with channel_to(service) as channel:
            assert await health_of(channel) == NOT_SERVING
            assert service.events().count("Redis cannot be reached, trying on") == 1
            await redis_server.start()
            await service.wait_until_ready()
            async with session(channel) as call:
                await speak(call, 1)
                await redis_server.stop()
                await wait_for_health(channel, NOT_SERVING)
                await speak(call, 2)
                await redis_server.start()
                await wait_for_health(channel, SERVING)
                await speak(call, 3)
        await redis_server.stop()


async def test_probes_ask_for_start_life_and_readiness_on_a_plain_port(
    start: Start, tmp_path: Path, gate: Gate
) -> None:
    """Also with TLS: kubelet's gRPC probes speak none."""
    authority = make_authority(tmp_path, "authority")
    server = make_identity(tmp_path, "server", authority)
    tls = {"TLS_CERTIFICATE": str(server.certificate), "TLS_KEY": str(server.key)}
    probes = {"HEALTH_ADDRESS": "127.0.0.1:0", "TONE_GATE": str(gate.path), "TONE_GATED": "warm up"}
    async with start(ready=False, **tls, **probes) as service:
        await service.wait_until_listening()
        health = next(entry["health"] for entry in service.log() if entry["event"] == "listening")
        async with open_channel(health, PLAIN) as channel:
            assert await health_of(channel, LIVENESS) == SERVING
            assert await health_of(channel, STARTUP) == NOT_SERVING
            assert await health_of(channel) == NOT_SERVING
            gate.open()
            await service.wait_until_ready()
            assert await health_of(channel, STARTUP) == SERVING
            assert await health_of(channel) == SERVING
            async with channel_to(service, client_tls(authority.certificate)) as talk, session(talk):
                service.process.send_signal(signal.SIGTERM)
                await wait_for_health(channel, NOT_SERVING)
                assert await health_of(channel, LIVENESS) == SERVING
                assert await health_of(channel, STARTUP) == SERVING
        assert await service.exit_code() == 0


async def test_a_full_service_is_ready(start: Start) -> None:
    async with start(SLOTS="1", TONE_SLOTS="1") as service, channel_to(service) as channel, session(channel) as call:
        await speak(call, 1)
        assert await health_of(channel) == SERVING


async def test_without_redis_a_service_has_started_and_is_not_ready(start: Start) -> None:
    """Else a Redis that is away would restart every warm worker."""
    async with start(ready=False, REDIS_URL="redis://127.0.0.1:1/0") as service:
        await service.wait_until_listening()
        async with channel_to(service) as channel:

            async def started() -> bool:
                return bool(await health_of(channel, STARTUP) == SERVING)

            await wait_for(started)
            assert await health_of(channel) == NOT_SERVING


async def test_sessions_are_the_pods_deletion_cost(start: Start, tmp_path: Path) -> None:
    tmp_path.joinpath("token").write_text("secret")
    pod = {"POD_NAME": "tone-1", "POD_NAMESPACE": "visavis", "POD_DELETION_COST_SECONDS": "0.1"}
    with kubernetes_api("secret") as api:
        async with (
            start(KUBERNETES_URL=api.url, POD_CREDENTIALS=str(tmp_path), **pod) as service,
            channel_to(service) as channel,
        ):
            async with session(channel) as call:
                await speak(call, 1)
                await asyncio.to_thread(api.wait_for_cost, "1")
            await asyncio.to_thread(api.wait_for_cost, "0")


async def drain(service: Process) -> DrainResponse:
    async with open_channel(service.operations, PLAIN) as channel:
        return await OperationsServiceStub(channel).Drain(DrainRequest(), timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("how", ["SIGTERM", "Drain", "both"])
async def test_draining_waits_for_the_running_session(start: Start, redis: RedisClient, how: str) -> None:
    addresses = {"OPERATIONS_ADDRESS": "127.0.0.1:0"}
    async with start(**addresses, DRAIN_SECONDS="300") as service, channel_to(service) as channel:
        async with session(channel) as call:
            await speak(call, 1)
            for _ in range(2) if how == "Drain" else range(how == "both"):
                told = await drain(service)
                assert told.sessions == 1
                assert 200 < told.time_left.ToSeconds() <= 300
            if how != "Drain":
                service.process.send_signal(signal.SIGTERM)
            await wait_for_health(channel, NOT_SERVING)
            await instance_of(redis, lambda instance: instance.draining)
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                async with session(channel, "s2"):
                    pass
            assert isinstance(error_from_rpc(refusal.value), Draining)
            await speak(call, 2)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK
        assert await service.exit_code() == 0


async def test_only_the_operations_port_drains_and_an_empty_service_ends_at_once(start: Start) -> None:
    async with start(OPERATIONS_ADDRESS="127.0.0.1:0") as service:
        async with channel_to(service) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await OperationsServiceStub(channel).Drain(DrainRequest(), timeout=PATIENCE_SECONDS)
            assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert await health_of(channel) == SERVING
        assert (await drain(service)).sessions == 0
        assert await service.exit_code() == 0


async def test_draining_cuts_off_what_takes_too_long(start: Start) -> None:
    async with start(DRAIN_SECONDS="2.5") as service, channel_to(service) as channel, session(channel) as call:
        await speak(call, 1)
        service.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert 0 < (await call.read()).draining.time_left.ToMilliseconds() <= 2_500
        assert isinstance(await end_of(call), Draining)
        assert await service.exit_code() == 0


async def test_a_second_signal_ends_the_process_at_once(start: Start) -> None:
    async with start(DRAIN_SECONDS="3600") as service, channel_to(service) as channel, session(channel) as call:
        await speak(call, 1)
        worker_process_id = service.worker_process_id()
        service.process.send_signal(signal.SIGTERM)
        await wait_for_health(channel, NOT_SERVING)
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 128 + signal.SIGTERM
        await asyncio.to_thread(wait_until_dead, worker_process_id)


async def test_a_signal_while_warming_up_ends_it(start: Start) -> None:
    async with start(ready=False, TONE_WARM_UP_SECONDS="60") as service:
        await service.wait_until_listening()
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 0


@pytest.mark.parametrize("how", ["kill -9", "SIGSTOP", "crash"])
async def test_a_lost_worker_ends_the_service(start: Start, how: str) -> None:
    async with (
        start(WORKER_SILENCE_SECONDS="3") as service,
        channel_to(service) as channel,
        session(channel) as call,
    ):
        if how == "crash":
            await call.write(chunk_request(order=KILL))
        else:
            os.kill(service.worker_process_id(), signal.SIGKILL if how == "kill -9" else signal.SIGSTOP)
        assert isinstance(await end_of(call), WorkerLost)
        assert await service.exit_code() == 1
        assert "the worker is lost" in service.events()


async def test_a_killed_service_takes_its_worker_along(start: Start) -> None:
    async with start() as service:
        worker_process_id = service.worker_process_id()
        assert is_alive(worker_process_id)
        service.process.kill()
        await asyncio.to_thread(wait_until_dead, worker_process_id)


async def test_an_engine_that_cannot_start_ends_the_service(start: Start) -> None:
    async with start(ready=False, TONE_FAILS_TO_START="true") as service:
        assert await service.exit_code() == 1
        assert "the worker did not start" in service.events()
        assert any(SECRET in entry.get("exception", "") for entry in service.log())


async def test_a_hung_engine_is_not_serving(start: Start) -> None:
    async with (
        start(WORKER_HANG_SECONDS="2.5") as service,
        channel_to(service) as channel,
        session(channel) as call,
    ):
        await call.write(chunk_request(order=HANG))
        await wait_for_health(channel, NOT_SERVING)


async def test_a_taken_port_is_an_error(start: Start) -> None:
    async with start() as service, start(ready=False, LISTEN_ADDRESS=service.address) as second:
        assert await second.exit_code() == 1


async def test_a_wrong_setting_is_named(start: Start) -> None:
    async with start(ready=False, SLOTS="many") as service:
        assert await service.exit_code() == 2
        assert "VISAVIS_SLOTS" in service.log()[-1]["event"]


def client_tls(server_authority: Path, **own: Path) -> TlsSettings:
    return TlsSettings(
        certificate=own.get("certificate"),
        key=own.get("key"),
        client_authority=None,
        server_authority=server_authority,
        server_name="",
    )


async def test_tls_and_mutual_tls(start: Start, tmp_path: Path) -> None:
    authority, stranger = make_authority(tmp_path, "authority"), make_authority(tmp_path, "stranger")
    server, client = make_identity(tmp_path, "server", authority), make_identity(tmp_path, "client", authority)
    outsider = make_identity(tmp_path, "outsider", stranger)
    server_side = {"TLS_CERTIFICATE": str(server.certificate), "TLS_KEY": str(server.key)}
    async with start(**server_side) as service:
        assert await can_talk(service, client_tls(authority.certificate))
        assert not await can_talk(service, client_tls(stranger.certificate))
        assert not await can_talk(service, PLAIN)
    async with start(**server_side, TLS_CLIENT_AUTHORITY=str(authority.certificate)) as service:
        own = {"certificate": client.certificate, "key": client.key}
        foreign = {"certificate": outsider.certificate, "key": outsider.key}
        assert await can_talk(service, client_tls(authority.certificate, **own))
        assert not await can_talk(service, client_tls(authority.certificate))
        assert not await can_talk(service, client_tls(authority.certificate, **foreign))


async def can_talk(service: Process, tls: TlsSettings) -> bool:
    async with channel_to(service, tls) as channel:
        try:
            async with session(channel) as call:
                await speak(call, 1)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return False
            raise
        return True


@pytest.mark.parametrize(
    ("configured", "bound", "expected"),
    [
        ("", "127.0.0.1:5000", "127.0.0.1:5000"),
        ("10.0.0.7", "0.0.0.0:5000", "10.0.0.7:5000"),
        ("pod.local:7000", "0.0.0.0:5000", "pod.local:7000"),
        ("[fd00::1]", "[::]:5000", "[fd00::1]:5000"),
        ("[fd00::1]:7000", "[::]:5000", "[fd00::1]:7000"),
        ("fd00::1", "0.0.0.0:5000", "[fd00::1]:5000"),
        ("2001:db8::50:51", "[::]:5000", "[2001:db8::50:51]:5000"),
    ],
)
def test_the_advertised_address(configured: str, bound: str, expected: str) -> None:
    assert advertised_address(configured, bound) == expected
