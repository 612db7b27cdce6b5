"""`visavis bench transport`: what gRPC costs at our message sizes, against raw TCP in the same run."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

import psutil
from google.protobuf.message import Message
from rich.console import Console

from visavis.bench.chunk_messages import (
    BASE,
    CODECS,
    MINI,
    Codec,
    ModelSizes,
    picture_messages,
    speech_chunk,
    speech_latents,
    video_latents,
)
from visavis.bench.echo_client import WINDOW, EchoStream, grpc_stream, messages_per_second, raw_stream, round_trips
from visavis.bench.json_file import write_json
from visavis.bench.percentiles import Percentiles
from visavis.bench.surroundings import surroundings
from visavis.bench.transport_report import print_result, write_result
from visavis.bench.transport_result import SCHEMA, ChunkCost, MessageFigures, TransportResult, Way, WayFigures
from visavis.cli.errors import CommandError
from visavis.contract import CHUNK_SECONDS
from visavis.v1.chunk_pb2 import ChunkHeader

_HEADER: Final = ChunkHeader(epoch=1, utterance_id=1, chunk_index=1)


@dataclass(frozen=True, slots=True)
class NamedMessage:
    """A message of ours and what it is called in the result."""

    name: str
    message: Message


@dataclass(frozen=True, slots=True)
class EchoServer:
    """A running `echo_server`."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """What it used so far."""
        times = self.process.cpu_times()
        return times.user + times.system


def run(options: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    if not 0.05 <= options.seconds <= 600:
        raise CommandError(f"--seconds is between 0.05 and 600, not {options.seconds:g}")
    console = Console()
    result = measure(options.seconds, console)
    print_result(result, console)
    if options.json:
        write_json(result, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        for path in write_result(result, options.results):
            console.print(f"wrote {path}")
    return 0


def measure(seconds: float, console: Console) -> TransportResult:
    """Every message over every way, each measurement `seconds` long."""
    found: dict[str, MessageFigures] = {}
    status = console.status("starting")
    with status, _echo_server("raw") as raw, _echo_server("grpc") as over_grpc:
        for each in our_messages():
            status.update(f"{each.name}, {each.message.ByteSize()} bytes")
            found[each.name] = asyncio.run(_measure_message(each, raw, over_grpc, seconds))
    return TransportResult(
        schema=SCHEMA,
        surroundings=surroundings(),
        seconds=seconds,
        window=WINDOW,
        messages=tuple(found.values()),
        chunks=tuple(chunk_costs(found)),
    )


def our_messages() -> Iterator[NamedMessage]:
    """One of every size that travels."""
    yield NamedMessage("speech", speech_chunk(_HEADER))
    for sizes in (MINI, BASE):
        yield NamedMessage(f"speech latents {sizes.name}", speech_latents(_HEADER, sizes))
        yield NamedMessage(f"video latents {sizes.name}", video_latents(_HEADER, sizes))
        for codec in CODECS:
            yield NamedMessage(f"pictures {sizes.name} {codec}", picture_messages(_HEADER, sizes, codec)[0])


def chunk_costs(found: dict[str, MessageFigures]) -> Iterator[ChunkCost]:
    """What a whole chunk costs: speech to the audio encoder, latents there and on to the next stage (the gateway relays
    them, so each travels twice), pictures to the gateway and on to the client."""
    for sizes in (MINI, BASE):
        for codec in CODECS:
            pictures = picture_messages(_HEADER, sizes, codec)
            hops = [
                (found["speech"], 1),
                (found[f"speech latents {sizes.name}"], 2),
                (found[f"video latents {sizes.name}"], 2),
                (found[f"pictures {sizes.name} {codec}"], 2 * len(pictures)),
            ]
            yield _chunk_cost(sizes, codec, hops)


def _chunk_cost(sizes: ModelSizes, codec: Codec, hops: list[tuple[MessageFigures, int]]) -> ChunkCost:
    grpc_seconds = sum(count * each.grpc.round_trip_seconds.p50 / 2 for each, count in hops)
    return ChunkCost(
        name=f"{sizes.name} {codec}",
        messages=sum(count for _, count in hops),
        payload_bytes=sum(count * each.message_bytes for each, count in hops),
        grpc_seconds=grpc_seconds,
        raw_seconds=sum(count * each.raw.round_trip_seconds.p50 / 2 for each, count in hops),
        cpu_seconds=sum(count * each.grpc.cpu_seconds_per_message / 2 for each, count in hops),
        chunk_share=grpc_seconds / CHUNK_SECONDS,
    )


async def _measure_message(
    each: NamedMessage, raw: EchoServer, over_grpc: EchoServer, seconds: float
) -> MessageFigures:
    ways: dict[Way, tuple[EchoServer, AbstractAsyncContextManager[EchoStream]]] = {
        "raw": (raw, raw_stream(raw.port, each.message)),
        "grpc_bytes": (over_grpc, grpc_stream(over_grpc.port, each.message, as_bytes=True)),
        "grpc": (over_grpc, grpc_stream(over_grpc.port, each.message, as_bytes=False)),
    }
    figures = {way: await _measure_way(server, stream, seconds) for way, (server, stream) in ways.items()}
    return MessageFigures(
        name=each.name,
        message_type=each.message.DESCRIPTOR.full_name,
        message_bytes=each.message.ByteSize(),
        raw=figures["raw"],
        grpc_bytes=figures["grpc_bytes"],
        grpc=figures["grpc"],
    )


async def _measure_way(
    server: EchoServer, opening: AbstractAsyncContextManager[EchoStream], seconds: float
) -> WayFigures:
    async with opening as stream:
        cpu_before = time.process_time() + server.cpu_seconds()
        trips = await round_trips(stream, seconds)
        cpu_seconds = time.process_time() + server.cpu_seconds() - cpu_before
        rate = await messages_per_second(stream, seconds)
    return WayFigures(Percentiles.of(trips), rate, cpu_seconds / len(trips))


@contextmanager
def _echo_server(kind: str) -> Iterator[EchoServer]:
    command = [sys.executable, "-m", "visavis.bench.echo_server", kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise CommandError(f"the echo server ended with exit code {process.wait()}")
        yield EchoServer(int(line), psutil.Process(process.pid))
    finally:
        process.kill()
        process.communicate()
