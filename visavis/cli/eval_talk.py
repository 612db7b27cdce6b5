"""`visavis eval talk` and `stream`: measures of a model that talks, through the services or in this process."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from visavis.cli.errors import CommandError

if TYPE_CHECKING:
    from visavis.evaluation.judges import Judges
    from visavis.evaluation.report import Measure
    from visavis.evaluation.talkers import Talker
    from visavis.training.data.clips import Clip

MODES: Final = ("streamed", "pipeline", "read")
_CONTROL_CLIPS, _SILENT_CLIPS = 12, 4
_AddPart = Callable[[str, Callable[[argparse.Namespace], object], str], argparse.ArgumentParser]


def add_talk_parts(add: _AddPart) -> None:
    """Adds `talk` and `stream` to `visavis eval`."""
    parser = add(
        "talk", _talk, "Measure a talking model: lips, identity, borders, pictures, and controls that must fail."
    )
    _add_talker(parser)
    parser.add_argument("--originals", type=Path, metavar="DIR", help="weight files of FID, FVD, E-FID, Sync-C, Sync-D")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="recorded human speech to be spoken as well")
    parser.add_argument(
        "--control-clips", type=int, default=_CONTROL_CLIPS, metavar="N", help="with another's speech (%(default)s)"
    )
    parser.add_argument(
        "--silent-clips", type=int, default=_SILENT_CLIPS, metavar="N", help="portraits without sound (%(default)s)"
    )
    stream = add(
        "stream", _stream, "Measure long streams: the last utterance, which is the first one, against the first."
    )
    _add_talker(stream)
    stream.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of each stream (%(default)s)")
    stream.add_argument("--sessions", type=int, default=8, metavar="N", help="one person each (%(default)s)")


def _add_talker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="streamed",
        help="streamed: all services; pipeline: REST in this process; read: READ in this process (%(default)s)",
    )
    parser.add_argument(
        "--sampling",
        choices=("standard", "fast"),
        default="standard",
        help="all steps with guidance, or the distilled ones (%(default)s)",
    )
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="streamed: a running gateway, and not services of its own"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise (%(default)s)")
    add_judges(parser)


def add_judges(parser: argparse.ArgumentParser) -> None:
    """The arguments that `judges` reads."""
    parser.add_argument(
        "--judges", type=Path, metavar="DIR", help="face_embedder and sync_net (default: weights/judges)"
    )
    parser.add_argument(
        "--detectors-python",
        type=Path,
        metavar="FILE",
        help="Python of the detectors (default: that of `make detectors`)",
    )


def judges(options: argparse.Namespace, stack: ExitStack, remembered: Path | None = None) -> "Judges":
    """Whoever is there; landmarks are kept in the folder `remembered`, if one is given."""
    from visavis.evaluation.judges import load_judges
    from visavis.evaluation.remembered_faces import RememberedFaces
    from visavis.training.data.footage.detectors import DetectorError, Detectors, FindsFaces

    faces: FindsFaces | None
    try:
        faces, why_none = stack.enter_context(Detectors(options.detectors_python)), ""
    except DetectorError as error:
        faces, why_none = None, str(error)
    if faces is not None and remembered is not None:
        faces = RememberedFaces(faces, remembered)
    return load_judges(faces, why_none, options.judges)


def read_clips(folder: Path, split: Any, limit: int | None) -> "list[Clip]":
    """The first clips of a split."""
    from itertools import chain, islice

    from visavis.evaluation.clip_folder import shards_of
    from visavis.training.data.clips import read_shard

    return list(islice(chain.from_iterable(map(read_shard, shards_of(folder, split))), limit))


def announce(line: str) -> None:
    """Says what is being made, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)


