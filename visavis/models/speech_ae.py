"""SpeechAE: speech features and compact speech latents, frame for frame with the video (paper, 3.2, B.2, Fig. 6).

B batch, F = 8k + 1 frames, T = k + 1 latent frames, W window, X feature channels, C channels, D latent channels
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from visavis.models.speech_ae_blocks import (
    UPSAMPLE_PASTS,
    ChannelNorm,
    DownsampleBlock,
    Past,
    UpsampleBlock,
    scale_to_unit_rms,
)

WINDOW = 10
LATENT_WINDOW = 2
TIME_COMPRESSION = 8


@dataclass(frozen=True, slots=True)
class SpeechAEEncoderState:
    """What the encoder remembers between chunks: the last input of each strided convolution."""

    pasts: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class SpeechAEDecoderState:
    """What the decoder remembers between chunks: the last two inputs of each convolution."""

    pasts: tuple[torch.Tensor, ...]


class SpeechAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Compresses speech features [B, 8k + 1, 10, X] to latents [B, k + 1, 2, D] and back, causally.

    Latent frame 0 is frame 0 alone; latent frame t sees nothing after frame 8t. Whole clips and chunks go through the
    same code, so they agree; no state is kept inside: passing the same state twice gives the same result.

    `feature_mean` and `feature_std` (buffers, saved with the weights; 0 and 1 until set) bring Whisper's very uneven
    channels to one scale. Latents have a root mean square of 1 over their channels.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    @register_to_config
    def __init__(self, feature_dim: int, channels: Sequence[int], latent_dim: int) -> None:
        """`channels`: after the linear projection, after the first and after the second downsampling block."""
        super().__init__()  # type: ignore[no-untyped-call]
        if len(channels) != 3 or min(feature_dim, latent_dim, *channels) < 1:
            raise ValueError(f"need 3 channel counts, all sizes above 0, not {feature_dim}, {channels}, {latent_dim}")
        self.feature_dim = feature_dim
        self.latent_dim = latent_dim
        narrow, middle, wide = channels
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_std", torch.ones(feature_dim))
        self.project_in = nn.Linear(feature_dim, narrow)
        # The window goes 10 -> 5 -> 2 -> 2 while time is halved three times.
        self.down_blocks = nn.ModuleList(
            [
                DownsampleBlock(narrow, middle, window_kernel=4, window_stride=2, window_padding=1),
                DownsampleBlock(middle, wide, window_kernel=3, window_stride=2, window_padding=0),
                DownsampleBlock(wide, latent_dim, window_kernel=3, window_stride=1, window_padding=1),
            ]
        )
        self.join_window = nn.Linear(LATENT_WINDOW * latent_dim, wide)
        self.up_blocks = nn.ModuleList(
            [UpsampleBlock(wide, wide), UpsampleBlock(wide, middle), UpsampleBlock(middle, narrow)]
        )
        self.norm_out = ChannelNorm(narrow)
        self.split_window = nn.Linear(narrow, WINDOW * narrow)
        self.project_out = nn.Sequential(nn.SiLU(), nn.Linear(narrow, feature_dim))

    @torch.no_grad()
    def set_feature_statistics(self, mean_X: torch.Tensor, std_X: torch.Tensor) -> None:
        """Sets mean and standard deviation of each feature channel, measured on training speech.

        Raises ValueError for a wrong shape or a deviation that is not positive.
        """
        if mean_X.shape != self.feature_mean.shape or std_X.shape != self.feature_std.shape:
            raise ValueError(f"statistics must be [{self.feature_dim}], not {list(mean_X.shape)}, {list(std_X.shape)}")
        if not bool((std_X > 0).all()):
            raise ValueError("every standard deviation must be above 0")
        self.feature_mean.copy_(mean_X)
        self.feature_std.copy_(std_X)

    def encode(self, features_BFWX: torch.Tensor) -> torch.Tensor:
        """Encodes a whole clip: [B, 8k + 1, 10, X] -> [B, k + 1, 2, D]. Raises ValueError for another shape."""
        self._check_features(features_BFWX, first_frames=1)
        return self._encode(features_BFWX, (None,) * len(self.down_blocks))[0]

    def encode_first_frame(self, features_BFWX: torch.Tensor) -> tuple[torch.Tensor, SpeechAEEncoderState]:
        """Encodes frame 0: [B, 1, 10, X] -> ([B, 1, 2, D], state for the first chunk)."""
        if features_BFWX.ndim != 4 or features_BFWX.shape[1] != 1:
            raise ValueError(f"the first frame must be [B, 1, {WINDOW}, X], not {list(features_BFWX.shape)}")
        self._check_features(features_BFWX, first_frames=1)
        latents_BTWD, pasts = self._encode(features_BFWX, (None,) * len(self.down_blocks))
        return latents_BTWD, SpeechAEEncoderState(pasts)

    def encode_chunk(
        self, features_BFWX: torch.Tensor, state: SpeechAEEncoderState
    ) -> tuple[torch.Tensor, SpeechAEEncoderState]:
        """Encodes the next 8n frames: [B, 8n, 10, X] -> ([B, n, 2, D], state after them).

        Raises ValueError for another shape or a state of another batch size or model.
        """
        self._check_features(features_BFWX, first_frames=0)
        _check_state(state.pasts, len(self.down_blocks), features_BFWX.shape[0])
        latents_BTWD, pasts = self._encode(features_BFWX, state.pasts)
        return latents_BTWD, SpeechAEEncoderState(pasts)

    def decode(self, latents_BTWD: torch.Tensor) -> torch.Tensor:
        """Decodes a whole clip: [B, k + 1, 2, D] -> [B, 8k + 1, 10, X]. Raises ValueError for another shape."""
        self._check_latents(latents_BTWD)
        return self._decode(latents_BTWD, (None,) * self._decoder_pasts)[0]

    def decode_first_frame(self, latents_BTWD: torch.Tensor) -> tuple[torch.Tensor, SpeechAEDecoderState]:
        """Decodes latent frame 0: [B, 1, 2, D] -> ([B, 1, 10, X], state for the first chunk)."""
        if latents_BTWD.ndim != 4 or latents_BTWD.shape[1] != 1:
            raise ValueError(f"the first latent must be [B, 1, {LATENT_WINDOW}, D], not {list(latents_BTWD.shape)}")
        self._check_latents(latents_BTWD)
        features_BFWX, pasts = self._decode(latents_BTWD, (None,) * self._decoder_pasts)
        return features_BFWX, SpeechAEDecoderState(pasts)

    def decode_chunk(
        self, latents_BTWD: torch.Tensor, state: SpeechAEDecoderState
    ) -> tuple[torch.Tensor, SpeechAEDecoderState]:
        """Decodes the next n latent frames: [B, n, 2, D] -> ([B, 8n, 10, X], state after them).

        Raises ValueError for another shape or a state of another batch size or model.
        """
        self._check_latents(latents_BTWD)
        _check_state(state.pasts, self._decoder_pasts, latents_BTWD.shape[0])
        features_BFWX, pasts = self._decode(latents_BTWD, state.pasts)
        return features_BFWX, SpeechAEDecoderState(pasts)

    @property
    def _decoder_pasts(self) -> int:
        return UPSAMPLE_PASTS * len(self.up_blocks)

    def _encode(
        self, features_BFWX: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        normal_BFWX = (features_BFWX - self.feature_mean) / self.feature_std
        hidden_BCTW = self.project_in(normal_BFWX.to(self.project_in.weight.dtype)).permute(0, 3, 1, 2)
        next_pasts = []
        for block, past in zip(self.down_blocks, pasts, strict=True):
            hidden_BCTW, next_past = block(hidden_BCTW, past)
            next_pasts.append(next_past)
        return scale_to_unit_rms(hidden_BCTW).permute(0, 2, 3, 1).contiguous(), tuple(next_pasts)

    def _decode(
        self, latents_BTWD: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        joined_BTD = latents_BTWD.flatten(2).to(self.join_window.weight.dtype)
        hidden_BCT = self.join_window(joined_BTD).transpose(1, 2)
        next_pasts: tuple[torch.Tensor, ...] = ()
        for index, block in enumerate(self.up_blocks):
            hidden_BCT, block_pasts = block(hidden_BCT, pasts[UPSAMPLE_PASTS * index : UPSAMPLE_PASTS * (index + 1)])
            next_pasts += block_pasts
        frames_BFWC = self.split_window(self.norm_out(hidden_BCT).transpose(1, 2)).unflatten(2, (WINDOW, -1))
        return self.project_out(frames_BFWC) * self.feature_std + self.feature_mean, next_pasts

    def _check_features(self, features_BFWX: torch.Tensor, first_frames: int) -> None:
        shape = list(features_BFWX.shape)
        if len(shape) != 4 or shape[2:] != [WINDOW, self.feature_dim]:
            raise ValueError(f"features must be [B, F, {WINDOW}, {self.feature_dim}], not {shape}")
        if shape[0] < 1 or shape[1] < 1 or shape[1] % TIME_COMPRESSION != first_frames:
            raise ValueError(f"features must have {'8k + 1' if first_frames else '8n'} frames, not {shape[1]}")

    def _check_latents(self, latents_BTWD: torch.Tensor) -> None:
        shape = list(latents_BTWD.shape)
        if len(shape) != 4 or min(shape) < 1 or shape[2:] != [LATENT_WINDOW, self.latent_dim]:
            raise ValueError(f"latents must be [B, T, {LATENT_WINDOW}, {self.latent_dim}], not {shape}")


def _check_state(pasts: tuple[torch.Tensor, ...], expected: int, batch_size: int) -> None:
    if len(pasts) != expected or any(past.shape[0] != batch_size for past in pasts):
        raise ValueError(f"the state does not belong to this model or to a batch of {batch_size}")
