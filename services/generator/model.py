"""The transformer as the generator uses it: contract tensors in and out, one sampling plan, sinks kept per avatar.

Legend: T latent frames, H W latent rows and columns, C latent channels, W speech tokens of a latent frame, D width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

import torch

from services.generator.sink_cache import SinkCache, sink_key
from services.pass_times import PassTimes, measure_pass_times
from services.replay import most_replayed
from services.tensor_checks import checked_tensor
from visavis.contract import CHUNK_LATENT_FRAMES
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.execution import Execution
from visavis.models.generation import (
    ChunkInProgress,
    GenerationState,
    SamplingSettings,
    begin_session,
    compute_sink,
    denoise_step,
    generate_chunk,
    prepare_sampling,
)
from visavis.models.step_runner import step_runner
from visavis.v1 import generator_pb2, tensor_pb2

SPEECH_TOKENS: Final = 2


class GeneratorModel:
    """A loaded transformer at one latent size."""

    def __init__(
        self,
        transformer: A2VTransformer,
        sampling: SamplingSettings,
        rows: int,
        columns: int,
        *,
        sink_capacity: int,
        execution: Execution,
        max_batch: int,
    ) -> None:
        """`rows` and `columns` are those of a latent frame; the sinks of `sink_capacity` avatars are kept.

        At most `max_batch` sessions share a pass. Raises ValueError for an execution that this device has not.
        """
        branches = sampling.branches
        runner = step_runner(transformer, execution, range(branches, branches * max_batch + 1, branches))
        with torch.inference_mode():
            self._plan = prepare_sampling(transformer, sampling, rows, columns, runner=runner)
        self._sinks = SinkCache(sink_capacity)
        # Of keys, and of values, of a context; known once the model is warm.
        self.context_shape: tuple[int, ...] = ()
        self._speech_shape = (CHUNK_LATENT_FRAMES, SPEECH_TOKENS, int(transformer.config["audio_channels"]))

    @torch.inference_mode()
    def begin(self, config: generator_pb2.GenerateConfig) -> GenerationState:
        """Returns a session's state before its first chunk; raises InvalidInput for a portrait latent that is none."""
        portrait_THWC = checked_tensor(config.portrait_latent, (1, *self._plan.latent_shape), "config.portrait_latent")
        key = sink_key(config.avatar_id, config.portrait_latent)
        sink = self._sinks.get(key, lambda: compute_sink(portrait_THWC, self._plan))
        return begin_session(
            self._plan.transformer, portrait_THWC, config.seed, self._plan.settings, plan=self._plan, sink=sink
        )

    @property
    def sink_bytes(self) -> int:
        """Memory of the kept sinks."""
        return self._sinks.byte_count

    def read_speech(self, latents: tensor_pb2.Tensor, field: str = "speech.latents") -> torch.Tensor:
        """Returns a chunk's speech latents `[3, 2, D]`; raises InvalidInput for any others."""
        return checked_tensor(latents, self._speech_shape, field)

    def read_video(self, latents: tensor_pb2.Tensor, field: str) -> torch.Tensor:
        """Returns a chunk's video latents `[3, H, W, C]`; raises InvalidInput for any others."""
        return checked_tensor(latents, self._plan.chunk_shape, field)

    @torch.inference_mode()
    def begin_chunk(self, speech_TWD: torch.Tensor, state: GenerationState) -> ChunkInProgress:
        """Returns the chunk that follows `state`, all noise."""
        return ChunkInProgress(speech_TWD, state)

    @torch.inference_mode()
    def begin_replay(
        self, speech_TWD: torch.Tensor, video_THWC: torch.Tensor, state: GenerationState
    ) -> ChunkInProgress:
        """Returns the chunk that follows `state` and was generated before: only its context is to be made again."""
        return ChunkInProgress(speech_TWD, state, replayed_latents_THWC=video_THWC)

    @property
    def context_bytes(self) -> int:
        """Size of the context of one border."""
        return 2 * math.prod(self.context_shape) * self.dtype.itemsize

    @property
    def avatar_bytes(self) -> int:
        """What an avatar's sink has on the device."""
        sink = self._warm.sink
        return sink.keys_LND.nbytes + sink.values_LND.nbytes

    @property
    def session_bytes(self) -> int:
        """What a session has on the device beside its borders: the window of its chunk, and the context being made."""
        chunk_tokens, sink_tokens = (
            len(part) for part in (self._plan.rotations.current_NP, self._plan.rotations.sink_NP)
        )
        window_bytes = self.context_bytes * (2 * chunk_tokens + sink_tokens) // chunk_tokens
        return window_bytes + self.context_bytes

    @property
    def passes(self) -> int:
        """Forward passes a chunk takes."""
        return self._plan.passes

    @property
    def replay_chunks(self) -> int:
        """Chunks that make a rebuilt context equal the lost one, as far as a rewind with them is a regular message."""
        values = math.prod(self._plan.chunk_shape) + math.prod(self._speech_shape)
        return most_replayed(self._plan.replay_chunks, values * self.dtype.itemsize)

    @property
    def dtype(self) -> torch.dtype:
        """In which the transformer computes."""
        return self._plan.transformer.proj_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self._plan.transformer.proj_in.weight.device

    @torch.inference_mode()
    def advance(self, chunks: Sequence[ChunkInProgress]) -> None:
        """Runs one forward pass over all of these, each at its own time."""
        denoise_step(chunks)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs two chunks, without and with context, at real shapes; the second has all graphs captured."""
        weight = self._plan.transformer.proj_in.weight
        portrait_THWC = weight.new_zeros(1, *self._plan.latent_shape)
        state = begin_session(self._plan.transformer, portrait_THWC, 0, self._plan.settings, plan=self._plan)
        for _ in range(2):
            _, state = generate_chunk(torch.zeros(self._speech_shape), state)
        assert state.context is not None
        self.context_shape = tuple(state.context.keys_LRND.shape)
        self._warm = state

    @torch.inference_mode()
    def measure(self, most: int, budget_seconds: float) -> tuple[PassTimes, float]:
        """Seconds of a pass by the sessions in it, up to `most`, and of what a chunk takes before its first pass."""
        chunks: list[ChunkInProgress] = []

        def run_pass(sessions: int) -> None:
            denoise_step(chunks[:sessions])
            self._finish()

        def renew(sessions: int) -> None:
            chunks[:] = [self._warm_chunk() for _ in range(sessions)]
            self._finish()

        times = measure_pass_times(run_pass, most, budget_seconds=budget_seconds, prepare=renew)
        start_seconds = time.perf_counter()
        renew(1)
        return times, time.perf_counter() - start_seconds

    def _warm_chunk(self) -> ChunkInProgress:
        # On the host, from where speech comes.
        return ChunkInProgress(torch.zeros(self._speech_shape), self._warm)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
