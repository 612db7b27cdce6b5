"""Measures a video VAE on rendered clips: encoded whole, decoded chunk by chunk as in production.

F frames, H W picture, T latent frames
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visavis.contract import CHUNK_FRAMES
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.estimate import mean_over_clips
from visavis.evaluation.face_points import SignalMoments, correlation, landmark_error, lip_gaps, signal_moments
from visavis.evaluation.picture_quality import luma, psnr, ssim
from visavis.evaluation.report import Measure
from visavis.evaluation.seams import FrameChanges, frame_changes, seam
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.clips import Clip
from visavis.training.data.footage.detectors import FindsFaces

# Of latents whose channels have a deviation of 1.
NOISE_LEVELS = (0.05, 0.1, 0.2)
_NOISE_CLIPS = 6
_CHUNK_LATENTS = CHUNK_FRAMES // 8
# Portrait and two chunks: enough for a border, and for noise, which is the same everywhere.
_WHOLE_LATENTS = 1 + 2 * _CHUNK_LATENTS

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ReconstructedClip:
    """A clip and what is left of it after the VAE, [F, H, W, 3] both."""

    clip: Clip
    frames_FHW3: Pictures


@dataclass(slots=True)
class VideoVAEMeasures:
    """Collects clip by clip."""

    vae: VideoAutoencoder
    # None: landmarks are not measured
    faces: FindsFaces | None
    # looked at by `faces`, which takes longer than all else
    face_clips: int
    why_no_faces: str
    _psnr: list[float] = field(default_factory=list)
    _psnr_mouth: list[float] = field(default_factory=list)
    _psnr_eyes: list[float] = field(default_factory=list)
    _ssim: list[float] = field(default_factory=list)
    _changes: list[tuple[FrameChanges, FrameChanges]] = field(default_factory=list)
    _mouth_light: list[SignalMoments] = field(default_factory=list)
    _landmark_errors: list[float] = field(default_factory=list)
    _lip_gaps: list[SignalMoments] = field(default_factory=list)
    _noise_losses: dict[float, list[float]] = field(default_factory=dict)
    _chunked_differences: list[float] = field(default_factory=list)
    _faces_looked_at: int = 0

    @torch.no_grad()
    def add(self, clip: Clip) -> ReconstructedClip:
        """Measures one clip of 8k + 1 frames, two chunks at least."""
        latents = self.vae.encode(as_video(clip.frames_FHW3))
        decoded = decode_in_chunks(self.vae, latents)
        frames_FHW3 = as_frames(decoded)
        original, rebuilt = as_pictures(clip.frames_FHW3), as_pictures(frames_FHW3)
        height, width = clip.frames_FHW3.shape[1:3]
        mouth_FHW, eyes_FHW = (torch.from_numpy(clip.mask(name, height, width)) for name in ("mouth", "eyes"))
        sent = slice(1, None)  # frame 0 is the portrait, which no client gets
        self._psnr.append(finite_mean(psnr(original[sent], rebuilt[sent])))
        self._psnr_mouth.append(finite_mean(psnr(original[sent], rebuilt[sent], mouth_FHW[sent])))
        self._psnr_eyes.append(finite_mean(psnr(original[sent], rebuilt[sent], eyes_FHW[sent])))
        self._ssim.append(finite_mean(ssim(original[sent], rebuilt[sent])))
        self._changes.append((frame_changes(original), frame_changes(rebuilt)))
        light = [_light(pictures[sent], mouth_FHW[sent]) for pictures in (original, rebuilt)]
        self._mouth_light.append(signal_moments(*light))
        if len(self._psnr) <= _NOISE_CLIPS:
            self._add_whole_decodings(latents, decoded, original)
        self._add_faces(clip.frames_FHW3[sent], frames_FHW3[sent])
        return ReconstructedClip(clip, frames_FHW3)

    def results(self) -> list[Measure]:
        """Everything, in the order of a report. Raises EvaluationError for no clips."""
        if not self._psnr:
            raise EvaluationError("there is no clip to measure")
        faces = "" if self._landmark_errors else self.why_no_faces
        return [
            Measure("psnr_db", mean_over_clips(self._psnr), lowest=32.0),
            _region("psnr_mouth_db", self._psnr_mouth, lowest=29.0),
            _region("psnr_eyes_db", self._psnr_eyes, lowest=None),
            Measure("ssim", mean_over_clips(self._ssim)),
            Measure("seam_ratio", seam(*zip(*self._changes, strict=True)), lowest=0.9, highest=1.1),
            Measure("chunked_minus_whole", max(self._chunked_differences), highest=1e-3),
            *(
                Measure(f"psnr_lost_db_noise_{level:g}", mean_over_clips(losses))
                for level, losses in self._noise_losses.items()
            ),
            Measure("mouth_light_correlation", correlation(self._mouth_light)),
            Measure(
                "landmark_error_px",
                mean_over_clips(self._landmark_errors) if not faces else None,
                highest=1.5,
                why_not=faces,
            ),
            Measure(
                "lip_gap_correlation", correlation(self._lip_gaps) if not faces else None, lowest=0.97, why_not=faces
            ),
        ]

    def _add_whole_decodings(self, latents: Tensor, chunked: Tensor, original: Tensor) -> None:
        """Two chunks at once: must equal one after the other; and with noise on the latents, as a generator's have."""
        latents = latents[:, :_WHOLE_LATENTS]
        whole = self.vae.decode(latents)
        frames = whole.shape[1]
        original = original[:frames]
        self._chunked_differences.append(float((whole - chunked[:, :frames]).abs().max()))
        clean = finite_mean(psnr(original, as_pictures(as_frames(whole))))
        generator = torch.Generator().manual_seed(len(self._psnr))
        noise = torch.randn(latents.shape, generator=generator)
        for level in NOISE_LEVELS:
            noisy = finite_mean(psnr(original, as_pictures(as_frames(self.vae.decode(latents + level * noise)))))
            self._noise_losses.setdefault(level, []).append(clean - noisy)

    def _add_faces(self, original: Pictures, rebuilt: Pictures) -> None:
        if self.faces is None or self._faces_looked_at == self.face_clips:
            return
        self._faces_looked_at += 1
        faces, other = self.faces.faces(original), self.faces.faces(rebuilt)
        error = landmark_error(faces, other)
        if math.isnan(error):
            self.why_no_faces = "no face was found"
            return
        self._landmark_errors.append(error)
        self._lip_gaps.append(lip_gaps(faces, other))


