"""Random and mutated requests against the public service: whatever comes, a proper status goes back, and soon.

python -m tests.faults.fuzz --inputs 20000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.faults.cluster import until
from tests.gateway.gateway_harness import running_gateway
from visavis.final_status import StatusWatch
from visavis.runtime.channels import channel_options
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.slots import SlotPool
from visavis.v1 import media_pb2, talking_head_pb2
from visavis.v1.talking_head_pb2 import TalkRequest

_SERVICE: Final = "/visavis.v1.TalkingHeadService/"
_UNARY: Final = (
    ("RegisterAvatar", talking_head_pb2.RegisterAvatarRequest),
    ("GetAvatar", talking_head_pb2.GetAvatarRequest),
    ("ListAvatars", talking_head_pb2.ListAvatarsRequest),
    ("DeleteAvatar", talking_head_pb2.DeleteAvatarRequest),
    ("GetCapacity", talking_head_pb2.GetCapacityRequest),
    ("GetServerInfo", talking_head_pb2.GetServerInfoRequest),
)
# A call that takes longer hangs.
_HANG_SECONDS: Final = 60.0
# What a client may be told; INTERNAL and UNKNOWN are faults of the server, DEADLINE_EXCEEDED is a hang.
_PROPER: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
    }
)
_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
}
_TEXTS: Final = ("", "x", "known", "..", "\x00", "ü" * 300, "{session}", "visavis:*")


@dataclass
class FuzzReport:
    """Inputs (messages), calls by status, and what was wrong."""

    inputs: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


async def fuzz(inputs: int, seed: int) -> FuzzReport:
    """At least so many messages at a gateway with instant stages and a real Redis."""
    chance = random.Random(seed)
    report = FuzzReport()
    async with EmbeddedRedis() as redis, running_gateway(redis.url, SLOTS="8", IDLE_LIMIT_SECONDS="3") as gateway:
        avatar_id = await gateway.register_avatar()
        async with grpc.aio.insecure_channel(gateway.address, options=channel_options()) as channel:
            while report.inputs < inputs:
                calls = [_one_call(channel, chance, avatar_id, report) for _ in range(6)]
                await asyncio.gather(*calls)
        alive = await gateway.stub.GetServerInfo(talking_head_pb2.GetServerInfoRequest(), timeout=_HANG_SECONDS)
        if not alive.version:
            report.failures.append("the gateway does not know its version any more")
        await _expect_free_slots(gateway.runtime.slots, report)
    return report


async def _expect_free_slots(slots: SlotPool, report: FuzzReport) -> None:
    if not await until(lambda: not slots.used_slots, _HANG_SECONDS):
        report.failures.append(f"{slots.used_slots} slots stay taken")


async def _one_call(channel: grpc.aio.Channel, chance: random.Random, avatar_id: str, report: FuzzReport) -> None:
    if chance.random() < 0.25:
        name, request_type = chance.choice(_UNARY)
        payloads = [_payload(chance, _random_message(chance, request_type()))]
    else:
        name, payloads = "Talk", [_payload(chance, each) for each in _conversation(chance, avatar_id)]
    report.inputs += len(payloads)
    code, details = await _call(channel, name, payloads)
    report.calls[f"{name} {code.name}"] += 1
    if code not in _PROPER:
        shown = " ".join(payload.hex()[:80] for payload in payloads[-3:])
        report.failures.append(f"{name}: {code.name}: {details}: ...{shown}")


async def _call(channel: grpc.aio.Channel, name: str, payloads: Sequence[bytes]) -> tuple[grpc.StatusCode, str]:
    untyped: Any = channel  # bytes go in as they are
    if name == "Talk":
        call = untyped.stream_stream(_SERVICE + name)(timeout=_HANG_SECONDS)
        watch = StatusWatch(call)
        await asyncio.gather(_write(call, payloads), _read(call))
    else:
        call = untyped.unary_unary(_SERVICE + name)(payloads[0], timeout=_HANG_SECONDS)
        watch = StatusWatch(call)
    await call.code()
    call.cancel()
    assert watch.status is not None
    return watch.status.code, watch.status.message


async def _write(call: Any, payloads: Sequence[bytes]) -> None:
    """Writes until the server has ended the call, and half-closes."""
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        for payload in payloads:
            await call.write(payload)
        await call.done_writing()


async def _read(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass


def _conversation(chance: random.Random, avatar_id: str) -> list[TalkRequest]:
    """Mostly a session that opens, and then anything."""
    requests = []
    if chance.random() < 0.8:
        requests.append(_good_config(chance, avatar_id))
    for _ in range(chance.randint(0, 8)):
        requests.append(_likely_request(chance) if chance.random() < 0.6 else _random_message(chance, TalkRequest()))
    return requests or [TalkRequest()]


def _good_config(chance: random.Random, avatar_id: str) -> TalkRequest:
    config = talking_head_pb2.SessionConfig(
        avatar_id=avatar_id,
        audio_format=media_pb2.AudioFormat(
            encoding=media_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hz=16_000, channel_count=1
        ),
        video_format=media_pb2.VideoFormat(codec=media_pb2.VIDEO_CODEC_JPEG),
        idle_behavior=chance.choice(talking_head_pb2.IdleBehavior.values()),
        starvation_policy=chance.choice(talking_head_pb2.StarvationPolicy.values()),
        slow_reader_policy=chance.choice(talking_head_pb2.SlowReaderPolicy.values()),
    )
    if chance.random() < 0.15:
        _set_random_field(chance, config)
    return TalkRequest(config=config)


def _likely_request(chance: random.Random) -> TalkRequest:
    match chance.randrange(6):
        case 0:
            return TalkRequest(
                interrupt=talking_head_pb2.Interrupt(played_samples=chance.choice([0, 1, 15_360, 10**6]))
            )
        case 1:
            return TalkRequest(interrupt=talking_head_pb2.Interrupt())
        case 2:
            return TalkRequest(end_of_utterance=talking_head_pb2.EndOfUtterance())
        case 3:
            return TalkRequest(end_of_audio=talking_head_pb2.EndOfAudio())
        case _:
            return TalkRequest(
                audio=talking_head_pb2.AudioInput(pcm=chance.randbytes(chance.choice([1, 2, 640, 40_000])))
            )


def _random_message(chance: random.Random, message: Any, depth: int = 0) -> Any:
    """`message` with random fields, some nested, values at and beyond every border."""
    for _ in range(chance.randint(0, 4)):
        _set_random_field(chance, message, depth)
    return message


def _set_random_field(chance: random.Random, message: Message, depth: int = 0) -> None:
    fields: Any = message.DESCRIPTOR.fields
    if not fields:
        return
    field_ = chance.choice(fields)
    if field_.type == FieldDescriptor.TYPE_MESSAGE:
        child = getattr(message, field_.name)
        if field_.is_repeated:
            child = child.add()
        child.SetInParent()
        if depth < 4:
            _random_message(chance, child, depth + 1)
        return
    value = _random_value(chance, field_)
    if field_.is_repeated:
        getattr(message, field_.name).append(value)
    else:
        setattr(message, field_.name, value)


def _random_value(chance: random.Random, field_: FieldDescriptor) -> Any:
    if field_.type in _INTEGERS:
        low, high = _INTEGERS[field_.type]
        return chance.choice([low, high, 0, 1, chance.randint(low, high), 16_000, 25])
    if field_.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([0, 1, 2, 3, 1_000_000, -1])
    if field_.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if field_.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.choice([0, 1, 2, 3, 1000, 70_000]))
    if field_.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(_TEXTS)
    return chance.choice([0.0, -1.0, float("nan"), float("inf"), 1e308])


def _payload(chance: random.Random, message: Message) -> bytes:
    """The message's bytes, one time in four damaged."""
    data = bytearray(message.SerializeToString())
    if chance.random() < 0.75:
        return bytes(data)
    for _ in range(chance.randint(1, 4)):
        match chance.randrange(4):
            case 0 if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 1 if data:
                del data[chance.randrange(len(data)) :]
            case 2:
                data[chance.randint(0, len(data)) : 0] = chance.randbytes(chance.randint(1, 9))
            case _:
                data += chance.randbytes(chance.randint(1, 200))
    return bytes(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and reports; 1 when anything was found."""
    parser = argparse.ArgumentParser(description="Random and mutated requests against the public service.")
    parser.add_argument("--inputs", type=int, default=20_000, help="messages to send")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    report = asyncio.run(fuzz(options.inputs, options.seed))
    print(f"{report.inputs} messages in {sum(report.calls.values())} calls")
    for name, count in sorted(report.calls.items()):
        print(f"  {name}: {count}")
    print("\n".join(report.failures) or "always a proper status")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
