"""The ways to carry out a forward pass agree: eager, compiled, graphed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.reruns import Reruns
from tests.models.small_transformer import SETTINGS, plan, session, small_transformer, speech
from visavis.models.checkpoints import placed
from visavis.models.forward_pass import ForwardPass
from visavis.models.generation import (
    CacheSource,
    ChunkInProgress,
    GenerationState,
    SamplingPlan,
    denoise_step,
    generate_chunk,
)
from visavis.models.graphed_runner import GraphedRunner
from visavis.models.noise import chunk_noise
from visavis.models.step_runner import EagerRunner, StepRunner, compile_blocks, step_runner

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


class Widths:
    """Notes how many rows the passes have that reach a runner."""

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self.seen: list[int] = []

    def velocities(self, forward_pass: ForwardPass) -> torch.Tensor:
        self.seen.append(len(forward_pass.latents_RTHWC))
        return self._runner.velocities(forward_pass)

    def remember(self, forward_pass: ForwardPass) -> None:
        self.seen.append(len(forward_pass.latents_RTHWC))
        self._runner.remember(forward_pass)


def talk(sampling: SamplingPlan, sessions: int, chunks: int) -> list[torch.Tensor]:
    """Latents of sessions that run in one batch."""
    states: list[GenerationState] = [session(sampling, seed=3 + index) for index in range(sessions)]
    latents = []
    for index in range(chunks):
        batch = [ChunkInProgress(speech(seed=10 * index + row), state) for row, state in enumerate(states)]
        while not batch[0].done:
            denoise_step(batch)
        results = [chunk.result() for chunk in batch]
        latents += [result[0] for result in results]
        states = [result[1] for result in results]
    return latents


def mixed_states(sampling: SamplingPlan) -> list[GenerationState]:
    """Of four sessions, of which the second and the last have just come."""
    states = [session(sampling, seed=seed) for seed in (3, 4, 5, 6)]
    states[::2] = [generate_chunk(speech(seed=8), state)[1] for state in states[::2]]
    return states


def generate_together(states: list[GenerationState]) -> list[torch.Tensor]:
    """Latents and contexts of a chunk of each, started and generated in one batch."""
    chunks = [ChunkInProgress(speech(seed=20 + index), state) for index, state in enumerate(states)]
    while not chunks[0].done:
        denoise_step(chunks)
    results = [chunk.result() for chunk in chunks]
    contexts = [state.context for _, state in results if state.context is not None]
    assert len(contexts) == len(states)
    return [latents for latents, _ in results] + [context.keys_LRND for context in contexts]


def assert_same(actual: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.timeout(600)
@needs_compiler
def test_compiled_blocks_agree_with_eager_ones() -> None:
    transformer = small_transformer(prompt_tokens=3)
    expected = talk(plan(transformer), 1, 1)
    compiled = replace(plan(transformer), runner=step_runner(transformer, "compiled", ()))
    assert_same(talk(compiled, 1, 1), expected, 1e-4)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fuse", [False, True])
def test_a_block_is_compiled_for_few_shapes_and_as_a_whole(fuse: bool) -> None:
    # In bfloat16 a fused transformer is not packed, as on a GPU.
    dtype, tolerance = (torch.bfloat16, 0.05) if fuse else (torch.float32, 1e-4)
    transformer = placed(small_transformer(prompt_tokens=3), torch.device("cpu"), dtype)
    if fuse:
        transformer.fuse()
    sampling = plan(transformer)
    expected = [talk(sampling, sessions, 2) for sessions in (1, 2, 3, 4)]
    graphs = CompileCounterWithBackend("aot_eager")
    compile_blocks(transformer, graphs)
    # Otherwise it would go on without compiling.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for sessions, latents in zip((1, 2, 3, 4), expected, strict=True):
            assert_same(talk(sampling, sessions, 2), latents, tolerance)
    assert not torch._dynamo.utils.counters["graph_break"]
    # Before and after the attention, whichever the block: the ID latent, one session, the first larger number, any.
    assert graphs.frame_count == 2 * 4


def test_packed_weights_are_not_compiled() -> None:
    transformer = small_transformer()
    transformer.fuse()
    with pytest.raises(ValueError, match="float32 packed for a CPU; set the execution to eager"):
        step_runner(transformer, "compiled", ())


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_graphs_without_cuda_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a CUDA device"):
        step_runner(small_transformer(), "graphed", (2,))


@pytest.mark.parametrize("cache_source", ["clean", "last_step"])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("sessions", [1, 3])
def test_passes_through_buffers_equal_eager_ones(
    sessions: int, guidance_scale: float, cache_source: CacheSource
) -> None:
    settings = replace(SETTINGS, guidance_scale=guidance_scale, cache_source=cache_source)
    eager = plan(small_transformer(prompt_tokens=3), settings)
    capture, rows = Reruns(), sessions * settings.branches
    buffered = replace(eager, runner=GraphedRunner(eager.runner, {rows, 6}, capture))
    assert_same(talk(buffered, sessions, 4), talk(eager, sessions, 4))
    # For each number of rows velocities, velocities with the next context, and that context alone.
    assert capture.captures == 3 * len({rows, 6})
    # All passes but those of the first chunk.
    assert capture.replays == 3 * eager.passes


def test_sessions_that_come_and_go_find_their_own_past() -> None:
    eager = plan(small_transformer())
    buffered = replace(eager, runner=GraphedRunner(eager.runner, (2, 4), Reruns()))
    results = []
    for sampling in (eager, buffered):
        states = [generate_chunk(speech(seed=seed), session(sampling, seed=seed))[1] for seed in (3, 4, 5)]
        chunks = [ChunkInProgress(speech(seed=20 + index), state) for index, state in enumerate(states)]
        # Three denoising steps and the pass for the context each.
        for batch in ((0, 1), (2, 0), (1, 2), (1,), (2, 1), (0, 2), (0,)):
            denoise_step([chunks[index] for index in batch])
        results.append([chunk.latents_THWC for chunk in chunks])
        results[-1] += [context.keys_LRND for chunk in chunks if (context := chunk.result()[1].context)]
    assert_same(results[1], results[0])


@pytest.mark.parametrize("cache_source", ["clean", "last_step"])
def test_a_first_chunk_leaves_the_others_to_their_graph(cache_source: CacheSource) -> None:
    eager = plan(small_transformer(prompt_tokens=3), replace(SETTINGS, cache_source=cache_source))
    inner = Widths(eager.runner)
    buffered = replace(eager, runner=GraphedRunner(inner, (4,), Reruns()))
    states = mixed_states(buffered)
    inner.seen.clear()
    assert_same(generate_together(states), generate_together(mixed_states(eager)))
    # Two sessions of each kind: the graph's rows as they were captured, and the others' eagerly, never eight at once.
    assert set(inner.seen) == {4}


def test_first_chunks_and_large_batches_go_past_the_graphs() -> None:
    eager = plan(small_transformer())
    capture = Reruns()
    small = replace(eager, runner=GraphedRunner(eager.runner, (2,), capture))
    assert_same(talk(small, 3, 1), talk(eager, 3, 1))
    assert_same(talk(small, 3, 2), talk(eager, 3, 2))
    assert capture.captures == 0


class HostSyncs(TorchDispatchMode):
    """Notes what makes the host wait for a device, or sends it a number: neither may stand in a graph."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func).split(".")[1]
        if name in self.FORBIDDEN:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_operator_of_a_chunk_waits_for_the_device(dtype: torch.dtype) -> None:
    transformer = placed(small_transformer(prompt_tokens=3), torch.device("cpu"), dtype)
    capture = Reruns()
    # In this thread alone: a watch sees no other.
    sampling = replace(plan(transformer), runner=GraphedRunner(EagerRunner(transformer, None), (4,), capture))
    states = mixed_states(sampling)
    with HostSyncs() as syncs:
        generate_together(states)
    with HostSyncs() as drawing:
        for state in states:
            chunk_noise(state.seed, state.chunk_index, sampling.chunk_shape)
    # Noise is drawn on the host, where nothing waits.
    assert syncs.seen == drawing.seen
    # It has seen what stands in graphs: as they were captured, and as they run.
    assert (capture.captures, capture.replays) == (3, sampling.passes)
    with HostSyncs() as syncs:
        torch.ones(2).sum().item()
    assert syncs.seen == ["_local_scalar_dense"], "the check itself sees"


@needs_cuda
@pytest.mark.parametrize("execution", ["graphed", "compiled-graphed"])
def test_no_chunk_waits_for_a_gpu(execution: Any) -> None:
    transformer = placed(small_transformer(prompt_tokens=3), torch.device("cuda"), torch.bfloat16)
    states = mixed_states(replace(plan(transformer), runner=step_runner(transformer, execution, (4,))))
    # Captures do wait.
    generate_together(states)
    torch.cuda.set_sync_debug_mode("error")
    try:
        generate_together(states)
        with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
            torch.ones(2, device="cuda").sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("execution", ["graphed", "compiled-graphed"])
def test_graphs_agree_with_eager_passes(execution: Any) -> None:
    expected, actual = (placed(small_transformer(prompt_tokens=3), torch.device("cuda"), torch.float32) for _ in "ea")
    graphed = replace(plan(actual), runner=step_runner(actual, execution, (2, 4, 6)))
    assert_same(talk(graphed, 3, 4), talk(plan(expected), 3, 4), 1e-3)
    assert_same(generate_together(mixed_states(graphed)), generate_together(mixed_states(plan(expected))), 1e-3)
