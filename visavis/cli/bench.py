"""The arguments of `visavis bench`; each benchmark's module carries it out."""

import argparse
from pathlib import Path

from visavis.cli.command import add_command, add_preset


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


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="dated results (%(default)s)"
    )
    parser.add_argument("--no-result", action="store_true", help="write no dated result")
