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


def add_sampling(parser: argparse.ArgumentParser, default: str) -> None:
    """`--sampling`; `default` says in words what happens without."""
    parser.add_argument(
        "--sampling", choices=("standard", "fast"), help=f"all steps, guided, or few, distilled (default: {default})"
    )


def add_portrait_and_speech(parser: argparse.ArgumentParser) -> None:
    """The two files to render from and the one to write."""
    parser.add_argument("--portrait", type=Path, required=True, metavar="FILE", help="JPEG or PNG, cropped to a square")
    parser.add_argument(
        "--speech", type=Path, required=True, metavar="FILE", help="WAV, MP3, FLAC, OGG; any rate, mono or stereo"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="MP4 file to write")


def add_consent(parser: argparse.ArgumentParser, kept: str) -> None:
    """Who answers for the consent of the person in the portrait; `kept` says where that is kept."""
    consent = parser.add_argument_group("consent", f"Kept {kept}.")
    consent.add_argument(
        "--consent-by", metavar="NAME", help="who answers for the consent of the person (default: your user name)"
    )
    consent.add_argument("--synthetic-person", action="store_true", help="the portrait shows no real person")


def add_tls_files(parser: "argparse._ActionsContainer") -> None:
    """The files of an encrypted connection."""
    parser.add_argument("--tls-authority", type=Path, metavar="FILE", help="PEM: trust this authority; turns TLS on")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM: show this certificate (mTLS)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: the key of --tls-certificate")
