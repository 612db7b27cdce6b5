"""Streaming generation, chunk by chunk and step by step (paper Algorithm 1).

Legend: R rows of the batch (branches of guidance, of one or more chunks), T latent frames, H W latent rows and columns,
C latent channels, W speech tokens of a latent frame, D speech channels.

`SamplingPlan` is what all sessions share, `GenerationState` is one session between two chunks and never changes, and
`ChunkInProgress` is a chunk on its way. `denoise_step` moves any number of chunks, of different sessions and at
different steps, by one step in one batch; everything else here is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from visavis.models.a2v_dit import A2VTransformer, Modulation
from visavis.models.attention import FoldedSpeech, TextKeys
from visavis.models.flow_matching import Schedule, euler_step, pinned_scheduler, schedule
from visavis.models.forward_pass import ForwardPass
from visavis.models.guidance import Guidance, joint_guidance
from visavis.models.id_context import (
    Cache,
    Context,
    IsolatedMemory,
    Sink,
    SlotRotations,
    Window,
    Windows,
    slot_rotations,
)
from visavis.models.noise import chunk_noise
from visavis.models.step_runner import StepRunner, eager_runner

# What the next chunk's context is made from: one more pass over the clean latents at t = 0, or the last denoising step.
CacheSource = Literal["clean", "last_step"]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How chunks are sampled. `shift` is that of the schedule of times; a guidance scale of 1 means none.

    Every model has the whole cache; `cache` is for measuring what it is without a part.
    """

    steps: int
    shift: float
    guidance_scale: float
    cache_source: CacheSource
    cache: Cache = "full"

    @property
    def branches(self) -> int:
        """Rows of a chunk in a batch: guidance takes a second one."""
        return 1 if self.guidance_scale == 1 else 2


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """All that does not depend on a session, computed once for a transformer, settings and latent size."""

    transformer: A2VTransformer
    settings: SamplingSettings
    schedule: Schedule
    # Of every time in the schedule, the final 0 last.
    modulation: Modulation
    rotations: SlotRotations
    text: Sequence[TextKeys]
    # None: one branch, no guidance.
    guidance: Guidance | None
    no_id_sink: Sink
    # [rows, columns, channels] of a latent frame.
    latent_shape: tuple[int, int, int]
    # How a forward pass is carried out.
    runner: StepRunner

    @property
    def chunk_shape(self) -> tuple[int, int, int, int]:
        """Latent frames, rows, columns and channels of a chunk."""
        return (self.transformer.chunk_latent_frames, *self.latent_shape)

    @property
    def replay_chunks(self) -> int:
        """Chunks whose replay makes a context that equals the one they had: information rises a block a chunk."""
        return len(self.transformer.transformer_blocks)

    @property
    def passes(self) -> int:
        """Forward passes a chunk takes."""
        return self.schedule.steps + (self.settings.cache_source == "clean")


@dataclass(frozen=True, slots=True)
class GenerationState:
    """One session between two chunks. Old states stay valid, so going back to a chunk border is using the older one."""

    plan: SamplingPlan
    sink: Sink
    # None before the first chunk.
    context: Context | None
    # Index of the chunk that comes next; the first is 1.
    chunk_index: int
    seed: int


@torch.no_grad()
def prepare_sampling(
    transformer: A2VTransformer,
    settings: SamplingSettings,
    rows: int,
    columns: int,
    *,
    runner: StepRunner | None = None,
) -> SamplingPlan:
    """Computes what all sessions share. `rows` and `columns` are those of a latent frame.

    Forward passes go through `runner`, or without one through `eager_runner(transformer)`.
    """
    device = transformer.proj_in.weight.device
    times = schedule(pinned_scheduler(settings.shift), settings.steps)
    rotations = slot_rotations(transformer.chunk_latent_frames, rows, columns, transformer.width, device)
    modulation = transformer.modulate(torch.tensor(times.timesteps, device=device))
    text = transformer.encode_text()
    latent_shape = (rows, columns, transformer.in_channels)
    no_id = torch.zeros(1, *latent_shape, device=device, dtype=transformer.proj_in.weight.dtype)
    return SamplingPlan(
        transformer=transformer,
        settings=settings,
        schedule=times,
        modulation=modulation,
        rotations=rotations,
        text=text,
        guidance=None if settings.branches == 1 else joint_guidance(settings.guidance_scale),
        no_id_sink=_sink(transformer, no_id, modulation, rotations, text),
        latent_shape=latent_shape,
        runner=runner or eager_runner(transformer),
    )


