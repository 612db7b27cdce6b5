"""The whole way in one process: speech and a portrait in, a talking picture out, chunk by chunk.

`RestPipeline` is the paper's Algorithm 1; READ's is in `visavis.models.read_pipeline`. For notebooks, and as the
reference that the services must equal. Diffusers pipelines: `save_pretrained` writes a model folder, `from_pretrained`
reads it.

Legend: S samples at 16 kHz, F video frames, T latent frames, H W rows and columns, C latent channels, W speech tokens
of a latent frame, D speech channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image

from visavis.contract import CHUNK_FRAMES, CHUNK_SAMPLES, FRAME_RATE, LOOKAHEAD_SAMPLES, SAMPLE_RATE_HZ
from visavis.models import checkpoints
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.flow_matching import pinned_scheduler
from visavis.models.generation import SamplingPlan, SamplingSettings, begin_session, generate_chunk, prepare_sampling
from visavis.models.presets import Preset
from visavis.models.shipped_weights import REST_PARTS, ShippedPart
from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.whisper import WhisperFeatures

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StreamedChunk:
    """One chunk on its way out. Latents are on the model's device, in the dtype of the part that made them."""

    # The first is 1.
    chunk_index: int
    speech_latents_TWD: torch.Tensor
    # Normalised.
    video_latents_THWC: torch.Tensor
    # uint8 RGB, [24, H, W, 3].
    pictures_FHW3: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TalkingClip:
    """A whole clip at 25 frames per second; frame 0, the portrait, is not in it."""

    # uint8 RGB: every frame that begins before the speech ends.
    pictures_FHW3: npt.NDArray[np.uint8]
    # Of whole chunks, so they may reach beyond the last picture.
    video_latents_THWC: torch.Tensor
    speech_latents_TWD: torch.Tensor


