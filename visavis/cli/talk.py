"""`visavis talk`: a portrait and a recording of one's own."""

import argparse
from pathlib import Path

from visavis.cli.consent import stated_consent
from visavis.cli.errors import CommandError
from visavis.cli.output_file import prepare_output
from visavis.cli.render import RenderJob
from visavis.cli.rendering import render_on_server, render_with_own_system
from visavis.client import MediaError, Tls
from visavis.client.audio_file import read_speech
from visavis.client.portrait_file import read_portrait


def run(options: argparse.Namespace) -> int:
    """Renders one file."""
    output: Path = options.output
    prepare_output(output)
    try:
        job = RenderJob(
            portrait=read_portrait(options.portrait),
            consent=stated_consent(options, "visavis talk", "on the server as a record"),
            display_name=options.portrait.stem,
            speech=read_speech(options.speech),
            output=output,
            codec=options.codec,
            fast=options.fast,
            seed=options.seed,
            sampling=options.sampling,
        )
    except MediaError as error:
        raise CommandError(str(error)) from error
    if options.server:
        render_on_server(options.server, _tls(options), job)
    else:
        render_with_own_system(options.preset, job)
    return 0


def _tls(options: argparse.Namespace) -> Tls | None:
    if not (options.tls_authority or options.tls_certificate or options.tls_key):
        return None
    return Tls(options.tls_authority, options.tls_certificate, options.tls_key)