@torch.no_grad()
def compute_sink(portrait_latent_THWC: torch.Tensor, plan: SamplingPlan) -> Sink:
    """The sink of an avatar, from its ID latent `[1, H, W, C]` (normalised): share it among its sessions.

    Raises `ValueError` for a latent of another shape.
    """
    if portrait_latent_THWC.shape != (1, *plan.latent_shape):
        raise ValueError(
            f"the portrait latent must be {(1, *plan.latent_shape)}, got {tuple(portrait_latent_THWC.shape)}"
        )
    weight = plan.transformer.proj_in.weight
    latent = portrait_latent_THWC.to(weight.device, weight.dtype)
    return _sink(plan.transformer, latent, plan.modulation, plan.rotations, plan.text)


def _sink(
    transformer: A2VTransformer,
    latent_THWC: torch.Tensor,
    modulation: Modulation,
    rotations: SlotRotations,
    text: Sequence[TextKeys],
) -> Sink:
    memory = IsolatedMemory(rotations.sink_NP)
    # The last entry is time 0: the ID latent is clean.
    at_zero = modulation.select(torch.tensor([[-1]], device=latent_THWC.device))
    transformer.remember(latent_THWC[None], at_zero, memory, text=text)
    return Sink(torch.cat(memory.keys), torch.cat(memory.values))


def begin_session(
    transformer: A2VTransformer,
    portrait_latent_THWC: torch.Tensor,
    seed: int,
    settings: SamplingSettings,
    *,
    plan: SamplingPlan | None = None,
    sink: Sink | None = None,
) -> GenerationState:
    """The state before the first chunk.

    A server passes the `plan` it prepared for these settings, and the avatar's `sink` where it has it; else both are
    computed. Raises `ValueError` for a portrait latent of the wrong shape or a seed that is not 64-bit.
    """
    if plan is None:
        plan = prepare_sampling(transformer, settings, *portrait_latent_THWC.shape[1:3])
    if sink is None:
        sink = compute_sink(portrait_latent_THWC, plan)
    chunk_noise(seed, 1, (1,))
    return GenerationState(plan, sink, None, 1, seed)


class ChunkInProgress:
    """A chunk between noise and clean latents.

    `advance` runs one forward pass; after the last one, `result` has the latents and the state for the next chunk. With
    the cache source `clean` the latents are final one pass earlier (`latents_ready`), so they can be sent already.

    A chunk that was generated before is replayed by giving its latents: then only the pass over clean latents is left
    that makes the next chunk's context. With the cache source `clean` that context is the one it had, bit for bit, if
    the one before it was; and as block b of a context depends on blocks below b of the context before, after as many
    replays as the transformer has blocks (`SamplingPlan.replay_chunks`) whatever stood before the first makes no
    difference.
    """

    @torch.no_grad()
    def __init__(
        self,
        speech_latents_TWD: torch.Tensor,
        state: GenerationState,
        *,
        replayed_latents_THWC: torch.Tensor | None = None,
    ) -> None:
        plan = state.plan
        check_speech(speech_latents_TWD, plan)
        weight = plan.transformer.proj_in.weight
        speech = plan.transformer.fold_speech(_moved(speech_latents_TWD[None], weight))
        sinks = [state.sink]
        if plan.guidance is not None:
            # The second branch has neither speech nor ID; its audio attention adds zeros.
            speech = [FoldedSpeech.concatenate([part, part.silenced()]) for part in speech]
            sinks.append(plan.no_id_sink)
        self._state = state
        self._passes_done = 0 if replayed_latents_THWC is None else plan.schedule.steps
        self._passes = plan.passes if replayed_latents_THWC is None else plan.schedule.steps + 1
        self._context: Context | None = None
        self.speech = speech
        self.window = Window(sinks, state.context, plan.rotations, plan.settings.cache)
        if replayed_latents_THWC is None:
            replayed_latents_THWC = chunk_noise(state.seed, state.chunk_index, plan.chunk_shape)
        self.latents_THWC = _moved(replayed_latents_THWC, weight)

    @property
    def plan(self) -> SamplingPlan:
        """The plan of the chunk's session."""
        return self._state.plan

    @property
    def passes_done(self) -> int:
        """Forward passes so far; also the index of the next pass's time in the schedule."""
        return self._passes_done

    @property
    def latents_ready(self) -> bool:
        """Whether `latents_THWC` is the finished chunk."""
        return self._passes_done >= self.plan.schedule.steps

    @property
    def done(self) -> bool:
        """Whether `result` can be called."""
        return self._passes_done == self._passes

    def advance(self) -> bool:
        """One forward pass. True when the chunk is done."""
        denoise_step([self])
        return self.done

    def result(self) -> tuple[torch.Tensor, GenerationState]:
        """The chunk's video latents `[3, H, W, C]` (normalised) and the session's next state."""
        if self._context is None:
            raise ValueError(f"the chunk is not done: {self._passes_done} of {self._passes} passes")
        next_state = replace(self._state, context=self._context, chunk_index=self._state.chunk_index + 1)
        return self.latents_THWC, next_state

    def prepare_pass(self) -> None:
        """Before the pass that makes the next chunk's context, lets the window record it."""
        if self._passes_done == self._passes - 1:
            self.window.start_recording()

    def complete_pass(self, velocities_RTHWC: torch.Tensor | None) -> None:
        """After a pass: follows the guided velocity, or takes the context when that was what the pass was for."""
        if not self.latents_ready:
            assert velocities_RTHWC is not None
            guided_THWC = velocities_RTHWC[0] if self.plan.guidance is None else self.plan.guidance(*velocities_RTHWC)
            time, next_time = self.plan.schedule.times[self._passes_done : self._passes_done + 2]
            self.latents_THWC = euler_step(self.latents_THWC, guided_THWC, time, next_time)
        self._passes_done += 1
        if self.done:
            self._context = self.window.recorded()


