"""`visavis demo`: the bundled portrait speaks the bundled sentence."""

import argparse
from importlib.resources import files
from pathlib import Path

from visavis.cli.errors import CommandError
from visavis.cli.render import RenderJob
from visavis.cli.rendering import prepare_output, render_with_own_system
from visavis.client import Consent
from visavis.client.audio_file import read_speech
from visavis.client.portrait_file import read_portrait


def run(options: argparse.Namespace) -> int:
    """Renders the demo."""
    output: Path = options.output
    prepare_output(output)
    job = RenderJob(
        portrait=read_portrait(_bundled("portrait.jpg")),
        consent=Consent.synthetic_person("visavis", "rendered for the demo; no real person"),
        display_name="demo",
        speech=read_speech(_bundled("speech.wav")),
        output=output,
        codec=options.codec,
        fast=options.fast,
        seed=options.seed,
    )
    render_with_own_system(options.preset, job)
    return 0


def _bundled(name: str) -> Path:
    path = Path(str(files("visavis.demo").joinpath(name)))
    if not path.is_file():
        raise CommandError(f"{name} of the demo is not part of this installation; run from a checkout")
    return path
