"""How well a small diffusion transformer learns on a VAE's latents: what decides between VAEs besides their sharpness.

A VAE can be sharp with latents that nobody can predict. So a small A2V-DiT, the same for every VAE, learns 2,000 steps;
then it cleans noisy latents of held-out people in one step, and what it made is decoded and compared in pixels, where
all VAEs mean the same. It is told the face's actions instead of speech: only the VAE is on trial.

B batch, I chunks, T latent frames (of a chunk, or of a clip with its portrait), H W latent rows and columns, C latent
channels, W = 2 tokens of A channels for each latent frame
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.estimate import mean_over_clips
from visavis.evaluation.picture_quality import psnr
from visavis.evaluation.report import Measure
from visavis.evaluation.video_vae import as_frames, as_pictures, as_video, finite_mean
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.flow_matching import add_noise
from visavis.models.sequence import forward_sequence
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.clips import Clip
from visavis.training.plan import Cadence, Phase, Plan
from visavis.training.task import ParameterGroup

CHUNK_LATENTS = 3
TOKENS = 2
# Shares of noise at which held-out latents are cleaned.
JUDGED_TIMES = (0.5, 0.8)
_GLIMPSED_CLIPS = 2
_FRAMES_A_LATENT = 8
_HEAD_CHANNELS = 64
_TIMESTEPS = 1_000.0


@dataclass(frozen=True, slots=True)
class ProbeSize:
    """Of the transformer and of its training. `chunks` in a row of each of `batch` clips."""

    heads: int
    layers: int
    steps: int
    batch: int
    chunks: int
    learning_rate: float


SMALL = ProbeSize(heads=4, layers=4, steps=2_000, batch=4, chunks=2, learning_rate=1e-3)


@dataclass(frozen=True, slots=True)
class LatentClip:
    """A clip of 8k + 1 frames: latents [1 + 3 I, H, W, C] and, for all but the portrait, the actions [3 I, 2, A]."""

    latents_THWC: Tensor
    actions_TWA: Tensor


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """What the transformer sees: [B, H, W, C], [B, I, 3, H, W, C] twice, [B, I] from 0 to 1, [B, I, 3, 2, A]."""

    portrait: Tensor
    clean: Tensor
    noise: Tensor
    times: Tensor
    actions: Tensor


class CleaningNetwork(nn.Module):
    """The transformer with `forward_sequence` as its forward pass."""

    def __init__(self, channels: int, action_channels: int, size: ProbeSize) -> None:
        super().__init__()
        self.transformer = A2VTransformer(
            in_channels=channels,
            out_channels=channels,
            num_attention_heads=size.heads,
            attention_head_dim=_HEAD_CHANNELS,
            num_layers=size.layers,
            audio_channels=action_channels,
            prompt_tokens=0,
            chunk_latent_frames=CHUNK_LATENTS,
        )

    def forward(self, batch: LatentBatch) -> Tensor:
        """Velocities [B, I, 3, H, W, C], each chunk after the clean one before it."""
        noisy = add_noise(batch.clean, batch.noise, _over_latents(batch.times))
        return forward_sequence(
            self.transformer,
            batch.portrait,
            noisy,
            batch.times * _TIMESTEPS,
            batch.actions,
            clean_latents_BITHWC=batch.clean,
        )


class LatentProbe:
    """Fits `visavis.training.task.Task`."""

    def __init__(
        self, training: Sequence[LatentClip], held_out: Sequence[Clip], vae: VideoAutoencoder, size: ProbeSize
    ) -> None:
        first = training[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._network = CleaningNetwork(first.latents_THWC.shape[-1], first.actions_TWA.shape[-1], size)
        self._training, self._held_out = training, held_out
        self._vae, self._size = vae, size

    @property
    def model(self) -> CleaningNetwork:
        return self._network

    def enter_phase(self, phase: Phase) -> None:
        """Nothing changes."""

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        return [ParameterGroup(list(self._network.parameters()))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> LatentBatch:
        """Chunks in a row of random clips, each chunk with a noise of its own."""
        drawn = []
        for index in chance.integers(len(self._training), size=self._size.batch):
            clip = self._training[int(index)]
            chunks = len(clip.actions_TWA) // CHUNK_LATENTS
            start = int(chance.integers(chunks - self._size.chunks + 1))
            drawn.append(_some_chunks(clip, start, self._size.chunks, chance))
        return LatentBatch(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))

    def loss(self, forward: nn.Module, batch: LatentBatch, device: torch.device) -> Mapping[str, Tensor]:
        """The mean square error of the velocity (paper Eq. 17)."""
        velocity = forward(_on(batch, device))
        return {"loss": functional.mse_loss(velocity.float(), (batch.noise - batch.clean).to(device))}

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """The judgement's means over the first clips."""
        assert isinstance(averaged, CleaningNetwork)
        judged = self._judge(averaged, self._held_out[:_GLIMPSED_CLIPS])
        return {name: float(np.mean(values)) for name, values in judged.items()}

    def results(self, network: CleaningNetwork) -> list[Measure]:
        """The judgement with its intervals."""
        return [Measure(name, mean_over_clips(values)) for name, values in self._judge(network, self._held_out).items()]

    @torch.no_grad()
    def _judge(self, network: CleaningNetwork, clips: Sequence[Clip]) -> dict[str, list[float]]:
        """By measure, a value for each clip: PSNR of what was cleaned and decoded, and of what had no noise."""
        decibels: dict[str, list[float]] = {}
        for number, clip in enumerate(clips):
            latent = latent_clip(clip, self._vae)
            chunks = len(latent.actions_TWA) // CHUNK_LATENTS
            parts = LatentBatch(*_some_chunks(latent, 0, chunks, np.random.default_rng(number)))
            cleaned = {"decoded": parts.clean}
            for time in JUDGED_TIMES:
                batch = replace(parts, times=torch.full((1, chunks), time))
                noisy = add_noise(batch.clean, batch.noise, _over_latents(batch.times))
                cleaned[f"cleaned_{time:g}"] = noisy - time * network(_on(batch, network.transformer.device)).cpu()
            for name, latents in cleaned.items():
                for region, value in self._compare(clip, latent.latents_THWC[:1], latents).items():
                    decibels.setdefault(f"{name}_psnr_{region}_db", []).append(value)
        return decibels

    def _compare(self, clip: Clip, portrait_THWC: Tensor, latents_1ITHWC: Tensor) -> dict[str, float]:
        whole = torch.cat([portrait_THWC, latents_1ITHWC[0].flatten(0, 1)])[None]
        decoded = as_pictures(as_frames(self._vae.decode(whole)))[1:]
        original = as_pictures(clip.frames_FHW3)[1 : len(decoded) + 1]
        mouth = torch.from_numpy(clip.mask("mouth", *original.shape[2:]))[1 : len(decoded) + 1]
        return {"frame": finite_mean(psnr(original, decoded)), "mouth": finite_mean(psnr(original, decoded, mouth))}