def _region(name: str, decibels: list[float], lowest: float | None) -> Measure:
    """Of the clips that show the region."""
    seen = [value for value in decibels if math.isfinite(value)]
    return Measure(name, mean_over_clips(seen) if seen else None, lowest=lowest, why_not="no clip shows it")


def decode_in_chunks(vae: VideoAutoencoder, latents_BTHWC: Tensor) -> Tensor:
    """Decodes as the decoder service does: frame 0, then chunk after chunk, [1, F, 3, H, W] from -1 to 1."""
    state = vae.initial_decoder_state(latents_BTHWC[:, :1], seed=0)
    parts = [vae.decode(latents_BTHWC[:, :1])]
    for start in range(1, latents_BTHWC.shape[1], _CHUNK_LATENTS):
        pictures, state = vae.decode_chunk(latents_BTHWC[:, start : start + _CHUNK_LATENTS], state)
        parts.append(pictures)
    return torch.cat(parts, dim=1)


def as_video(frames_FHW3: Pictures) -> Tensor:
    """[1, F, 3, H, W] from -1 to 1."""
    return as_pictures(frames_FHW3)[None] * 2 - 1


def as_frames(video_1F3HW: Tensor) -> Pictures:
    """What a client gets: [F, H, W, 3] in 8 bits."""
    levels = ((video_1F3HW[0] + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).byte().numpy()


def as_pictures(frames_FHW3: Pictures) -> Tensor:
    """[F, 3, H, W] from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frames_FHW3.transpose(0, 3, 1, 2))).float() / 255


def _light(pictures_F3HW: Tensor, share_FHW: Tensor) -> npt.NDArray[np.float64]:
    """How bright the region is in each frame; frames without the region have NaN and are left out."""
    light_F = (luma(pictures_F3HW) * share_FHW).sum(dim=(1, 2)) / share_FHW.sum(dim=(1, 2))
    return light_F[light_F.isfinite()].double().numpy()


def finite_mean(values_F: Tensor) -> float:
    """The mean over the frames that have a value."""
    return float(values_F[values_F.isfinite()].mean())
