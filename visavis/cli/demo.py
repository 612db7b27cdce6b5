"""`visavis demo`: the bundled portrait speaks the bundled sentence."""

import argparse

from visavis.bench.bundled import CONSENT, bundled_portrait, bundled_speech
from visavis.cli.errors import CommandError
from visavis.cli.output_file import prepare_output
from visavis.cli.render import RenderJob
from visavis.cli.rendering import render_with_own_system
from visavis.client import MediaError


def run(options: argparse.Namespace) -> int:
    """Renders the demo."""
    prepare_output(options.output)
    try:
        job = RenderJob(
            portrait=bundled_portrait(),
            consent=CONSENT,
            display_name="demo",
            speech=bundled_speech(),
            output=options.output,
            codec=options.codec,
            fast=options.fast,
            seed=options.seed,
            sampling=options.sampling,
        )
    except MediaError as error:
        raise CommandError(str(error)) from error
    render_with_own_system(options.preset, job)
    return 0
