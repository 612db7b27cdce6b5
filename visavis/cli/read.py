"""`visavis read`: a portrait and a recording of one's own, rendered by READ in this process."""

import argparse
import io
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from visavis.cli.consent import consent_in_words, stated_consent
from visavis.cli.errors import CommandError
from visavis.cli.output_file import prepare_output, unfinished_file
from visavis.cli.progress import talking_bar, warn_of_random_weights
from visavis.client import FRAME_RATE, Consent, MediaError, Speech
from visavis.client.audio_file import read_speech
from visavis.client.mp4_writer import Mp4Writer
from visavis.client.portrait_file import read_portrait
from visavis.contract import SAMPLE_RATE_HZ
from visavis.openmp import wait_asleep

if TYPE_CHECKING:
    from visavis.models.generation import SamplingSettings
    from visavis.models.read_pipeline import ReadPipeline

_KEPT: Final = "in the file's metadata"
_SEEDS: Final = 2**64


def run(options: argparse.Namespace) -> int:
    """Renders one file."""
    prepare_output(options.output)
    _check(options)
    try:
        portrait = read_portrait(options.portrait)
        speech = read_speech(options.speech)
    except MediaError as error:
        raise CommandError(str(error)) from error
    consent = stated_consent(options, "visavis read", _KEPT)
    pipeline = _load(options.preset)
    console = Console()
    if pipeline.config["random_weights"]:
        warn_of_random_weights(console, pipeline.config["model_name"])
    begin = time.perf_counter()
    try:
        seconds = _render(pipeline, portrait, speech, consent, options, console)
    except OSError as error:
        raise CommandError(f"{options.output} cannot be written ({error.strerror or error})") from error
    factor = (time.perf_counter() - begin) / seconds
    print(f"real-time factor     {factor:.2f}  (wall time per second of video)")
    print(f"wrote {options.output}  ({seconds:.2f} s, marked as synthetic)")
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.steps is not None and options.steps < 1:
        raise CommandError("--steps is at least 1")
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise CommandError("--guidance is a finite number")
    if not 0 <= options.seed < _SEEDS:
        raise CommandError("--seed is at least 0 and has at most 64 bits")


def _load(model: str) -> "ReadPipeline":
    wait_asleep()
    try:
        from visavis.models.read_pipeline import ReadPipeline

        return ReadPipeline.from_preset(model)
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[read]'") from error
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error


def _render(
    pipeline: "ReadPipeline",
    portrait: bytes,
    speech: Speech,
    consent: Consent,
    options: argparse.Namespace,
    console: Console,
) -> float:
    """Writes the file chunk by chunk; returns the seconds of video in it."""
    samples_per_frame = speech.audio_format.samples_per_frame
    frames = -(-len(speech.samples_SC) // samples_per_frame)
    sound_SC = np.pad(speech.samples_SC, ((0, frames * samples_per_frame - len(speech.samples_SC)), (0, 0)))
    size = pipeline.config["picture_size"]
    with (
        Image.open(io.BytesIO(portrait)) as picture,
        talking_bar(console, speech.seconds) as show,
        unfinished_file(options.output) as path,
        Mp4Writer(path, size, size, speech.audio_format, consent=consent_in_words(consent)) as writer,
    ):
        heard_S = at_model_rate(speech, frames)
        pieces = (heard_S[start : start + SAMPLE_RATE_HZ] for start in range(0, len(heard_S), SAMPLE_RATE_HZ))
        first = 0
        for chunk in pipeline.stream(picture.convert("RGB"), pieces, options.seed, _sampling(pipeline, options)):
            pictures_FHW3 = chunk.pictures_FHW3[: frames - first]
            last = first + len(pictures_FHW3)
            writer.write(pictures_FHW3, sound_SC[first * samples_per_frame : last * samples_per_frame].tobytes())
            show(writer.seconds)
            first = last
    return frames / FRAME_RATE


def _sampling(pipeline: "ReadPipeline", options: argparse.Namespace) -> "SamplingSettings":
    own = pipeline.sampling
    return replace(
        own,
        steps=own.steps if options.steps is None else options.steps,
        guidance_scale=own.guidance_scale if options.guidance is None else options.guidance,
    )


def at_model_rate(speech: Speech, frames: int) -> npt.NDArray[np.float32]:
    """The speech as the model hears it: 16 kHz, mono, float32, exactly `frames` frames long."""
    mono_S = speech.samples_SC.mean(axis=1, dtype=np.float32) / np.float32(32768)
    if speech.sample_rate_hz != SAMPLE_RATE_HZ:
        import soxr

        mono_S = soxr.resample(mono_S, speech.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ").astype(np.float32)
    samples = frames * SAMPLE_RATE_HZ // FRAME_RATE
    heard_S: npt.NDArray[np.float32] = np.pad(mono_S[:samples], (0, max(0, samples - len(mono_S))))
    return heard_S
