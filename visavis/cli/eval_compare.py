"""`visavis eval compare` and `long-clips`: the comparison of the paper's tables in small, and the clips it wants."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from visavis.cli.errors import CommandError
from visavis.cli.eval_talk import add_judges, announce, judges, read_clips

if TYPE_CHECKING:
    from visavis.evaluation.comparison import ClipSet

_MODULE: Final = "visavis.cli.eval_compare"
_ENGINES: Final = ("piper", "espeak", "flite")


def add_compare_parts(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `compare` and `long-clips` to `visavis eval`; `run` below carries them out."""
    summary = "Compare ground truth, VAE, READ, REST and what REST is without its parts: a table with plots."
    parser = parts.add_parser(
        "compare",
        help=summary,
        description=f"{summary} Stopped, it goes on. See docs/evaluation.md.",
        allow_abbrev=False,
    )
    parser.set_defaults(module=_MODULE, act=_compare)
    parser.add_argument(
        "--clips", type=Path, nargs="+", required=True, metavar="DIR", help="one folder for each length"
    )
    parser.add_argument("--model", default="mini", metavar="MODEL", help="preset or model folder (%(default)s)")
    parser.add_argument(
        "--weights",
        type=_named_folder,
        nargs="+",
        default=[],
        metavar="ROW=DIR",
        help="retrained: no_asd, no_contrastive, no_smoothness, no_sink, no_context",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the noise (0 1 2)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N clips of each folder (default: all)")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="results and landmarks; goes on when stopped"
    )
    parser.add_argument("--page", type=Path, required=True, metavar="FILE", help="write Markdown here, plots beside it")
    parser.add_argument("--originals", type=Path, metavar="DIR", help="weight files of FID, FVD, E-FID, Sync-C, Sync-D")
    parser.add_argument("--random-weights", action="store_true", help="also compare noise: for trying the command out")
    parser.add_argument("--threads", type=int, metavar="T", help="of torch on the CPU (default: as torch does)")
    add_judges(parser)
    _add_long_clips(parts)


def run(options: argparse.Namespace) -> int:
    """Carries out one of the commands. Raises CommandError for what a user can put right."""
    from visavis.openmp import wait_asleep

    wait_asleep()
    try:
        from visavis.evaluation.errors import EvaluationError
        from visavis.training.data.dataset_folder import DatasetError
        from visavis.training.data.footage.detectors import DetectorError
        from visavis.training.data.makehuman import AssetError
        from visavis.training.data.shards import ShardError
        from visavis.training.data.voice import VoiceError

        options.act(options)
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'visavis[training]'") from error
    except (AssetError, DatasetError, DetectorError, EvaluationError, ShardError, VoiceError) as error:
        raise CommandError(str(error)) from error
    return 0


def _compare(options: argparse.Namespace) -> None:
    import torch

    from visavis.evaluation.comparison import Comparison
    from visavis.evaluation.comparison_plots import draw_over_time
    from visavis.evaluation.comparison_rows import RowSources, comparison_rows
    from visavis.evaluation.comparison_table import comparison_page
    from visavis.evaluation.originals.measures import OriginalMeasures

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sources = RowSources(options.model, dict(options.weights), options.random_weights)
    rows, results = [], []
    with ExitStack() as stack:
        seen_by = judges(options, stack, options.run / "faces")
        comparison = Comparison(
            run=options.run,
            sets=[_clip_set(folder, options.limit) for folder in options.clips],
            seeds=options.seeds,
            judges=seen_by,
            originals=lambda: OriginalMeasures(options.originals, seen_by.faces),
        )
        for row in comparison_rows(sources):
            results += comparison.of(row, announce)
            rows.append(row.without_maker())
            announce("")
            print(f"{row.name}: {row.why_missing or 'measured'}")
    plots = draw_over_time(results, options.page.parent)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(comparison_page(rows, results, plots))
    print(f"wrote {options.page}")


def _clip_set(folder: Path, limit: int | None) -> "ClipSet":
    from visavis.evaluation.comparison import ClipSet

    clips = read_clips(folder, "test", limit)
    lengths = {len(clip.frames_FHW3) for clip in clips}
    if len(lengths) != 1:
        raise CommandError(f"the clips in {folder} are not all of one length")
    return ClipSet(lengths.pop(), clips)


def _long_clips(options: argparse.Namespace) -> None:
    from visavis.evaluation.long_clips import LongClipSettings, render_long_clips
    from visavis.training.data.voices import Speaker, require_engines

    engines = tuple(engine for engine in _ENGINES if engine in options.engines)
    require_engines(engines)
    settings = LongClipSettings(options.clips, options.frames, options.seed, engines)
    print(f"wrote {render_long_clips(options.assets, options.out, settings, Speaker)}")


def _add_long_clips(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "Render long clips of the test split's people and voices."
    parser = parts.add_parser("long-clips", help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(module=_MODULE, act=_long_clips)
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR", help="MakeHuman system assets (CC0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the clips")
    parser.add_argument("--clips", type=int, default=12, metavar="N", help="%(default)s")
    parser.add_argument("--frames", type=int, default=601, metavar="F", help="with the portrait (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="as of `visavis data render` (%(default)s)")
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=_ENGINES, metavar="NAME", help="voices (all)")


def _named_folder(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not found or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROW=DIR")
    return name, Path(folder)
