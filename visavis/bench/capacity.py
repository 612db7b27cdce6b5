"""`visavis bench capacity`: what a session costs Redis and the gateway, and from that a plan for many GPUs."""

from __future__ import annotations

import argparse
import os
from typing import Final

from rich.console import Console

from visavis.bench.capacity_plan import Assumptions, Measured, plan_capacity, sum_of
from visavis.bench.capacity_report import SCHEMA, CapacityFindings, print_findings, write_findings
from visavis.bench.chunk_messages import CODECS, SIZES, Codec, ModelSizes, picture_messages, speech_chunk
from visavis.bench.chunk_messages import speech_latents as speech_latents_message
from visavis.bench.chunk_messages import video_latents as video_latents_message
from visavis.bench.gateway_cost import measure_gateway
from visavis.bench.json_file import write_json
from visavis.bench.placement_cost import measure_placement
from visavis.bench.redis_replay import replay, replayable
from visavis.bench.redis_traffic import INSTANCES, measure_traffic
from visavis.bench.resources import MachineClock
from visavis.bench.surroundings import surroundings
from visavis.cli.errors import CommandError
from visavis.contract import CHUNK_SAMPLES
from visavis.v1.chunk_pb2 import ChunkHeader

REPLAY_SECONDS: Final = 5.0
_SAMPLE_BYTES: Final = 2


def run(options: argparse.Namespace) -> int:
    """Measures, reckons, prints and writes."""
    _check(options)
    console = Console()
    found = measure(options, console)
    print_findings(found, console)
    if options.json:
        write_json(found, options.json)
        console.print(f"wrote {options.json}")
    if not options.no_result:
        for path in write_findings(found, options.results):
            console.print(f"wrote {path}")
    return 0


def measure(options: argparse.Namespace, console: Console) -> CapacityFindings:
    """Everything, one after the other."""
    clock = MachineClock()
    status = console.status("starting")
    with status:
        placement = measure_placement(status.update)
        traffic, sent = measure_traffic(options.sessions, options.seconds, status.update)
        status.update("Redis: the same traffic as fast as it goes")
        replayed = replay(replayable(sent), REPLAY_SECONDS, max(1, (os.cpu_count() or 1) // 2))
        gateways = [
            measure_gateway(options.model, codec, options.gateway_sessions, options.seconds, status.update)
            for codec in CODECS
        ]
    (chosen,) = (each for each in gateways if each.codec == options.codec)
    measured = Measured(
        instance_commands_per_second=sum_of(traffic.idle_per_second) / INSTANCES,
        session_commands_per_second=sum_of(traffic.session_per_second),
        session_commands_once=sum_of(traffic.session_once),
        redis_cpu_seconds=replayed.cpu_seconds_per_operation,
        redis=chosen.redis,
        gateway_cpu_seconds=chosen.cpu_seconds_per_session_second,
        placement=tuple(placement),
        out_bytes=sent_bytes(SIZES[options.model], options.codec),
    )
    assumed = Assumptions(
        gpus=options.gpus,
        sessions_per_gpu=options.sessions_per_gpu,
        session_seconds=options.session_seconds,
        nic_bits_per_second=options.gigabits * 1e9,
        redis_memory_bytes=options.redis_gibibytes * 2**30,
    )
    return CapacityFindings(
        schema=SCHEMA,
        surroundings=surroundings(),
        # Everything that was started has ended by now, so it counts as this process's own.
        machine=clock.use({}),
        traffic=traffic,
        replay=replayed,
        placement=tuple(placement),
        gateways=tuple(gateways),
        measured=measured,
        assumed=assumed,
        plan=plan_capacity(measured, assumed),
    )


def sent_bytes(sizes: ModelSizes, codec: Codec) -> float:
    """What a gateway sends for one chunk: pictures and sound to the client, speech and latents to the stages."""
    header = ChunkHeader(epoch=1, utterance_id=1, chunk_index=1)
    to_stages = (
        speech_chunk(header),
        speech_latents_message(header, sizes),
        video_latents_message(header, sizes),
    )
    pictures = sum(message.ByteSize() for message in picture_messages(header, sizes, codec))
    return pictures + CHUNK_SAMPLES * _SAMPLE_BYTES + sum(message.ByteSize() for message in to_stages)


def _check(options: argparse.Namespace) -> None:
    for name, value, least in (
        ("--gpus", options.gpus, 1),
        ("--sessions-per-gpu", options.sessions_per_gpu, 0.1),
        ("--session-seconds", options.session_seconds, 1),
        ("--gigabits", options.gigabits, 0.1),
        ("--redis-gibibytes", options.redis_gibibytes, 0.1),
        ("--sessions", options.sessions, 1),
        ("--gateway-sessions", options.gateway_sessions, 1),
        ("--seconds", options.seconds, 5),
    ):
        if not least <= value < 1e9:
            raise CommandError(f"{name} is at least {least:g}, not {value:g}")