@torch.no_grad()
def latent_clip(clip: Clip, vae: VideoAutoencoder) -> LatentClip:
    """Encodes a clip; what is more than whole chunks is left out. Raises ValueError for less than one chunk."""
    latents_THWC = vae.encode(as_video(clip.frames_FHW3))[0]
    latents = (len(latents_THWC) - 1) // CHUNK_LATENTS * CHUNK_LATENTS
    if latents == 0:
        raise ValueError(f"clip {clip.key} is shorter than a chunk")
    actions_FA = torch.from_numpy(np.asarray(clip.curves_FA[1 : _FRAMES_A_LATENT * latents + 1], dtype=np.float32))
    actions_TWA = actions_FA.unflatten(0, (latents, TOKENS, -1)).flatten(2)
    return LatentClip(latents_THWC[: latents + 1], actions_TWA)


def probe_plan(size: ProbeSize, vae_fingerprint: str, clips: int) -> Plan:
    """The training of the probe on so many clips; everything that decides it is in its fingerprint."""
    phase = Phase(
        name="probe",
        steps=size.steps,
        minutes=None,
        learning_rate=size.learning_rate,
        warmup_steps=min(100, size.steps),
        accumulation=1,
        gradient_checkpointing=False,
        options={"heads": size.heads, "layers": size.layers, "batch": size.batch, "chunks": size.chunks},
    )
    never = float(1 << 20)
    about = {"vae": vae_fingerprint, "clips": clips}
    return Plan("latents", "mini", 0, 0.99, Cadence(checkpoint=5.0, evaluation=never), about, (phase,))


def _some_chunks(
    clip: LatentClip, start: int, chunks: int, chance: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Portrait, clean, noise, times, actions of one clip, each with a batch of 1 before it."""
    first, last = CHUNK_LATENTS * start, CHUNK_LATENTS * (start + chunks)
    clean = clip.latents_THWC[1 + first : 1 + last].unflatten(0, (chunks, CHUNK_LATENTS))
    noise = torch.from_numpy(chance.standard_normal(clean.shape, dtype=np.float32))
    times = torch.from_numpy(chance.random(chunks, dtype=np.float32))
    actions = clip.actions_TWA[first:last].unflatten(0, (chunks, CHUNK_LATENTS))
    return clip.latents_THWC[:1], clean[None], noise[None], times[None], actions[None]


def _on(batch: LatentBatch, device: torch.device) -> LatentBatch:
    parts = (batch.portrait, batch.clean, batch.noise, batch.times, batch.actions)
    return LatentBatch(*(part.to(device) for part in parts))


def _over_latents(times_BI: Tensor) -> Tensor:
    return times_BI[:, :, None, None, None, None]
