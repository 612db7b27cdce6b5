"""The front of the `visavis` command: reads arguments and hands over to one module per command.

Starts fast: a command's module is imported only when it runs.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from visavis.cli.bench import add_bench_commands
from visavis.cli.command import (
    add_command,
    add_consent,
    add_portrait_and_speech,
    add_preset,
    add_sampling,
    add_tls_files,
)
from visavis.cli.data import add_data_commands
from visavis.cli.errors import CommandError
from visavis.cli.eval import add_eval_commands
from visavis.cli.load import add_load_command
from visavis.cli.model import add_model_commands
from visavis.cli.train import add_train_commands

_INTERRUPTED: Final = 130
_WRITE_FAILED: Final = 1

DESCRIPTION: Final = """\
Streams a talking face: speech and a portrait in, a talking video out, while the speech is still arriving.
Try `visavis demo` first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    # Whatever ends `visavis` politely ends it like Ctrl-C: everything that it started is stopped. A script's background
    # job starts with Ctrl-C ignored, and would then ignore them all.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _as_interrupt)
    signal.signal(signal.SIGHUP, _as_interrupt)
    try:
        module = importlib.import_module(options.module)
        code: int = module.run(options)
    except KeyboardInterrupt:
        print("visavis: stopped", file=sys.stderr)
        return _INTERRUPTED
    except CommandError as error:
        print(f"visavis: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _WRITE_FAILED
    return code


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="visavis", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_talk(commands)
    _add_read(commands)
    _add_up(commands)
    _add_serve(commands)
    add_load_command(commands)
    add_bench_commands(commands)
    _add_import_ltx(commands)
    add_model_commands(commands)
    add_data_commands(commands)
    add_train_commands(commands)
    add_eval_commands(commands)
    _add_info(commands)
    _add_health(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "demo",
        "visavis.cli.demo",
        "Let the bundled portrait speak the bundled sentence.",
        "Starts Valkey and the four services, streams the sentence as a live text-to-speech engine would, writes an\n"
        "MP4 file, shows where the time went, and stops everything.",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out/demo.mp4"), metavar="FILE", help="%(default)s")
    add_preset(parser)
    _add_rendering(parser)


def _add_talk(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "talk",
        "visavis.cli.talk",
        "Let a portrait of yours speak a recording of yours.",
        "Without --server it starts everything that it needs on this machine and stops it again.",
    )
    add_portrait_and_speech(parser)
    parser.add_argument("--server", metavar="ADDRESS", help="host:port of a running gateway")
    add_tls_files(parser)
    add_consent(parser, "with the portrait on the server")
    add_preset(parser)
    _add_rendering(parser)


def _add_read(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "read",
        "visavis.cli.read",
        "Let a portrait speak a recording with READ, the non-streaming sibling.",
        "Hears almost 3 s ahead of what it draws, so it is not for live sessions. It needs no server and loads the\n"
        "preset's teacher.",
    )
    add_portrait_and_speech(parser)
    add_consent(parser, "in the file's metadata")
    add_preset(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same speech: same pictures")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the preset's)")
    parser.add_argument(
        "--guidance", type=float, metavar="A", help="guidance scale, 1 for none (default: the preset's)"
    )


def _add_up(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "up",
        "visavis.cli.up",
        "Run all four services and Valkey on this machine.",
        "Prints the addresses and runs until Ctrl-C, or until one of them dies; then it stops all of them.\n"
        "Settings come from the environment (VISAVIS_*, see README.md).",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:50050",
        metavar="ADDRESS",
        help="of the gateway (%(default)s); port 0 takes a free one",
    )
    parser.add_argument("--redis-url", metavar="URL", help="use this Redis instead of an embedded Valkey")
    parser.add_argument("--run-folder", type=Path, metavar="DIR", help="keep outputs and logs here")
    add_preset(parser)
    add_sampling(parser, "VISAVIS_SAMPLING, else standard")


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "serve",
        "visavis.cli.serve",
        "Run one service in the foreground.",
        "Settings come from the environment (VISAVIS_*, see README.md); the options below override them.",
    )
    parser.add_argument("service", choices=("audio-encoder", "generator", "decoder", "gateway"))
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port; port 0 takes a free one")
    parser.add_argument("--redis-url", metavar="URL")
    parser.add_argument("--preset", metavar="NAME", help="preset or model folder")


def _add_import_ltx(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "import-ltx",
        "visavis.cli.import_ltx",
        "Make a `base` model folder from LTX-Video's weights.",
        "Reads the diffusers folders of LTX-Video 0.9.x; what REST adds stays random until it is trained.",
    )
    parser.add_argument("source", type=Path, metavar="LTX_FOLDER", help="has transformer/ and vae/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument(
        "--preset",
        default="base",
        metavar="NAME",
        help="picture size, sampling and speech parts come from it (%(default)s)",
    )


def _add_info(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, summary in (
        ("info", "Show this installation, or a running server with --server."),
        ("version", "Show the version."),
    ):
        parser = add_command(commands, name, "visavis.cli.info", summary, "")
        parser.set_defaults(only_version=name == "version")
        if name == "info":
            parser.add_argument("--server", metavar="ADDRESS", help="host:port of a gateway")


def _add_health(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_command(
        commands,
        "health",
        "visavis.cli.health",
        "Ask a service for its health: exit code 0 when it serves.",
        "Of the health port (VISAVIS_HEALTH_ADDRESS), or of the service's own port where that has no TLS.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="host:port")
    parser.add_argument("--service", default="", metavar="NAME", help="startup, liveness; by default: can it serve?")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="to wait for an answer (%(default)s)")


def _add_rendering(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="send the speech at once instead of in real time")
    add_sampling(parser, "as the server likes")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same speech: same pictures")
    parser.add_argument(
        "--codec",
        choices=("jpeg", "raw", "h264"),
        default="jpeg",
        help="of the stream, not of the file (%(default)s)",
    )


def _version() -> str:
    import visavis

    return f"visavis {visavis.__version__}"


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
