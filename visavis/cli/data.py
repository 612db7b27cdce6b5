"""`visavis data`: people who speak, rendered or from footage, for training and for demos."""

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
    _add_prepare(kinds)
    _add_portrait(kinds)
    _add_speech(kinds)
    _add_contact_sheet(kinds)
    _add_sample_video(kinds)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the commands. Raises CommandError for what a user can put right."""
    try:
        from visavis.training.data.dataset_folder import DatasetError
        from visavis.training.data.footage.detectors import DetectorError
        from visavis.training.data.makehuman import AssetError
        from visavis.training.data.shards import ShardError
        from visavis.training.data.voice import VoiceError
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    act: Callable[[argparse.Namespace], None] = options.act
    try:
        act(options)
    except (AssetError, DatasetError, DetectorError, ShardError, VoiceError) as error:
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


def _prepare(options: argparse.Namespace) -> None:
    from visavis.training.data.footage.detectors import Detectors
    from visavis.training.data.footage.examine import Limits
    from visavis.training.data.footage.prepare import FootageSettings, prepare_footage
    from visavis.training.data.footage.report import table

    if options.size % 32 or options.size < 64:
        raise CommandError("--size is a multiple of 32, at least 64")
    if not 0 <= options.test_share <= 1:
        raise CommandError("--test-share is between 0 and 1")
    settings = FootageSettings(Limits(size=options.size), options.people, options.test_share)
    reports = []
    with Detectors(options.detectors) as finder:
        for done in prepare_footage(options.videos, options.out, settings, finder):
            reports.append(done.report)
            how = "already there, " if done.already_there else ""
            dropped = len(done.report.stretches) - done.report.kept
            what = f"{how}{done.report.kept} clips, {dropped} dropped"
            print(f"{done.videos_done} of {done.videos}  {done.report.video}: {done.report.fault or what}", flush=True)
    print(f"\n{table(reports)}\nwrote {options.out / 'report.txt'} and report.json")


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


def _add_prepare(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        kinds,
        "prepare",
        _prepare,
        "Make a data set of footage of people who speak.",
        "25 frames per second, 16 kHz mono, one square around the face; what makes no good clip is left out and "
        "reported. Stopped, it goes on where it was. Needs `make detectors`. See docs/data.md.",
    )
    parser.add_argument("videos", type=Path, metavar="VIDEO_DIR", help="folder of videos, with folders in it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS", help="of the picture's sides (%(default)s)")
    parser.add_argument(
        "--people",
        choices=("video", "folder"),
        default="video",
        help="who may be one person, so that nobody trains and tests: a video, or a folder of videos (%(default)s)",
    )
    parser.add_argument("--test-share", type=float, default=0.05, metavar="S", help="of the people (%(default)s)")
    parser.add_argument(
        "--detectors", type=Path, metavar="PYTHON", help="interpreter of the detectors (default: .venv-mediapipe's)"
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
    parser.add_argument("--clip", default="0", metavar="KEY", help="its name in the shard, or its number (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("sample.mp4"), metavar="FILE", help="%(default)s")
