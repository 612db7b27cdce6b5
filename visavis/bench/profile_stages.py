"""Where the time of a chunk goes, by operator: `python -m visavis.bench.profile_stages`. Prints Markdown.

The same models as `visavis.bench.in_process`, on one core, or on the GPU where there is one. The profiler itself takes
time too, most where operators are small: shares are to be read, not seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from visavis.bench.json_file import write_json
from visavis.bench.markdown_page import header, heading_lines, row
from visavis.bench.surroundings import Surroundings, surroundings
from visavis.openmp import wait_asleep

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEventAvg

SCHEMA: Final = "visavis.profile/1"
# Operators that get a row of their own.
_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator in one chunk: its own seconds, without those of operators that it calls."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage, in words, and its operators, the longest first."""

    name: str
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """One run."""

    schema: str
    surroundings: Surroundings
    stages: tuple[StageProfile, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Profiles and prints."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.profile_stages", description=__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every operator here")
    options = parser.parse_args(arguments)
    wait_asleep()
    where, stages = surroundings(), []
    for line in heading_lines(where):
        print(line)
    for name, job in _stages(options.preset, options.device, options.dtype, options.sessions):
        stages.append(StageProfile(name, tuple(profile(job))))
        print(f"\n## {name}\n")
        for line in table(stages[-1].operators):
            print(line)
    if options.json:
        write_json(ProfileResult(SCHEMA, where, tuple(stages)), options.json)
    return 0


def profile(job: Callable[[], object], repeats: int = 3) -> list[OperatorTime]:
    """The operators of `job`, the longest first, after one run that is not measured."""
    import torch
    from torch.profiler import ProfilerActivity

    on_gpu = torch.cuda.is_available()
    job()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(repeats):
            job()
    found = [_operator(event, repeats, on_gpu) for event in profiler.key_averages()]
    return sorted((each for each in found if each.seconds > 0), key=lambda each: -each.seconds)


def table(operators: Sequence[OperatorTime]) -> Iterator[str]:
    """The longest ones, and the others in one row."""
    whole = sum(each.seconds for each in operators)
    yield from header("operator", "calls a chunk", "ms a chunk", "share")
    shown, others = operators[:_ROWS], operators[_ROWS:]
    rest = OperatorTime("all others", sum(each.calls for each in others), sum(each.seconds for each in others))
    for each in (*shown, rest):
        name = each.name if each is rest else f"`{each.name}`"
        yield row(name, str(each.calls), f"{each.seconds * 1000:.1f}", f"{each.seconds / whole:.1%}")


def _operator(event: FunctionEventAvg, repeats: int, on_gpu: bool) -> OperatorTime:
    microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return OperatorTime(str(event.key), event.count // repeats, microseconds / 1e6 / repeats)


def _stages(preset: str, device: str, dtype: str, sessions: int) -> Iterator[tuple[str, Callable[[], object]]]:
    import torch

    from visavis.bench.device_rates import precision_of
    from visavis.bench.generator_chunks import SessionBatch
    from visavis.models.a2v_dit import A2VTransformer
    from visavis.models.checkpoints import load_part, read_settings
    from visavis.models.generation import prepare_sampling
    from visavis.models.speech_encoder import SpeechEncoder
    from visavis.models.video_autoencoder import VideoAutoencoder

    torch.set_num_threads(1)
    rows = read_settings(preset)[0].latent_rows
    sampling = read_settings(preset)[0].sampling
    transformer, vae, speech = (
        load_part(preset, part, device, dtype).module for part in ("transformer", "vae", "speech_encoder")
    )
    assert isinstance(transformer, A2VTransformer)
    assert isinstance(vae, VideoAutoencoder)
    assert isinstance(speech, SpeechEncoder)
    with torch.inference_mode():
        batch = SessionBatch(prepare_sampling(transformer, sampling, rows, rows), sessions)
        decoding = batch.decoding(vae)
        state = speech.initial_state()
        samples_S, lookahead_S = torch.randn(15_360), torch.randn(1_280)
        products = precision_of(dtype, transformer.proj_in.weight.device)
        yield f"Generator ({preset}, {products}, {sessions} session(s))", batch.batched
        yield f"Decoder ({preset}, {str(vae.dtype).removeprefix('torch.')}, {sessions} session(s))", decoding.decode
        yield "Audio encoder", lambda: speech.encode_chunk(samples_S, lookahead_S, state)


if __name__ == "__main__":
    sys.exit(main())
