"""`visavis data portrait`: renders a portrait of a person who does not exist."""

import argparse

from visavis.cli.errors import CommandError
from visavis.training.data.makehuman import AssetError


def run(options: argparse.Namespace) -> int:
    """Renders one portrait."""
    try:
        from visavis.training.data.portrait import render_portrait
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    try:
        render_portrait(options.assets, options.output, options.seed)
    except AssetError as error:
        raise CommandError(str(error)) from error
    print(f"wrote {options.output}")
    return 0
