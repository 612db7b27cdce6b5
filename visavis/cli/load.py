"""The front of `visavis load`: its arguments, what is wrong with them, and what is not installed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from visavis.cli.command import add_command, add_tls_files
from visavis.cli.errors import CommandError


def add_load_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `load`."""
    parser = add_command(
        commands,
        "load",
        "visavis.cli.load",
        "Put live callers on a running gateway and measure what they see.",
        "Callers speak in real time, from processes of their own. Latencies count from the plan, so a slow server\n"
        "cannot look better by slowing its clients down. Ctrl-C ends the run with the report of what was measured.\n"
        "Exit code 1: a promise was broken (see --slo-*).",
    )
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the gateway")
    parser.add_argument("--sessions", type=int, default=1, metavar="N", help="live callers at once (%(default)s)")
    parser.add_argument(
        "--ramp",
        default="5",
        metavar="SECONDS|SCHEDULE",
        help="time from none to all of them (%(default)s), or points SECONDS:SESSIONS, such as 0:0,60:10,300:10,320:0",
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=30.0,
        metavar="S",
        help="after the ramp; a schedule says it itself (%(default)s)",
    )
    parser.add_argument(
        "--find-capacity", action="store_true", help="search how many callers keep the promises, up to --sessions"
    )
    parser.add_argument("--avatar", metavar="ID", help="of a registered avatar (default: the bundled portrait)")
    parser.add_argument("--processes", type=int, metavar="P", help="of the clients (default: half of the cores)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same plan (%(default)s)")
    speech = parser.add_argument_group("what callers do")
    speech.add_argument(
        "--speech", type=Path, nargs="+", default=[], metavar="FILE", help="sound files or folders of them"
    )
    speech.add_argument("--pause", type=float, default=1.0, metavar="S", help="between utterances (%(default)s)")
    speech.add_argument(
        "--interrupts-per-minute", type=float, default=0.0, metavar="R", help="of speech, at random (%(default)s)"
    )
    speech.add_argument(
        "--playout-buffer", type=float, default=0.04, metavar="S", help="video that a player holds (%(default)s)"
    )
    speech.add_argument("--codec", choices=("jpeg", "raw", "h264"), default="jpeg", help="(%(default)s)")
    speech.add_argument(
        "--idle", choices=("live", "pause"), default="live", help="what the face does in pauses (%(default)s)"
    )
    promises = parser.add_argument_group("promises")
    promises.add_argument("--slo-in-time", type=float, default=0.99, metavar="SHARE", help="of chunks (%(default)s)")
    promises.add_argument("--slo-chunk-p95", type=float, metavar="S", help="chunk latency, 95th percentile")
    promises.add_argument(
        "--slo-first-frame-p95", type=float, metavar="S", help="time to the first frame of an utterance"
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    results.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots here")
    results.add_argument(
        "--metrics", nargs="+", default=[], metavar="URL", help="Prometheus endpoints of the server, to show beside"
    )
    encryption = parser.add_argument_group("encryption")
    encryption.add_argument(
        "--tls", action="store_true", help="TLS; without files the system's authorities are trusted"
    )
    add_tls_files(encryption)


def run(options: argparse.Namespace) -> int:
    """Runs `visavis.bench.load_command`. CommandError for arguments that make no sense."""
    _check(options)
    try:
        from visavis.bench.load_command import run_load_command
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[load]'") from error
    return run_load_command(options)


def _check(options: argparse.Namespace) -> None:
    host, _, port = options.target.rpartition(":")
    if not options.target.startswith("unix:") and not (host and port.isdigit()):
        raise CommandError(f"--target is HOST:PORT of a gateway, not {options.target!r}")
    for name, value, least in (
        ("--sessions", options.sessions, 1),
        ("--processes", options.processes or 1, 1),
        ("--duration", options.duration, 1.0),
        ("--pause", options.pause, 0.0),
        ("--playout-buffer", options.playout_buffer, 0.0),
        ("--interrupts-per-minute", options.interrupts_per_minute, 0.0),
    ):
        if not least <= value < 1e9:
            raise CommandError(f"{name} is at least {least:g}, not {value:g}")
    if not 0 < options.slo_in_time <= 1:
        raise CommandError(f"--slo-in-time is a share between 0 and 1, not {options.slo_in_time:g}")
    if options.find_capacity and ":" in options.ramp:
        raise CommandError("--find-capacity makes its own steps; --ramp then says seconds, not a schedule")
    for path in (options.json, options.html):
        if path is not None and (path.is_dir() or not os.access(_existing(path.absolute().parent), os.W_OK)):
            raise CommandError(f"{path} cannot be written")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
