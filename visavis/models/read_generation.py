"""READ's generation: four chunks at a time on their way from noise, the earlier the cleaner (REST, C.6.1; READ's ANS).

A window of 13 latent frames, the ID latent and `CLIP_CHUNKS` chunks, rolls over the speech. All of it sees all of it,
and every chunk is guided by the motion of the ones before it, which are cleaner. When the first is done it leaves, the
others move up, and noise enters behind them. Which step each place of the window is at follows the four segments that
the teacher was trained with (docs/decisions/0014-reads-window.md).

Legend: R rows of the batch (branches of guidance), T latent frames, H W latent rows and columns, C latent channels, W
speech tokens of a latent frame, D speech channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from visavis.models.attention import FoldedSpeech
from visavis.models.flow_matching import euler_step
from visavis.models.forward_pass import ForwardPass
from visavis.models.full_attention import CLIP_CHUNKS, ClipMemory, clip_rotation
from visavis.models.generation import SamplingPlan, check_speech, compute_sink
from visavis.models.noise import chunk_noise


@dataclass(frozen=True, slots=True)
class MovingChunk:
    """A chunk in the window."""

    latents_THWC: torch.Tensor
    speech_TWD: torch.Tensor
    # Of the schedule; all of them: the latents are clean.
    steps_done: int


def generate_rolling(
    speech_latents: Iterable[torch.Tensor], portrait_latent_THWC: torch.Tensor, seed: int, plan: SamplingPlan
) -> Iterator[torch.Tensor]:
    """Video latents `[3, H, W, C]` (normalised) of each chunk of speech `[3, W, D]`, in order.

    A chunk comes as soon as the three after it were taken, and depends on no speech beyond them. It starts from the
    noise that REST gives to the chunk of this seed and index. Speech of fewer than four chunks is to be filled up with
    silence. Raises `ValueError` for less, and for a portrait, seed or speech latents that do not fit.
    """
    memory = _clip_memory(portrait_latent_THWC, plan)
    borders = step_borders(plan.schedule.steps)
    window: Sequence[MovingChunk] = ()
    index = 0
    for index, speech_TWD in enumerate(speech_latents, start=1):
        window = [*window[-CLIP_CHUNKS + 1 :], _entering(speech_TWD, seed, index, plan)]
        if index < CLIP_CHUNKS:
            continue
        if index == CLIP_CHUNKS:
            # No chunk has left yet that could have guided these: they set out together, each as far as its place.
            window = denoise(window, borders[-2::-1], plan, memory)
        window = denoise(window, borders[:0:-1], plan, memory)
        yield window[0].latents_THWC
    if 0 < index < CLIP_CHUNKS:
        raise ValueError(f"speech of {index} chunks must be filled up to {CLIP_CHUNKS} with silence")
    if not window:
        return
    # At the end the window stands still: chunks that are done stay and guide the others.
    finished = denoise(window, [plan.schedule.steps] * len(window), plan, memory)
    yield from (chunk.latents_THWC for chunk in finished[1:])


def step_borders(steps: int) -> tuple[int, ...]:
    """Steps done by a chunk when it comes to each place of the window, the last place first, and when it leaves.

    Five numbers from 0 to `steps`, as even as can be: a chunk is denoised through all places alike.
    """
    return tuple(steps * places // CLIP_CHUNKS for places in range(CLIP_CHUNKS + 1))


@torch.no_grad()
def denoise(
    chunks: Sequence[MovingChunk], targets: Sequence[int], plan: SamplingPlan, memory: ClipMemory
) -> Sequence[MovingChunk]:
    """Takes every chunk to the step that is its target; who is there waits, and is seen by the others as it stands."""
    speech = plan.transformer.fold_speech(torch.cat([chunk.speech_TWD for chunk in chunks])[None])
    if plan.guidance is not None:
        # The second branch has neither speech nor ID; its audio attention adds zeros.
        speech = [FoldedSpeech.concatenate([part, part.silenced()]) for part in speech]
    while any(chunk.steps_done < target for chunk, target in zip(chunks, targets, strict=True)):
        velocities = _velocities(chunks, speech, plan, memory)
        moving = zip(chunks, velocities, targets, strict=True)
        chunks = [_moved(chunk, velocity_THWC, target, plan) for chunk, velocity_THWC, target in moving]
    return chunks


def _velocities(
    chunks: Sequence[MovingChunk], speech: Sequence[FoldedSpeech], plan: SamplingPlan, memory: ClipMemory
) -> Sequence[torch.Tensor]:
    """The guided velocity of each chunk, from one pass over all of them."""
    latents_THWC = torch.cat([chunk.latents_THWC for chunk in chunks])
    steps_1N = torch.tensor([[chunk.steps_done for chunk in chunks]], device=latents_THWC.device)
    frames = plan.transformer.chunk_latent_frames
    modulation = plan.modulation.select(steps_1N.repeat_interleave(frames, dim=1))
    latents_RTHWC = latents_THWC.expand(plan.settings.branches, -1, -1, -1, -1)
    velocities_RTHWC = plan.runner.velocities(ForwardPass(latents_RTHWC, modulation, memory, speech, plan.text))
    guided_THWC = velocities_RTHWC[0] if plan.guidance is None else plan.guidance(*velocities_RTHWC)
    velocities: Sequence[torch.Tensor] = guided_THWC.split(frames)
    return velocities


def _moved(chunk: MovingChunk, velocity_THWC: torch.Tensor, target: int, plan: SamplingPlan) -> MovingChunk:
    if chunk.steps_done == target:
        return chunk
    time, next_time = plan.schedule.times[chunk.steps_done : chunk.steps_done + 2]
    latents_THWC = euler_step(chunk.latents_THWC, velocity_THWC, time, next_time)
    return MovingChunk(latents_THWC, chunk.speech_TWD, chunk.steps_done + 1)


def _clip_memory(portrait_latent_THWC: torch.Tensor, plan: SamplingPlan) -> ClipMemory:
    sinks = [compute_sink(portrait_latent_THWC, plan)]
    if plan.guidance is not None:
        sinks.append(plan.no_id_sink)
    transformer = plan.transformer
    rows, columns, _ = plan.latent_shape
    frames, device = CLIP_CHUNKS * transformer.chunk_latent_frames, transformer.proj_in.weight.device
    return ClipMemory.of_sinks(sinks, clip_rotation(frames, rows, columns, transformer.width, device))


def _entering(speech_TWD: torch.Tensor, seed: int, index: int, plan: SamplingPlan) -> MovingChunk:
    check_speech(speech_TWD, plan)
    weight = plan.transformer.proj_in.weight
    noise_THWC = chunk_noise(seed, index, plan.chunk_shape)
    return MovingChunk(noise_THWC.to(weight.device, weight.dtype), speech_TWD.to(weight.device, weight.dtype), 0)
