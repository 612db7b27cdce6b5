"""What `visavis bench precision` finds."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.bench.surroundings import Surroundings

SCHEMA = "visavis.precision/1"


@dataclass(frozen=True, slots=True)
class ChunkDifference:
    """A chunk in the other precision against the same chunk in float32.

    step_error, step_psnr: both start from float32's past, so this chunk's rounding alone. drift_error, drift_psnr: each
    has its own past since the session began. Errors are relative (RMS of the difference over RMS of float32's latents),
    PSNRs of decoded pictures in decibels, both decoded in float32; no difference at all is null.
    """

    chunk_index: int
    step_error: float
    step_psnr: float
    drift_error: float
    drift_psnr: float


@dataclass(frozen=True, slots=True)
class PrecisionResult:
    """One run. cpu_ratio: processor time of float32's chunks over that of the others."""

    schema: str
    surroundings: Surroundings
    preset: str
    precision: str
    random_weights: bool
    cpu_ratio: float
    chunks: tuple[ChunkDifference, ...]
