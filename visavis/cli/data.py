"""`visavis data`: synthetic people who speak, for training and for demos."""

import argparse
from collections.abc import Callable
from pathlib import Path

from visavis.cli.errors import CommandError

_MODULE = "visavis.cli.data"
_ENGINES = ("piper", "espeak", "flite")


def add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `data` and what is below it; `run` below carries it out."""
    parser = commands.add_parser("data", help="Make data.", description="Make data.", allow_abbrev=False)
    kinds = parser.add_subparsers(title="data", metavar="WHAT", required=True)
    _add_render(kinds)
    _add_portrait(kinds)
    _add_speech(kinds)
    _add_contact_sheet(kinds)
    _add_sample_video(kinds)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the commands. Raises CommandError for what a user can put right."""
    try:
        from visavis.training.data.dataset_folder import DatasetError
        from visavis.training.data.makehuman import AssetError
        from visavis.training.data.shards import ShardError
        from visavis.training.data.voice import VoiceError
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    act: Callable[[argparse.Namespace], None] = options.act
    try:
        act(options)
    except (AssetError, DatasetError, ShardError, VoiceError) as error:
        raise CommandError(str(error)) from error
    return 0


def _render(options: argparse.Namespace) -> None:
    from visavis.training.data.clip_plan import plan_clip
    from visavis.training.data.dataset import render_dataset
    from visavis.training.data.studio import ClipSettings, plan_record
    from visavis.training.data.voices import Speaker, require_engines, voices_of

    if options.clips < 1 or options.workers < 1:
        raise CommandError("--clips and --workers are at least 1")
    engines = tuple(engine for engine in _ENGINES if engine in options.engines)
    require_engines(engines)
    plans = [plan_clip(options.seed, index, voices_of(engines)) for index in range(options.clips)]
    for split in ("train", "test"):
        counts = plan_record([plan for plan in plans if plan.split == split])
        print(f"{split}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)
    settings = ClipSettings(seed=options.seed, engines=engines)
    for progress in render_dataset(options.assets, options.out, options.clips, settings, options.workers, Speaker):
        each = progress.frames_per_second / options.workers
        how = "already there" if progress.already_there else f"{each:.1f} frames/s and worker"
        print(f"{progress.shard.path.name}  {progress.shards_done} of {progress.shards} shards, {how}", flush=True)


def _portrait(options: argparse.Namespace) -> None:
    from visavis.training.data.portrait import render_portrait

    render_portrait(options.assets, options.output, options.seed)
    print(f"wrote {options.output}")


def _speech(options: argparse.Namespace) -> None:
    from visavis.training.data.voice import speak

    if not options.text.strip():
        raise CommandError("--text is empty")
    speak(options.text, options.output, options.voice)
    print(f"wrote {options.output}")


def _contact_sheet(options: argparse.Namespace) -> None:
    from visavis.training.data.contact_sheet import draw_contact_sheet

    draw_contact_sheet(options.folder, options.output, options.people, options.moments)
    print(f"wrote {options.output}")


def _sample_video(options: argparse.Namespace) -> None:
    from visavis.training.data.contact_sheet import find_clip, write_sample_video

    write_sample_video(find_clip(options.folder, options.clip), options.output)
    print(f"wrote {options.output}")


def _add(
    kinds: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    act: Callable[[argparse.Namespace], None],
    summary: str,
    details: str = "",
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=summary, description=f"{summary} {details}".strip(), allow_abbrev=False)
    parser.set_defaults(module=_MODULE, act=act)
    return parser


def _add_assets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR", help="MakeHuman system assets (CC0)")


def _add_render(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        kinds,
        "render",
        _render,
        "Render a data set of synthetic people who speak.",
        "Stopped, it goes on where it was; with more --clips it adds to the folder. See docs/data.md.",
    )
    _add_assets(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--clips", type=int, required=True, metavar="N", help="of 121 frames; one in twelve is for tests"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="%(default)s")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes of one core each (%(default)s)")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=_ENGINES,
        default=_ENGINES,
        metavar="NAME",
        help=f"voices to use: {', '.join(_ENGINES)} (all)",
    )


def _add_portrait(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(kinds, "portrait", _portrait, "Render a portrait of a person who does not exist.")
    _add_assets(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("portrait.jpg"), metavar="FILE", help="%(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another person each (%(default)s)")


def _add_speech(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(kinds, "speech", _speech, "Speak a sentence with piper.", "Needs the extra 'voices'.")
    parser.add_argument("--text", required=True, metavar="T")
    parser.add_argument("--voice", type=Path, metavar="FILE", help="piper .onnx voice (default: the installed one)")
    parser.add_argument("-o", "--output", type=Path, default=Path("speech.wav"), metavar="FILE", help="%(default)s")


def _add_contact_sheet(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        kinds,
        "contact-sheet",
        _contact_sheet,
        "Draw people and moments of a data set.",
        "A row a person: the portrait, then mouths from shut to wide open.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("contact-sheet.png"), metavar="FILE", help="%(default)s"
    )
    parser.add_argument("--people", type=int, default=12, metavar="N", help="%(default)s")
    parser.add_argument("--moments", type=int, default=6, metavar="N", help="%(default)s")


def _add_sample_video(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(kinds, "sample-video", _sample_video, "Write one clip of a data set as an MP4 with its sound.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--clip", type=int, default=0, metavar="N", help="%(default)s")
    parser.add_argument("-o", "--output", type=Path, default=Path("sample.mp4"), metavar="FILE", help="%(default)s")
