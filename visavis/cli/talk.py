"""`visavis talk`: a portrait and a recording of one's own."""

import argparse
import getpass
from pathlib import Path

from visavis.cli.errors import CommandError
from visavis.cli.render import RenderJob
from visavis.cli.rendering import prepare_output, render_on_server, render_with_own_system
from visavis.client import Consent, MediaError, Tls
from visavis.client.audio_file import read_speech
from visavis.client.portrait_file import read_portrait


def run(options: argparse.Namespace) -> int:
    """Renders one file."""
    output: Path = options.output
    prepare_output(output)
    try:
        job = RenderJob(
            portrait=read_portrait(options.portrait),
            consent=_consent(options),
            display_name=options.portrait.stem,
            speech=read_speech(options.speech),
            output=output,
            codec=options.codec,
            fast=options.fast,
            seed=options.seed,
        )
    except MediaError as error:
        raise CommandError(str(error)) from error
    if options.server:
        render_on_server(options.server, _tls(options), job)
    else:
        render_with_own_system(options.preset, job)
    return 0


def _consent(options: argparse.Namespace) -> Consent:
    name: str = options.consent_by or getpass.getuser()
    if options.synthetic_person:
        return Consent.synthetic_person(name, "stated with visavis talk --synthetic-person")
    print(f"By going on, {name} states that the person in {options.portrait} agreed; kept on the server as a record.")
    return Consent.subject_agreed(name, "stated by running visavis talk")


def _tls(options: argparse.Namespace) -> Tls | None:
    if not (options.tls_authority or options.tls_certificate or options.tls_key):
        return None
    return Tls(options.tls_authority, options.tls_certificate, options.tls_key)
