"""Where the programs of the services are. Services are found by name: no library module imports them."""

import importlib.util
import sys
from pathlib import Path
from typing import Final

import visavis
from visavis.cli.errors import CommandError

# Name on the command line -> module that runs as a program.
SERVICE_MODULES: Final = {
    "audio-encoder": "services.audio_encoder",
    "generator": "services.generator",
    "decoder": "services.decoder",
    "gateway": "gateway",
}
REPOSITORY: Final = Path(visavis.__file__).resolve().parents[1]


def service_command(name: str) -> list[str]:
    """The command that runs a service. CommandError when this installation does not have it."""
    module = SERVICE_MODULES[name]
    if not _is_importable(module):
        raise CommandError(
            f"the {name} is not part of this installation: services run from a checkout of the repository or from "
            "an image; a wheel has the client only"
        )
    return [sys.executable, "-m", module]


def service_python_path(inherited: str) -> str:
    """PYTHONPATH with which `service_command` works from every folder."""
    if not _in_repository("services"):
        return inherited
    return f"{REPOSITORY}:{inherited}" if inherited else str(REPOSITORY)


def _is_importable(module: str) -> bool:
    top = module.partition(".")[0]
    return _in_repository(top) or importlib.util.find_spec(top) is not None


def _in_repository(package: str) -> bool:
    return (REPOSITORY / package / "__init__.py").is_file()
