"""SpeechAE: speech features and compact speech latents, frame for frame with the video (paper, 3.2, B.2, Fig. 6).

B batch, F = 8k + 1 frames, T = k + 1 latent frames, W window, X feature channels, C channels, D latent channels,
N chunks, P = 56 states a chunk
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from visavis.models.batch_rows import join_rows, split_rows
from visavis.models.speech_ae_blocks import (
    PairDownsampling,
    Past,
    TimeDownsampling,
    UpsampleBlock,
    WindowDownsampling,
    WindowHead,
    scale_to_unit_rms,
    undo_scale,
)
from visavis.models.speech_features import CHUNK_FRAMES, features_from_states

WINDOW = 10
LATENT_WINDOW = 2
TIME_COMPRESSION = 8
_ENCODER_PASTS = 3
_DECODER_PASTS = 4


@dataclass(frozen=True, slots=True)
class SpeechAEEncoderState:
    """What the encoder remembers between chunks: the last input of each strided block; batch dimension first."""

    pasts: tuple[torch.Tensor, ...]

    @classmethod
    def join(cls, states: Sequence["SpeechAEEncoderState"]) -> "SpeechAEEncoderState":
        """One state whose batch rows are those of `states`, in order."""
        return states[0] if len(states) == 1 else cls(join_rows([state.pasts for state in states]))

    def split(self) -> tuple["SpeechAEEncoderState", ...]:
        """One state for each batch row, with memory of its own."""
        return tuple(SpeechAEEncoderState(pasts) for pasts in split_rows(self.pasts))


@dataclass(frozen=True, slots=True)
class SpeechAEDecoderState:
    """What the decoder remembers between chunks: the last two inputs of each convolution."""

    pasts: tuple[torch.Tensor, ...]


class SpeechAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Compresses speech features [B, 8k + 1, 10, X] to latents [B, k + 1, 2, D] and back, causally.

    Latent frame 0 is frame 0 alone; latent frame t sees nothing after frame 8t. Whole clips and chunks go through the
    same code, so they agree; no state is kept inside: passing the same state twice gives the same result.

    `feature_mean` and `feature_std` (buffers, saved with the weights; 0 and 1 until set) bring Whisper's very uneven
    channels to one scale. Latents have a root mean square of 1 over their channels; training keeps the last channel for
    what that takes away (`undo_scale`).
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    @register_to_config
    def __init__(self, feature_dim: int, channels: Sequence[int], latent_dim: int) -> None:
        """`channels`: of a projected state, of the vector for two frames (and for one), inside residual blocks."""
        super().__init__()  # type: ignore[no-untyped-call]
        if len(channels) != 3 or min(feature_dim, latent_dim, *channels) < 1:
            raise ValueError(f"need 3 channel counts, all sizes above 0, not {feature_dim}, {channels}, {latent_dim}")
        self.feature_dim = feature_dim
        self.latent_dim = latent_dim
        state, step, hidden = channels
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_std", torch.ones(feature_dim))
        # Features have mean 0 here: no bias until the amplitude's channel.
        self.project_in = nn.Linear(feature_dim, state, bias=False)
        self.down_blocks = nn.ModuleList(
            [
                WindowDownsampling(state, step, hidden, WINDOW),
                TimeDownsampling(step, latent_dim, hidden),
                PairDownsampling(latent_dim, hidden),
            ]
        )
        self.up_blocks = nn.ModuleList([UpsampleBlock(latent_dim, step, hidden), UpsampleBlock(step, step, hidden)])
        self.window_head = WindowHead(step, state, hidden)
        self.project_out = nn.Linear(state, feature_dim)

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
        return self._encode(features_BFWX, (None,) * _ENCODER_PASTS)[0]

    def encode_states(self, states_BNPX: torch.Tensor) -> torch.Tensor:
        """`encode` of whole clips from Whisper's states before they are windowed, as training keeps them.

        [B, 1 + N, 56, X], where the first chunk is the silence before the clip -> [B, 3 N + 1, 2, D]. Each state is
        projected once, not once for each of the windows that hold it. Raises ValueError for other than 56 states.
        """
        normal_BNPX = self.normalise(states_BNPX).to(self.project_in.weight.dtype)
        projected_BFWC = _windows(self.project_in(normal_BNPX), CHUNK_FRAMES - 1)
        return self._compress(projected_BFWC, (None,) * _ENCODER_PASTS)[0]

    def encode_first_frame(self, features_BFWX: torch.Tensor) -> tuple[torch.Tensor, SpeechAEEncoderState]:
        """Encodes frame 0: [B, 1, 10, X] -> ([B, 1, 2, D], state for the first chunk)."""
        if features_BFWX.ndim != 4 or features_BFWX.shape[1] != 1:
            raise ValueError(f"the first frame must be [B, 1, {WINDOW}, X], not {list(features_BFWX.shape)}")
        self._check_features(features_BFWX, first_frames=1)
        latents_BTWD, pasts = self._encode(features_BFWX, (None,) * _ENCODER_PASTS)
        return latents_BTWD, SpeechAEEncoderState(pasts)

    def encode_chunk(
        self, features_BFWX: torch.Tensor, state: SpeechAEEncoderState
    ) -> tuple[torch.Tensor, SpeechAEEncoderState]:
        """Encodes the next 8n frames: [B, 8n, 10, X] -> ([B, n, 2, D], state after them).

        Raises ValueError for another shape or a state of another batch size or model.
        """
        self._check_features(features_BFWX, first_frames=0)
        _check_state(state.pasts, _ENCODER_PASTS, features_BFWX.shape[0])
        latents_BTWD, pasts = self._encode(features_BFWX, state.pasts)
        return latents_BTWD, SpeechAEEncoderState(pasts)

    def decode(self, latents_BTWD: torch.Tensor) -> torch.Tensor:
        """Decodes a whole clip: [B, k + 1, 2, D] -> [B, 8k + 1, 10, X]. Raises ValueError for another shape."""
        self._check_latents(latents_BTWD)
        return self._decode(latents_BTWD, (None,) * _DECODER_PASTS)[0]

    def decode_first_frame(self, latents_BTWD: torch.Tensor) -> tuple[torch.Tensor, SpeechAEDecoderState]:
        """Decodes latent frame 0: [B, 1, 2, D] -> ([B, 1, 10, X], state for the first chunk)."""
        if latents_BTWD.ndim != 4 or latents_BTWD.shape[1] != 1:
            raise ValueError(f"the first latent must be [B, 1, {LATENT_WINDOW}, D], not {list(latents_BTWD.shape)}")
        self._check_latents(latents_BTWD)
        features_BFWX, pasts = self._decode(latents_BTWD, (None,) * _DECODER_PASTS)
        return features_BFWX, SpeechAEDecoderState(pasts)

    def decode_chunk(
        self, latents_BTWD: torch.Tensor, state: SpeechAEDecoderState
    ) -> tuple[torch.Tensor, SpeechAEDecoderState]:
        """Decodes the next n latent frames: [B, n, 2, D] -> ([B, 8n, 10, X], state after them).

        Raises ValueError for another shape or a state of another batch size or model.
        """
        self._check_latents(latents_BTWD)
        _check_state(state.pasts, _DECODER_PASTS, latents_BTWD.shape[0])
        features_BFWX, pasts = self._decode(latents_BTWD, state.pasts)
        return features_BFWX, SpeechAEDecoderState(pasts)

    def forward(self, states_BNPX: torch.Tensor, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The way of training: the states [B, N, 56, X] of N chunks in a row, as Whisper gives them, and back.

        The 8th frame of the first chunk stands for frame 0, so F = 24 N - 7. Returns the reconstruction and what it
        should be, normalised, at these `places` of the window only: [B, F, places, X] each.
        """
        normal_BNPX = self.normalise(states_BNPX)
        # Projecting each state once, before the windows repeat it, is a quarter of the work.
        projected_BFWC = _windows(self.project_in(normal_BNPX.to(self.project_in.weight.dtype)), TIME_COMPRESSION - 1)
        latents_BTWD, _ = self._compress(projected_BFWC, (None,) * _ENCODER_PASTS)
        expanded_BFWC, _ = self._expand(latents_BTWD, (None,) * _DECODER_PASTS)
        chosen = list(places)
        return self.project_out(expanded_BFWC[:, :, chosen]), _windows(normal_BNPX, TIME_COMPRESSION - 1)[:, :, chosen]

    def normalise(self, features: torch.Tensor) -> torch.Tensor:
        """Features [..., X] with mean 0 and deviation 1, as `set_feature_statistics` was told."""
        return (features - self.feature_mean) / self.feature_std

    def _encode(
        self, features_BFWX: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        normal_BFWX = self.normalise(features_BFWX).to(self.project_in.weight.dtype)
        return self._compress(self.project_in(normal_BFWX), pasts)

    def _compress(
        self, projected_BFWC: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        hidden = projected_BFWC.permute(0, 3, 1, 2)
        next_pasts = []
        for block, past in zip(self.down_blocks, pasts, strict=True):
            hidden, next_past = block(hidden, past)
            next_pasts.append(next_past)
        return scale_to_unit_rms(hidden).permute(0, 2, 3, 1).contiguous(), tuple(next_pasts)

    def _decode(
        self, latents_BTWD: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        projected_BFWC, next_pasts = self._expand(latents_BTWD, pasts)
        return self.project_out(projected_BFWC) * self.feature_std + self.feature_mean, next_pasts

    def _expand(
        self, latents_BTWD: torch.Tensor, pasts: tuple[Past, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        first, second, *head_pasts = pasts
        halves_BDT = latents_BTWD.to(self.project_out.weight.dtype).flatten(1, 2).transpose(1, 2)
        # Of latent frame 0, which is one frame, one half is enough.
        halves_BDT = undo_scale(halves_BDT[:, :, int(first is None) :])
        pairs_BCT, next_first = self.up_blocks[0](halves_BDT, first)
        frames_BCF, next_second = self.up_blocks[1](pairs_BCT, second)
        window_BCFW, next_head = self.window_head(frames_BCF, tuple(head_pasts))
        return window_BCFW.permute(0, 2, 3, 1), (next_first, next_second, *next_head)

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


def _windows(states_BNPC: torch.Tensor, first_frame: int) -> torch.Tensor:
    """Of the frames from `first_frame` of the first chunk on: [B, N, 56, C] -> [B, 24 N - first_frame, 10, C]."""
    frames_BFWC = features_from_states(states_BNPC.flatten(0, 1)[:, :, None])
    joined_BFWC: torch.Tensor = frames_BFWC.unflatten(0, states_BNPC.shape[:2]).flatten(1, 2)
    return joined_BFWC[:, first_frame:]