class TalkingPipeline(DiffusionPipeline):
    """From 16 kHz speech to pictures; a subclass says how video latents are generated in between."""

    # So many are generated side by side; shorter speech is filled up with silence.
    chunks_at_once = 1

    def __init__(
        self,
        transformer: A2VTransformer,
        vae: VideoAutoencoder,
        speech_ae: SpeechAE,
        whisper: WhisperFeatures,
        scheduler: FlowMatchEulerDiscreteScheduler,
        model_name: str = "custom",
        picture_size: int = 256,
        steps: int = 8,
        guidance_scale: float = 6.0,
        cache_source: str = "clean",
        random_weights: bool = False,
    ) -> None:
        super().__init__()
        parts = {"transformer": transformer, "vae": vae, "speech_ae": speech_ae, "whisper": whisper}
        self.register_modules(**parts, scheduler=scheduler)  # type: ignore[no-untyped-call]
        self.register_to_config(  # type: ignore[no-untyped-call]
            model_name=model_name,
            picture_size=picture_size,
            steps=steps,
            guidance_scale=guidance_scale,
            cache_source=cache_source,
            random_weights=random_weights,
        )
        for part in parts.values():
            part.eval().requires_grad_(False)

    @classmethod
    def from_preset(cls, name: str, device: str = "auto", dtype: str = "auto", sampling: str = "standard") -> Self:
        """The model of a preset, with the same weights that a stage loads by that name.

        Arguments and errors are those of `visavis.models.checkpoints.load_part`.
        """
        return cls._load(name, device, dtype, sampling)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, device: str = "auto", dtype: str = "auto", sampling: str = "standard"
    ) -> Self:
        """The model in a folder that `save_pretrained` or `visavis import-ltx` wrote.

        Not diffusers' own loader, which can load no component that is defined outside of diffusers and transformers
        unless its module happens to import the right names. Arguments and errors are those of
        `visavis.models.checkpoints.load_part`.
        """
        return cls._load(str(folder), device, dtype, sampling)

    @classmethod
    def _load(cls, model: str, device: str, dtype: str, sampling: str) -> Self:
        settings, folder = checkpoints.read_settings(model, cls.__name__)
        speech_ae, *others = cls.shipped_parts(settings.name)
        place = checkpoints.resolve_device(device)
        precision = checkpoints.resolve_dtype(dtype, place)
        transformer, settings = cls.load_transformer(settings, folder, precision, sampling)
        checkpoints.placed(transformer, place, precision)
        checkpoints.fuse(transformer, settings, dtype, cls.chunks_at_once)
        return cls(
            transformer,
            checkpoints.placed(checkpoints.load_vae(settings, folder, precision), place, precision),
            checkpoints.placed(checkpoints.load_speech_ae(settings, folder, speech_ae), place, torch.float32),
            checkpoints.placed(checkpoints.load_whisper(settings, folder), place, torch.float32),
            pinned_scheduler(settings.sampling.shift),
            model_name=settings.name,
            picture_size=settings.picture_size,
            steps=settings.sampling.steps,
            guidance_scale=settings.sampling.guidance_scale,
            cache_source=settings.sampling.cache_source,
            random_weights=checkpoints.has_random_weights(settings, folder, (speech_ae, *others)),
        )

    @classmethod
    @abstractmethod
    def shipped_parts(cls, preset: str) -> tuple[ShippedPart, ...]:
        """The trained parts of a preset that this pipeline takes, the SpeechAE first."""

    @classmethod
    @abstractmethod
    def load_transformer(
        cls, settings: Preset, folder: Path | None, dtype: torch.dtype, sampling: str
    ) -> tuple[A2VTransformer, Preset]:
        """The transformer, on the CPU, and the settings with the way in which it samples.

        Raises `ValueError` for a `sampling` that there is not.
        """

    @abstractmethod
    def generate(
        self, speech_latents: Iterator[torch.Tensor], portrait_latent_THWC: torch.Tensor, seed: int, plan: SamplingPlan
    ) -> Iterator[torch.Tensor]:
        """Video latents `[3, H, W, C]` (normalised) of each chunk of speech `[3, W, D]`, in order."""

    @property
    def sampling(self) -> SamplingSettings:
        """The model's own sampling settings."""
        return SamplingSettings(
            steps=self.config["steps"],
            shift=self.scheduler.config["shift"],
            guidance_scale=self.config["guidance_scale"],
            cache_source=self.config["cache_source"],
        )

    def __call__(
        self,
        portrait: Image.Image | npt.NDArray[np.uint8],
        speech_S: Samples,
        seed: int = 0,
        sampling: SamplingSettings | None = None,
    ) -> TalkingClip:
        """Renders a whole clip: `speech_S` is 16 kHz mono float32, `portrait` an RGB picture of any size.

        The clip equals what `stream` yields for the same speech. Raises `ValueError` for speech that is empty or not
        finite float32, or a portrait that is no RGB picture.
        """
        speech_S = _checked_samples(speech_S)
        if not len(speech_S):
            raise ValueError("the speech is empty")
        chunks = list(self.stream(portrait, [speech_S], seed, sampling))
        pictures_FHW3 = np.concatenate([chunk.pictures_FHW3 for chunk in chunks])
        return TalkingClip(
            pictures_FHW3[: -(-len(speech_S) // SAMPLES_PER_FRAME)],
            torch.cat([chunk.video_latents_THWC for chunk in chunks]),
            torch.cat([chunk.speech_latents_TWD for chunk in chunks]),
        )

    def stream(
        self,
        portrait: Image.Image | npt.NDArray[np.uint8],
        speech: Iterable[Samples],
        seed: int = 0,
        sampling: SamplingSettings | None = None,
    ) -> Iterator[StreamedChunk]:
        """Renders while speech arrives: pieces of 16 kHz mono float32 of any length, whose end is the end of the
        speech.

        A chunk is yielded as soon as its 15,360 samples and the 1,280 that follow are there, and those of the chunks
        that are generated beside it; the last one is filled up with silence. Errors are those of `__call__`; speech is
        checked piece by piece.
        """
        plan = self.plan(sampling)
        portrait_latent_BTHWC = self.encode_portrait(portrait)
        decoder_state = self.vae.initial_decoder_state(portrait_latent_BTHWC, seed)
        heard: deque[torch.Tensor] = deque()
        speech_latents = self._listen(speech, heard)
        generated = self.generate(speech_latents, portrait_latent_BTHWC[0], seed, plan)
        for chunk_index, video_latents_THWC in enumerate(generated, start=1):
            if not heard:
                return  # what comes now is the silence that short speech was filled up with
            latents_BTHWC = video_latents_THWC.to(self.vae.device, self.vae.dtype)[None]
            pictures_BF3HW, decoder_state = self.vae.decode_chunk(latents_BTHWC, decoder_state)
            yield StreamedChunk(chunk_index, heard.popleft(), video_latents_THWC, to_pixels(pictures_BF3HW[0]))

    def _listen(self, speech: Iterable[Samples], heard: deque[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Speech latents of each chunk, which are also left in `heard`; then of silence up to `chunks_at_once`."""
        encoder = SpeechEncoder(self.whisper, self.speech_ae)
        state = encoder.initial_state()
        chunks = 0
        for samples_S, lookahead_S in cut_chunks(speech):
            latents_TWD, state = encoder.encode_chunk(samples_S, lookahead_S, state)
            heard.append(latents_TWD)
            chunks += 1
            yield latents_TWD
        silence_S = torch.zeros(CHUNK_SAMPLES)
        for _ in range(chunks, self.chunks_at_once if chunks else 0):
            latents_TWD, state = encoder.encode_chunk(silence_S, silence_S[:LOOKAHEAD_SAMPLES], state)
            yield latents_TWD

    def plan(self, sampling: SamplingSettings | None = None) -> SamplingPlan:
        """What sessions with these settings (by default the model's own) share."""
        sampling = sampling or self.sampling
        rows = self.config["picture_size"] // self.vae.spatial_compression_ratio
        branches = sampling.branches
        self.transformer.fuse(branches * self.chunks_at_once * self.transformer.chunk_latent_frames * rows * rows)
        return prepare_sampling(self.transformer, sampling, rows, rows)

    def encode_portrait(self, portrait: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        """The ID latent `[1, 1, H, W, C]` (normalised) of an RGB picture, centre-cropped to a square and resized."""
        picture_HW3 = prepare_portrait(portrait, self.config["picture_size"])
        picture_3HW = torch.from_numpy(picture_HW3).permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1.0)
        latent_BTHWC: torch.Tensor = self.vae.encode_image(picture_3HW[None].to(self.vae.device, self.vae.dtype))
        return latent_BTHWC


class RestPipeline(TalkingPipeline):
    """REST: streaming, one chunk after the other (paper Algorithm 1)."""

    @classmethod
    def shipped_parts(cls, preset: str) -> tuple[ShippedPart, ...]:
        """Implements `TalkingPipeline`."""
        return REST_PARTS

    @classmethod
    def load_transformer(
        cls, settings: Preset, folder: Path | None, dtype: torch.dtype, sampling: str
    ) -> tuple[A2VTransformer, Preset]:
        """Implements `TalkingPipeline`."""
        transformer, settings, _ = checkpoints.load_sampler(settings, folder, dtype, sampling)
        return transformer, settings

    def generate(
        self, speech_latents: Iterator[torch.Tensor], portrait_latent_THWC: torch.Tensor, seed: int, plan: SamplingPlan
    ) -> Iterator[torch.Tensor]:
        """Implements `TalkingPipeline`: a chunk comes before the next one's speech is asked for."""
        state = begin_session(plan.transformer, portrait_latent_THWC, seed, plan.settings, plan=plan)
        for speech_latents_TWD in speech_latents:
            video_latents_THWC, state = generate_chunk(speech_latents_TWD, state)
            yield video_latents_THWC


def prepare_portrait(portrait: Image.Image | npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Centre-crops to a square and resizes: uint8 RGB `[size, size, 3]`. Raises `ValueError` for no RGB picture."""
    if isinstance(portrait, np.ndarray):
        if portrait.dtype != np.uint8 or portrait.ndim != 3 or portrait.shape[2] != 3 or 0 in portrait.shape:
            raise ValueError(f"a portrait array must be uint8 [H, W, 3], got {portrait.dtype} {portrait.shape}")
        portrait = Image.fromarray(portrait)
    side = min(portrait.size)
    left, top = (portrait.width - side) // 2, (portrait.height - side) // 2
    square = portrait.crop((left, top, left + side, top + side)).convert("RGB")
    return np.array(square.resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)


def to_pixels(pictures_F3HW: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Pictures in [-1, 1] as 8-bit RGB `[F, H, W, 3]`."""
    pixels_F3HW = pictures_F3HW.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    pixels_FHW3: npt.NDArray[np.uint8] = pixels_F3HW.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels_FHW3


def cut_chunks(speech: Iterable[Samples]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Cuts arriving speech into chunks of 15,360 samples, each with up to 1,280 that follow."""
    waiting_S = np.zeros(0, np.float32)
    for piece_S in speech:
        waiting_S = np.concatenate([waiting_S, _checked_samples(piece_S)])
        while len(waiting_S) >= CHUNK_SAMPLES + LOOKAHEAD_SAMPLES:
            yield _chunk(waiting_S)
            waiting_S = waiting_S[CHUNK_SAMPLES:]
    while len(waiting_S):
        yield _chunk(waiting_S)
        waiting_S = waiting_S[CHUNK_SAMPLES:]


def _chunk(waiting_S: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    samples_S = np.zeros(CHUNK_SAMPLES, np.float32)
    samples_S[: min(len(waiting_S), CHUNK_SAMPLES)] = waiting_S[:CHUNK_SAMPLES]
    lookahead_S = waiting_S[CHUNK_SAMPLES : CHUNK_SAMPLES + LOOKAHEAD_SAMPLES].copy()
    return torch.from_numpy(samples_S), torch.from_numpy(lookahead_S)


def _checked_samples(samples_S: Any) -> Samples:
    if not isinstance(samples_S, np.ndarray) or samples_S.dtype != np.float32 or samples_S.ndim != 1:
        raise ValueError("speech must be a one-dimensional float32 numpy array of 16 kHz samples")
    if not np.isfinite(samples_S).all():
        raise ValueError("speech must be finite: it holds NaN or infinity")
    return samples_S


assert CHUNK_FRAMES * SAMPLES_PER_FRAME == CHUNK_SAMPLES
