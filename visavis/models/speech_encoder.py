"""Speech to speech latents, one chunk of a live session at a time: Whisper, windowed features and the SpeechAE encoder.

S samples at 16 kHz, T latent frames, W window, D latent channels
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from visavis.models.speech_ae import SpeechAE, SpeechAEEncoderState
from visavis.models.speech_features import (
    CHUNK_SAMPLES,
    LOOKAHEAD_SAMPLES,
    PAST_SAMPLES,
    chunk_features,
    first_frame_features,
)
from visavis.models.whisper import WhisperFeatures


@dataclass(frozen=True, slots=True)
class SpeechEncoderState:
    """What a session's speech encoder remembers: the last 3 s of speech and the SpeechAE encoder's state."""

    past_samples_S: torch.Tensor
    speech_ae: SpeechAEEncoderState


class SpeechEncoder(nn.Module):
    """Turns each chunk of speech into its speech latents; the pipeline and the audio encoder service both use it.

    The chunks 1, 2, 3, ... of a session together equal `SpeechAE.encode` of the whole session's `clip_features`.
    """

    def __init__(self, whisper: WhisperFeatures, speech_ae: SpeechAE) -> None:
        """Raises ValueError where the SpeechAE was made for other features than this Whisper gives."""
        super().__init__()
        if whisper.feature_dim != speech_ae.feature_dim:
            raise ValueError(f"Whisper gives {whisper.feature_dim} channels, SpeechAE expects {speech_ae.feature_dim}")
        self.whisper = whisper
        self.speech_ae = speech_ae

    @torch.no_grad()
    def initial_state(self) -> SpeechEncoderState:
        """The state of a new session: silence before it, and frame 0 (silence) already encoded."""
        _, speech_ae = self.speech_ae.encode_first_frame(first_frame_features(1, self.whisper))
        return SpeechEncoderState(torch.zeros(PAST_SAMPLES, device=self.whisper.device), speech_ae)

    @torch.no_grad()
    def encode_chunk(
        self, samples_S: torch.Tensor, lookahead_S: torch.Tensor, state: SpeechEncoderState
    ) -> tuple[torch.Tensor, SpeechEncoderState]:
        """Encodes one chunk: 15,360 samples and up to 1,280 that follow -> ([3, 2, D], state after it).

        Lookahead that is missing counts as silence; it does not enter the state. Samples are float32, 16 kHz, full
        scale -1 to 1, on any device.
        Raises ValueError for a wrong number or type of samples, or for samples that are not finite.
        """
        (encoded,) = self.encode_chunks([(samples_S, lookahead_S, state)])
        return encoded

    @torch.no_grad()
    def encode_chunks(
        self, chunks: Sequence[tuple[torch.Tensor, torch.Tensor, SpeechEncoderState]]
    ) -> list[tuple[torch.Tensor, SpeechEncoderState]]:
        """`encode_chunk` for chunks of several sessions in one pass; arguments and results in order."""
        windows_BS = torch.stack([_window(*chunk) for chunk in chunks])
        before = SpeechAEEncoderState.join([state.speech_ae for _, _, state in chunks])
        latents_BTWD, after = self.speech_ae.encode_chunk(chunk_features(windows_BS, self.whisper), before)
        pasts_BS = windows_BS[:, CHUNK_SAMPLES : CHUNK_SAMPLES + PAST_SAMPLES]
        return [
            (latents_TWD, SpeechEncoderState(past_S.clone(), speech_ae))
            for latents_TWD, past_S, speech_ae in zip(latents_BTWD, pasts_BS, after.split(), strict=True)
        ]


def _window(samples_S: torch.Tensor, lookahead_S: torch.Tensor, state: SpeechEncoderState) -> torch.Tensor:
    """What is heard for a chunk, [64,640]: its past, itself and its lookahead."""
    if samples_S.shape != (CHUNK_SAMPLES,):
        raise ValueError(f"a chunk must have {CHUNK_SAMPLES} samples, not {list(samples_S.shape)}")
    if lookahead_S.ndim != 1 or lookahead_S.shape[0] > LOOKAHEAD_SAMPLES:
        raise ValueError(f"lookahead must have at most {LOOKAHEAD_SAMPLES} samples, not {list(lookahead_S.shape)}")
    _check_samples(samples_S)
    _check_samples(lookahead_S)
    past_S = state.past_samples_S
    silence_S = past_S.new_zeros(LOOKAHEAD_SAMPLES - lookahead_S.shape[0])
    return torch.cat([past_S, samples_S.to(past_S.device), lookahead_S.to(past_S.device), silence_S])


def _check_samples(samples_S: torch.Tensor) -> None:
    if samples_S.dtype != torch.float32:
        raise ValueError(f"samples must be float32, not {samples_S.dtype}")
    if not bool(torch.isfinite(samples_S).all()):
        raise ValueError("samples must be finite")
