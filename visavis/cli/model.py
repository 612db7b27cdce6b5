"""`visavis model`: the files of a model folder, hashed, verified and fetched."""

import argparse
from collections.abc import Callable
from pathlib import Path

from visavis.cli.errors import CommandError

_MODULE = "visavis.cli.model"


def add_model_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `model` and what is below it; `run` below carries it out."""
    parser = commands.add_parser(
        "model", help="Hash, verify or fetch model files.", description="Files of a model folder.", allow_abbrev=False
    )
    actions = parser.add_subparsers(title="actions", metavar="WHAT", required=True)
    manifest = _action(actions, "manifest", _manifest, "List the files with their SHA-256 and print the list's own.")
    manifest.add_argument("folder", type=Path, metavar="DIR")
    verify = _action(actions, "verify", _verify, "Read every file and compare with the list.")
    verify.add_argument("folder", type=Path, metavar="DIR")
    _add_hash(verify)
    fetch = _action(actions, "fetch", _fetch, "Bring a model here, verified, or nothing.")
    fetch.add_argument("source", metavar="SOURCE", help="s3://, gs://, az://, https:// or a folder")
    fetch.add_argument("target", type=Path, metavar="DIR", help="appears when everything is verified")
    _add_hash(fetch)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the actions. Raises CommandError for what a user can put right."""
    from visavis.model_files.errors import ModelFilesError

    act: Callable[[argparse.Namespace], None] = options.act
    try:
        act(options)
    except ModelFilesError as error:
        raise CommandError(str(error)) from error
    return 0


def _manifest(options: argparse.Namespace) -> None:
    from visavis.model_files.manifest import write_manifest

    print(write_manifest(options.folder))


def _verify(options: argparse.Namespace) -> None:
    from visavis.model_files.manifest import verify_folder

    verify_folder(options.folder, options.manifest_sha256)
    print(f"{options.folder} is verified")


def _fetch(options: argparse.Namespace) -> None:
    try:
        from visavis.model_files.fetching import fetch_model
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[model-files]'") from error
    fetch_model(options.source, options.target, options.manifest_sha256, lambda line: print(line, flush=True))


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    act: Callable[[argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(module=_MODULE, act=act)
    return parser


def _add_hash(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest-sha256", required=True, metavar="HEX", help="what `visavis model manifest` printed for this model"
    )