@torch.no_grad()
def denoise_step(chunks: Sequence[ChunkInProgress]) -> None:
    """One forward pass for all given chunks as rows of one batch, each at its own time.

    The chunks may belong to different sessions with one plan's transformer and latent size, and may be at different
    steps. Raises `ValueError` for no chunks, a chunk that is done, or chunks of different transformers.
    """
    if not chunks or any(chunk.done for chunk in chunks):
        raise ValueError("denoise_step needs at least one chunk, and none that is done")
    transformer = chunks[0].plan.transformer
    if any(chunk.plan.transformer is not transformer for chunk in chunks):
        raise ValueError("chunks of different transformers cannot share a batch")
    for chunk in chunks:
        chunk.prepare_pass()
    rows = [chunk.window.rows for chunk in chunks]
    latents = [chunk.latents_THWC.expand(chunk.window.rows, -1, -1, -1, -1) for chunk in chunks]
    latents_RTHWC = latents[0] if len(chunks) == 1 else torch.cat(latents)
    memory = chunks[0].window if len(chunks) == 1 else Windows([chunk.window for chunk in chunks])
    plan = chunks[0].plan
    forward_pass = ForwardPass(latents_RTHWC, _modulation(chunks), memory, _speech(chunks), plan.text)
    if all(chunk.latents_ready for chunk in chunks):
        plan.runner.remember(forward_pass)
        velocities: Sequence[torch.Tensor | None] = [None] * len(chunks)
    else:
        velocities = plan.runner.velocities(forward_pass).split(rows)
    for chunk, velocities_RTHWC in zip(chunks, velocities, strict=True):
        chunk.complete_pass(velocities_RTHWC)


def _modulation(chunks: Sequence[ChunkInProgress]) -> Modulation:
    selected = [
        Modulation(
            chunk.plan.modulation.blocks[:, None, chunk.passes_done, None],
            chunk.plan.modulation.output[None, chunk.passes_done, None],
            chunk.plan.modulation.levels[None, chunk.passes_done, None],
        )
        for chunk in chunks
    ]
    if len(chunks) == 1:
        return selected[0]
    rows = [chunk.window.rows for chunk in chunks]
    blocks = [part.blocks.expand(-1, count, -1, -1, -1) for part, count in zip(selected, rows, strict=True)]
    output = [part.output.expand(count, -1, -1, -1) for part, count in zip(selected, rows, strict=True)]
    levels = [part.levels.expand(count, -1) for part, count in zip(selected, rows, strict=True)]
    return Modulation(torch.cat(blocks, dim=1), torch.cat(output), torch.cat(levels))


def _speech(chunks: Sequence[ChunkInProgress]) -> Sequence[FoldedSpeech]:
    if len(chunks) == 1:
        return chunks[0].speech
    return [FoldedSpeech.concatenate(list(parts)) for parts in zip(*(chunk.speech for chunk in chunks), strict=True)]


def _moved(latents: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """To the device and dtype of a weight, without waiting for that device."""
    latents = latents.to(weight.dtype)
    if latents.device.type == "cpu" and weight.device.type == "cuda":
        # PyTorch gives pinned memory to nobody else before the copy is done.
        return latents.pin_memory().to(weight.device, non_blocking=True)
    return latents.to(weight.device)


def check_speech(speech_latents_TWD: torch.Tensor, plan: SamplingPlan) -> None:
    """Raises `ValueError` for what are no speech latents of a chunk `[3, W, D]`."""
    frames, channels = plan.transformer.chunk_latent_frames, plan.transformer.audio_channels
    shape = tuple(speech_latents_TWD.shape)
    if len(shape) != 3 or shape[0] != frames or shape[1] < 1 or shape[2] != channels:
        raise ValueError(f"speech latents of a chunk must be ({frames}, tokens, {channels}), got {shape}")


def generate_chunk(speech_latents_TWD: torch.Tensor, state: GenerationState) -> tuple[torch.Tensor, GenerationState]:
    """Generates one chunk: its video latents `[3, H, W, C]` (normalised) and the state for the next one."""
    chunk = ChunkInProgress(speech_latents_TWD, state)
    while not chunk.advance():
        pass
    return chunk.result()