def _talk(options: argparse.Namespace) -> "tuple[list[Measure], dict[str, Any], dict[str, Any]]":
    from visavis.evaluation.clip_folder import about
    from visavis.evaluation.originals.measures import OriginalMeasures
    from visavis.evaluation.portraits import portraits_of
    from visavis.evaluation.recordings import read_recordings
    from visavis.evaluation.talk_evaluation import TalkEvaluation, TalkPlan

    recordings = read_recordings(options.recordings) if options.recordings else {}
    clips = read_clips(options.clips, options.split, options.limit)
    with ExitStack() as stack:
        seen_by = judges(options, stack)
        everybody = clips if options.limit is None else read_clips(options.clips, options.split, None)
        evaluation = TalkEvaluation(
            talker=stack.enter_context(_talker(options)),
            judges=seen_by,
            portraits=portraits_of(everybody, seen_by),
            originals=OriginalMeasures(options.originals, seen_by.faces),
            announce=announce,
        )
        plan = TalkPlan(options.seed, options.control_clips, options.silent_clips, recordings)
        measures = evaluation.run(clips, plan)
        announce("")
        return measures, about(options.clips, options.split, len(clips)), _about_model(options, seen_by)


def _stream(options: argparse.Namespace) -> "tuple[list[Measure], dict[str, Any], dict[str, Any]]":
    from visavis.evaluation.clip_folder import about
    from visavis.evaluation.clip_people import somebody_speaks
    from visavis.evaluation.long_stream import StreamMeasures, long_speech, stream_ends
    from visavis.evaluation.portraits import portraits_of

    clips = read_clips(options.clips, options.split, options.limit)
    speaking = [clip for clip in clips if somebody_speaks(clip)]
    chosen = speaking[: options.sessions]
    if len(chosen) < options.sessions:
        raise CommandError(f"somebody speaks in {len(chosen)} clips only: give fewer --sessions, or more clips")
    with ExitStack() as stack:
        seen_by = judges(options, stack)
        measures = StreamMeasures(seen_by, portraits_of(chosen, seen_by))
        talker = stack.enter_context(_talker(options))
        for number, clip in enumerate(chosen):
            announce(f"session {number + 1} of {len(chosen)}: {options.minutes:g} minutes")
            others = [other.samples_S for other in speaking if other.key != clip.key]
            try:
                speech_S = long_speech(clip.samples_S, others, 60 * options.minutes)
            except ValueError as error:
                raise CommandError(f"--minutes: {error}") from error
            measures.add(clip, stream_ends(talker, clip, speech_S, options.seed + number))
        announce("")
        data = {**about(options.clips, options.split, len(chosen)), "minutes": options.minutes}
        return measures.results(), data, _about_model(options, seen_by)


def _about_model(options: argparse.Namespace, seen_by: "Judges") -> dict[str, Any]:
    from visavis.models.checkpoints import identify, read_settings

    about: dict[str, Any] = {
        "name": options.model,
        "mode": options.mode,
        "sampling": options.sampling,
        "seed": options.seed,
    }
    about["judges"] = seen_by.about()
    if options.server:
        return {**about, "server": options.server}
    identity = identify(*read_settings(options.model))
    return {**about, "fingerprint": identity.fingerprint, "random_weights": identity.random_weights}


@contextmanager
def _talker(options: argparse.Namespace) -> "Iterator[Talker]":
    from visavis.client import ClientError
    from visavis.evaluation.talkers import PipelineTalker, server_talker

    try:
        if options.mode != "streamed":
            yield PipelineTalker(_pipeline(options))
            return
        with ExitStack() as stack:
            address = options.server or stack.enter_context(_own_server(options))
            yield stack.enter_context(server_talker(address, options.sampling))
    except ClientError as error:
        raise CommandError(str(error)) from error


def _pipeline(options: argparse.Namespace) -> Any:
    try:
        if options.mode == "read":
            from visavis.models.read_pipeline import ReadPipeline

            return ReadPipeline.from_preset(options.model, sampling=options.sampling)
        from visavis.models.pipeline import RestPipeline

        return RestPipeline.from_preset(options.model, sampling=options.sampling)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


@contextmanager
def _own_server(options: argparse.Namespace) -> Iterator[str]:
    from visavis.cli.local_system import default_settings, local_system

    settings = replace(default_settings(options.model), environment={"VISAVIS_SAMPLING": options.sampling})
    with local_system(settings, announce) as system:
        yield system.gateway_address
