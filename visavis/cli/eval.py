"""`visavis eval`: measures of trained weights on clips."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.cli.errors import CommandError
from visavis.cli.eval_compare import add_compare_parts
from visavis.cli.eval_talk import add_talk_parts

if TYPE_CHECKING:
    from visavis.evaluation.report import Measure
    from visavis.training.data.footage.detectors import Detectors

_MODULE = "visavis.cli.eval"
_SHEET_PEOPLE = 8
# Clips that the probe is fitted on: 19 minutes of speech.
_PROBE_CLIPS = 240
_LIVE_CLIPS = 3
_JUDGED_CLIPS = 12


def add_eval_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `eval` and what is below it; `run` below carries it out."""
    parser = commands.add_parser(
        "eval", help="Measure a trained part.", description="Measure a trained part.", allow_abbrev=False
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    vae = _add(parts, "vae", _vae, "Measure a video VAE: sharpness, seams, landmarks, robustness.")
    vae.add_argument("--sheet", type=Path, metavar="FILE", help="draw originals and reconstructions of eight people")
    vae.add_argument(
        "--face-clips", type=int, default=12, metavar="N", help="clips whose landmarks are found (%(default)s)"
    )
    vae.add_argument(
        "--detectors-python",
        type=Path,
        metavar="FILE",
        help="Python of the detectors (default: that of `make detectors`)",
    )
    latents = _add(
        parts, "latents", _latents, "Train a small diffusion transformer on a VAE's latents, and measure it."
    )
    latents.add_argument("--run", type=Path, required=True, metavar="DIR", help="its training; goes on when stopped")
    latents.add_argument("--steps", type=int, default=2_000, metavar="N", help="of the training (%(default)s)")
    latents.add_argument("--train-clips", type=int, default=96, metavar="N", help="it learns from (%(default)s)")
    speech_ae = _add(parts, "speech-ae", _speech_ae, "Measure a SpeechAE: explained variance, and a probe of the jaw.")
    speech_ae.add_argument("--cache", type=Path, metavar="DIR", help="Whisper's states (default: CLIPS.cache)")
    add_talk_parts(partial(_add, parts))
    add_compare_parts(parts)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the commands. Raises CommandError for what a user can put right."""
    from visavis.openmp import wait_asleep

    wait_asleep()
    try:
        import torch

        from visavis.evaluation.errors import EvaluationError
        from visavis.evaluation.report import table, write_report
        from visavis.training.data.footage.detectors import DetectorError
        from visavis.training.data.shards import ShardError
        from visavis.training.errors import TrainingError
        from visavis.training.speech.states_cache import StatesCacheError
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    act: Callable[[argparse.Namespace], tuple[list[Measure], dict[str, Any], dict[str, Any]]] = options.act
    try:
        measures, data, model = act(options)
        for line in table(measures):
            print(line)
        write_report(options.json, options.part, measures, data, model)
    except (DetectorError, EvaluationError, ShardError, StatesCacheError, TrainingError) as error:
        raise CommandError(str(error)) from error
    print(f"wrote {options.json}")
    return 0


def _vae(options: argparse.Namespace) -> "tuple[list[Measure], dict[str, Any], dict[str, Any]]":
    from itertools import chain, islice

    from visavis.evaluation.clip_folder import about, shards_of
    from visavis.evaluation.sheet import Sheet
    from visavis.evaluation.tested_part import tested_vae
    from visavis.evaluation.video_vae import VideoVAEMeasures
    from visavis.training.data.clips import read_shard

    part = tested_vae(options.model)
    clips = chain.from_iterable(map(read_shard, shards_of(options.clips, options.split)))
    sheet, count = Sheet(_SHEET_PEOPLE), 0
    with ExitStack() as stack:
        detectors, why_none = _detectors(options, stack)
        collected = VideoVAEMeasures(part.module, detectors, options.face_clips, why_none)
        for count, clip in enumerate(islice(clips, options.limit), start=1):
            sheet.add(collected.add(clip))
            if sys.stdout.isatty():
                print(f"{count} clips", end="\r", flush=True)
    measures = collected.results()
    if options.sheet:
        sheet.write(options.sheet)
    return measures, about(options.clips, options.split, count), {"name": part.name, "fingerprint": part.fingerprint}


def _detectors(options: argparse.Namespace, stack: ExitStack) -> "tuple[Detectors | None, str]":
    from visavis.training.data.footage.detectors import DetectorError, Detectors

    try:
        return stack.enter_context(Detectors(options.detectors_python)), ""
    except DetectorError as error:
        return None, str(error)


def _latents(options: argparse.Namespace) -> "tuple[list[Measure], dict[str, Any], dict[str, Any]]":
    from dataclasses import replace
    from itertools import chain, islice

    from visavis.evaluation.clip_folder import about, shards_of
    from visavis.evaluation.latent_probe import SMALL, LatentProbe, latent_clip, probe_plan
    from visavis.evaluation.tested_part import tested_vae
    from visavis.training.data.clips import read_shard
    from visavis.training.loop import Training
    from visavis.training.model_folder import read_run
    from visavis.training.progress_line import ProgressLine
    from visavis.training.task import Limits

    part = tested_vae(options.model)
    known = chain.from_iterable(map(read_shard, shards_of(options.clips, "train")))
    judged = chain.from_iterable(map(read_shard, shards_of(options.clips, options.split)))
    held_out = list(islice(judged, options.limit or _JUDGED_CLIPS))
    size = replace(SMALL, steps=options.steps)
    training = [latent_clip(clip, part.module) for clip in islice(known, options.train_clips)]
    probe = LatentProbe(training, held_out, part.module, size)
    with ProgressLine() as line:
        plan = probe_plan(size, part.fingerprint, len(training))
        Training(probe, plan, options.run, "auto", line.show).run(Limits(None, None))
    probe.model.load_state_dict(read_run(options.run).averaged_weights)
    model = {"name": part.name, "fingerprint": part.fingerprint, "train_clips": len(training), "steps": size.steps}
    return probe.results(probe.model), about(options.clips, options.split, len(held_out)), model


def _speech_ae(options: argparse.Namespace) -> "tuple[list[Measure], dict[str, Any], dict[str, Any]]":
    from itertools import islice

    import torch

    from visavis.evaluation.clip_folder import about, shards_of
    from visavis.evaluation.speech_ae import (
        explained_variance,
        jaw_probe,
        live_measure,
        live_minus_whole,
        probe_samples,
    )
    from visavis.evaluation.tested_part import tested_speech_ae, whisper_of
    from visavis.training.speech.recordings import ShardSpeech
    from visavis.training.speech.states_cache import CachedStates, cache_states, whisper_fingerprint
    from visavis.training.speech.training import speech_cache

    part, whisper = tested_speech_ae(options.model), whisper_of(options.model)
    folder = speech_cache(options.clips, options.cache)
    held_out = [ShardSpeech(path) for path in shards_of(options.clips, options.split)]
    known = [ShardSpeech(path) for path in shards_of(options.clips, "train")]
    with (
        CachedStates([cache_states(batch, folder, whisper) for batch in held_out]) as judged,
        CachedStates([cache_states(batch, folder, whisper) for batch in known]) as fitted,
    ):
        clips = [judged[index] for index in range(min(len(judged), options.limit or len(judged)))]
        measures = explained_variance(clips, part.module, whisper.hidden_states)
        samples = probe_samples(fitted.spread(_PROBE_CLIPS), part.module)
        measures += jaw_probe(samples, probe_samples(clips, part.module))
    recordings = islice(held_out[0].recordings(), _LIVE_CLIPS)
    heard = [live_minus_whole(torch.from_numpy(item.samples_S), whisper, part.module) for item in recordings]
    measures.append(live_measure(heard))
    model = {"name": part.name, "fingerprint": part.fingerprint, "whisper": whisper_fingerprint(whisper)}
    return measures, about(options.clips, options.split, len(clips)), model


def _add(
    parts: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    act: Callable[[argparse.Namespace], object],
    summary: str,
) -> argparse.ArgumentParser:
    parser = parts.add_parser(name, help=summary, description=f"{summary} See docs/evaluation.md.", allow_abbrev=False)
    parser.set_defaults(module=_MODULE, act=act, part=name)
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR", help="folder of `visavis data render`")
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="preset, model folder, or folder of the part alone"
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="write every measure here")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="of the folder (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N clips (default: all)")
    parser.add_argument("--threads", type=int, metavar="T", help="of torch on the CPU (default: as torch does)")
    return parser
