"""What the parsers of several commands have in common."""

import argparse
from pathlib import Path


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, module: str, summary: str, details: str
) -> argparse.ArgumentParser:
    """A command that `module.run(options)` carries out."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n\n{details}" if details else summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(module=module)
    return parser


def add_preset(parser: argparse.ArgumentParser) -> None:
    """`--preset`."""
    parser.add_argument("--preset", default="mini", metavar="NAME", help="preset or model folder (%(default)s)")


def add_tls_files(parser: "argparse._ActionsContainer") -> None:
    """The files of an encrypted connection."""
    parser.add_argument("--tls-authority", type=Path, metavar="FILE", help="PEM: trust this authority; turns TLS on")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM: show this certificate (mTLS)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: the key of --tls-certificate")
