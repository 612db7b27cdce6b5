"""Sessions in one batch against the same sessions one by one: `python -m visavis.bench.batching`. Prints Markdown.

Both ways run in one process and take turns, so that what else the machine does meets both; the figure is the median of
the rounds' ratios. Processor time says what batching saves in work, wall time what it also gains by using every core.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from visavis.bench.surroundings import surroundings
from visavis.openmp import wait_asleep

if TYPE_CHECKING:
    import torch

    from visavis.models.generation import GenerationState, SamplingPlan


@dataclass(frozen=True, slots=True)
class Turn:
    """One way, once: seconds of wall and of processor time for a chunk of every session."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of one number of sessions."""

    sessions: int
    together: Sequence[Turn]
    one_by_one: Sequence[Turn]

    def row(self) -> str:
        """A row of the table."""
        pairs = list(zip(self.one_by_one, self.together, strict=True))
        wall = sorted(one.wall / all_.wall for one, all_ in pairs)
        processor = median(one.processor / all_.processor for one, all_ in pairs)
        seconds = (
            f"{median(turn.wall for turn in self.one_by_one):.2f} s | {median(t.wall for t in self.together):.2f} s"
        )
        return (
            f"| {self.sessions} | {seconds} | {median(wall):.2f} ({wall[0]:.2f} to {wall[-1]:.2f}) | {processor:.2f} |"
        )


def compare(preset: str, numbers: Sequence[int], rounds: int, *, fast: bool) -> list[Comparison]:
    """Generates the second chunk of so many sessions, both ways. `fast`: 4 steps and one branch of guidance."""
    import torch

    from visavis.models.a2v_dit import A2VTransformer
    from visavis.models.checkpoints import load_part
    from visavis.models.generation import prepare_sampling

    loaded = load_part(preset, "transformer", "auto", "auto")
    assert isinstance(loaded.module, A2VTransformer)
    sampling, side = loaded.preset.sampling, loaded.preset.latent_rows
    if fast:
        sampling = replace(sampling, steps=4, guidance_scale=1.0)
    with torch.inference_mode():
        plan = prepare_sampling(loaded.module, sampling, side, side)
        states = _states(plan, max(numbers))
        return [_compare(states[:number], rounds) for number in numbers]


def _states(plan: "SamplingPlan", number: int) -> "list[GenerationState]":
    import torch

    from visavis.models.generation import begin_session, generate_chunk

    portrait = torch.zeros(1, *plan.latent_shape)
    starts = [begin_session(plan.transformer, portrait, seed, plan.settings, plan=plan) for seed in range(number)]
    return [generate_chunk(_speech(start), start)[1] for start in starts]


def _speech(state: "GenerationState") -> "torch.Tensor":
    import torch

    transformer = state.plan.transformer
    return torch.zeros(transformer.chunk_latent_frames, 2, transformer.audio_channels)


def _compare(states: "Sequence[GenerationState]", rounds: int) -> Comparison:
    from visavis.models.generation import ChunkInProgress, denoise_step

    def generate(batches: Sequence[Sequence[ChunkInProgress]]) -> None:
        for batch in batches:
            while not batch[0].done:
                denoise_step(batch)
        batches[-1][-1].result()[0].cpu()

    def turn(width: int) -> Turn:
        chunks = [ChunkInProgress(_speech(state), state) for state in states]
        return _timed(lambda: generate([chunks[start : start + width] for start in range(0, len(chunks), width)]))

    together, one_by_one = list[Turn](), list[Turn]()
    ways = [(together, len(states)), (one_by_one, 1)]
    for _ in range(rounds):
        for turns, width in ways:
            turns.append(turn(width))
        ways.reverse()
    return Comparison(len(states), together, one_by_one)


def _timed(work: Callable[[], None]) -> Turn:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Turn(time.perf_counter() - wall, time.process_time() - processor)


def main(arguments: Sequence[str]) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--sessions", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="4 steps, one branch; else as the preset says")
    options = parser.parse_args(arguments)
    wait_asleep()
    comparisons = compare(options.preset, options.sessions, options.rounds, fast=options.fast)
    import torch

    where = surroundings()
    print(f"{where.commit}, {where.date}, {where.processor}, {torch.get_num_threads()} threads: {where.command}\n")
    print("| sessions | one by one | together | gain, wall | gain, processor time |\n|---|---|---|---|---|")
    print("\n".join(comparison.row() for comparison in comparisons))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
