"""The arguments of `visavis bench`; each benchmark's module carries it out."""

import argparse
from pathlib import Path

from visavis.cli.command import add_command, add_preset
from visavis.models.execution import DTYPES, EXECUTIONS


def add_bench_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `bench` and what is below it."""
    parser = commands.add_parser("bench", help="Measure.", description="Measure.", allow_abbrev=False)
    benches = parser.add_subparsers(title="benchmarks", metavar="WHAT", required=True)
    pipeline = add_command(
        benches,
        "pipeline",
        "visavis.bench.pipeline",
        "Measure the whole pipeline through all services.",
        "Starts fresh services, runs clients in a process of their own, first as fast as possible, then paced like a\n"
        "live text-to-speech engine. Prints tables and writes a dated result.",
    )
    pipeline.add_argument("--sessions", type=int, default=1, metavar="N", help="live clients at once (%(default)s)")
    pipeline.add_argument("--seconds", type=float, default=30.0, metavar="S", help="speech per client (%(default)s)")
    pipeline.add_argument(
        "--find-sessions", type=int, metavar="MAX", help="also search how many sessions keep 99 %% of chunks in time"
    )
    pipeline.add_argument(
        "--playout-buffer", type=float, default=0.04, metavar="S", help="video that a player holds (%(default)s)"
    )
    _add_results(pipeline)
    pipeline.add_argument("--in-process", action="store_true", help="also time the same models in one process")
    add_preset(pipeline)
    transport = add_command(
        benches,
        "transport",
        "visavis.bench.transport",
        "Measure what gRPC costs at our message sizes, against raw TCP.",
        "Two echo servers, one client, one machine: round trips, throughput, processor time; and from them what all\n"
        "messages of one chunk cost.",
    )
    transport.add_argument("--seconds", type=float, default=2.0, metavar="S", help="per figure (%(default)s)")
    _add_results(transport)
    _add_generator(benches)
    _add_capacity(benches)


def _add_generator(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    generator = add_command(
        benches,
        "generator",
        "visavis.bench.generator",
        "Measure the transformer alone: sessions in one batch, against the plain way, diffusers, and the bound.",
        "Chunks of 1 to 16 sessions in one process, without services. How fast the device multiplies and copies is\n"
        "measured in the same run; from the configuration follows how long a chunk takes at least.",
    )
    generator.add_argument(
        "--preset",
        nargs="+",
        metavar="NAME",
        help="presets or model folders (default: mini, and base where there is a GPU)",
    )
    generator.add_argument("--sessions", type=_numbers, default=[1, 2, 4, 8, 16], metavar="N,N", help="1,2,4,8,16")
    generator.add_argument(
        "--compare", type=_numbers, default=[1], metavar="N,N", help="sessions at which others run too; 0: none (1)"
    )
    generator.add_argument(
        "--modes", nargs="+", choices=("parity", "fast"), default=["parity", "fast"], help="both by default"
    )
    generator.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="%(default)s")
    generator.add_argument("--dtype", choices=DTYPES, default="auto", help="%(default)s")
    generator.add_argument("--execution", choices=EXECUTIONS, default="eager", help="%(default)s; graphs need a GPU")
    generator.add_argument("--blocks", type=int, metavar="N", help="so many transformer blocks, where time lacks")
    generator.add_argument("--decode", action="store_true", help="also decode pictures, alone and beside")
    generator.add_argument("--seconds", type=float, default=3.0, metavar="S", help="per figure (%(default)s)")
    _add_results(generator)
    precision = add_command(
        benches,
        "precision",
        "visavis.bench.precision",
        "Measure what 8-bit or bfloat16 products of the transformer do to latents and pictures.",
        "Generates the bundled sentence twice on the CPU, in float32 and in the other precision, and compares\n"
        "chunk by chunk: with the same past, and with a past of its own that drifts.",
    )
    precision.add_argument("--dtype", choices=("int8", "fp8", "bfloat16"), default="int8", help="%(default)s")
    precision.add_argument("--chunks", type=int, default=30, metavar="N", help="of 0.96 s (%(default)s)")
    _add_results(precision)
    add_preset(precision)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if int(part)]


def _add_capacity(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    capacity = add_command(
        benches,
        "capacity",
        "visavis.bench.capacity",
        "Measure what a session costs Redis and the gateway, and plan for many GPUs.",
        "Counts the Redis commands of a real run of all services with the tiny preset, replays them against a Valkey\n"
        "of its own, times the lookup of up to 1000 instances, and puts live clients on one gateway with stages that\n"
        "answer at once. Then says what so many GPUs need, and what breaks first.",
    )
    capacity.add_argument("--gpus", type=int, default=1000, metavar="N", help="to plan for (%(default)s)")
    capacity.add_argument("--sessions-per-gpu", type=float, default=16, metavar="N", help="assumed (%(default)s)")
    capacity.add_argument("--session-seconds", type=float, default=300, metavar="S", help="assumed (%(default)s)")
    capacity.add_argument("--gigabits", type=float, default=25, metavar="N", help="of a node's network (%(default)s)")
    capacity.add_argument("--redis-gibibytes", type=float, default=64, metavar="N", help="of memory (%(default)s)")
    capacity.add_argument("--model", choices=("mini", "base"), default="base", help="size of messages (%(default)s)")
    capacity.add_argument("--codec", choices=("jpeg", "raw", "h264"), default="jpeg", help="planned for (%(default)s)")
    capacity.add_argument("--sessions", type=int, default=8, metavar="N", help="of the real run (%(default)s)")
    capacity.add_argument("--gateway-sessions", type=int, default=20, metavar="N", help="on one gateway (%(default)s)")
    capacity.add_argument("--seconds", type=float, default=30, metavar="S", help="per measurement (%(default)s)")
    _add_results(capacity)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="dated results (%(default)s)"
    )
    parser.add_argument("--no-result", action="store_true", help="write no dated result")
