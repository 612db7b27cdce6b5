"""Generates the bundled sentence in float32 and in another precision, side by side.

Legend: T latent frames, W speech tokens, D speech channels, H W rows and columns, C latent channels, F frames.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from visavis.bench.bundled import bundled_portrait
from visavis.bench.in_process import at_model_rate
from visavis.bench.precision_result import ChunkDifference
from visavis.contract import CHUNK_SECONDS
from visavis.evaluation.picture_quality import psnr
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_part
from visavis.models.generation import GenerationState, SamplingPlan, begin_session, generate_chunk, prepare_sampling
from visavis.models.id_context import Context
from visavis.models.pipeline import RestPipeline, cut_chunks
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.video_stream import DecoderState


class Clock:
    """Processor seconds of this process, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, speech_TWD: torch.Tensor, state: GenerationState) -> tuple[torch.Tensor, GenerationState]:
        """Generates a chunk and adds what it took."""
        begin = time.process_time()
        result = generate_chunk(speech_TWD, state)
        self.seconds += time.process_time() - begin
        return result


class PrecisionChains:
    """One session in float32 and the same session in another precision, on the CPU."""

    def __init__(self, model: str, precision: str) -> None:
        """Raises ValueError for a model or a precision that there is not."""
        self._pipeline = RestPipeline.from_preset(model, "cpu", "float32")
        transformer = load_part(model, "transformer", "cpu", precision).module
        assert isinstance(transformer, A2VTransformer)
        self._exact = self._pipeline.plan()
        rows, columns, _ = self._exact.latent_shape
        self._rounded = prepare_sampling(transformer, self._exact.settings, rows, columns)
        self.random_weights: bool = self._pipeline.config["random_weights"]
        self.exact_clock, self.rounded_clock = Clock(), Clock()

    @torch.inference_mode()
    def run(self, chunks: int, say: Callable[[str], None]) -> list[ChunkDifference]:
        """Chunk by chunk."""
        found = []
        portrait_THWC = self._portrait()
        exact, rounded = (_begin(plan, portrait_THWC) for plan in (self._exact, self._rounded))
        decoder = self._pipeline.vae.initial_decoder_state(portrait_THWC[None], 0)
        drifted_decoder = decoder
        for index, speech_TWD in enumerate(self._speech(chunks), start=1):
            say(f"chunk {index} of {chunks}")
            # Float32's past in the other's type: what is left is the rounding of this chunk.
            stepped_THWC, _ = generate_chunk(speech_TWD, _with_past(rounded, exact))
            expected_THWC, exact = self.exact_clock.time(speech_TWD, exact)
            drifted_THWC, rounded = self.rounded_clock.time(speech_TWD, rounded)
            stepped_pictures, _ = self._decode(stepped_THWC, decoder)
            expected_pictures, decoder = self._decode(expected_THWC, decoder)
            drifted_pictures, drifted_decoder = self._decode(drifted_THWC, drifted_decoder)
            difference = ChunkDifference(
                chunk_index=index,
                step_error=_relative_error(stepped_THWC, expected_THWC),
                step_psnr=float(psnr(expected_pictures, stepped_pictures).mean()),
                drift_error=_relative_error(drifted_THWC, expected_THWC),
                drift_psnr=float(psnr(expected_pictures, drifted_pictures).mean()),
            )
            found.append(difference)
        return found

    def _portrait(self) -> torch.Tensor:
        picture = Image.open(io.BytesIO(bundled_portrait())).convert("RGB")
        portrait_THWC: torch.Tensor = self._pipeline.encode_portrait(picture)[0]
        return portrait_THWC

    def _speech(self, chunks: int) -> Iterator[torch.Tensor]:
        encoder = SpeechEncoder(self._pipeline.whisper, self._pipeline.speech_ae)
        state = encoder.initial_state()
        samples_S = at_model_rate(chunks * CHUNK_SECONDS).astype(np.float32)
        for chunk_S, lookahead_S in cut_chunks([samples_S]):
            speech_TWD, state = encoder.encode_chunk(chunk_S, lookahead_S, state)
            yield speech_TWD

    def _decode(self, latents_THWC: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """Pictures from 0 to 1."""
        pictures_BF3HW, state = self._pipeline.vae.decode_chunk(latents_THWC[None].float(), state)
        return pictures_BF3HW[0].add(1).div(2).clamp(0, 1), state


def _begin(plan: SamplingPlan, portrait_THWC: torch.Tensor) -> GenerationState:
    return begin_session(plan.transformer, portrait_THWC, 0, plan.settings, plan=plan)


def _with_past(state: GenerationState, other: GenerationState) -> GenerationState:
    if other.context is None:
        return replace(state, context=None, chunk_index=other.chunk_index)
    dtype = state.sink.keys_LND.dtype
    context = Context(other.context.keys_LRND.to(dtype), other.context.values_LRND.to(dtype))
    return replace(state, context=context, chunk_index=other.chunk_index)


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.float() - expected.float()).norm() / expected.float().norm())
