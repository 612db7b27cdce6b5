"""The convolutions of SpeechAE: causal in time, so that a chunk needs only the last inputs of the chunk before it.

B batch, C channels, T time steps, W window
"""

from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

# The last (kernel - stride) inputs of a convolution, [B, C, kernel - stride, ...]; None before the first time step.
Past: TypeAlias = torch.Tensor | None

TIME_KERNEL = 3
# Patterns over three frames and the window that each projected channel is seen through.
_PATTERNS = 4
# Of a frame, and on either side of it in its window.
OWN_STATES, MARGIN_STATES = 2, 4
FRAMES_A_LATENT = 8
# A latent's last channel never divides by less.
_LEAST_AMPLITUDE = 0.2


class ChannelNorm(nn.Module):
    """Divides by the root mean square over the channels (dimension 1), at each time step and window place by itself.

    A norm over time would make chunked and whole differ.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return scale_to_unit_rms(x_BCT) * self.weight.view(-1, *[1] * (x_BCT.ndim - 2))


def scale_to_unit_rms(x_BCT: torch.Tensor) -> torch.Tensor:
    """Root mean square 1 over the channels (dimension 1); reckoned in float32."""
    wide = x_BCT.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + 1e-6)).to(x_BCT.dtype)


def undo_scale(latents_BDT: torch.Tensor) -> torch.Tensor:
    """Brings back what scaling to a root mean square of 1 took away: the last channel is 1 before it.

    How loud speech is shows in how far its features are from their mean; without this a 20th of it is lost.
    """
    return latents_BDT / latents_BDT[:, -1:].clamp(min=_LEAST_AMPLITUDE)


def join_past(x_BCT: torch.Tensor, past: Past, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts the past before x on the time axis (dimension 2) and cuts off what the next chunk will need as its past.

    Before the first time step the first input is repeated, so the first frame stands alone.
    """
    if past is None:
        past = x_BCT[:, :, :1].expand(-1, -1, TIME_KERNEL - 1, *x_BCT.shape[3:])
    joined = torch.cat([past, x_BCT], dim=2)
    # A view would keep the whole chunk's activations alive in the session's state.
    return joined, joined[:, :, joined.shape[2] - (TIME_KERNEL - stride) :].clone()


class ChannelMixer(nn.Module):
    """A residual layer over the channels of one time step: in through a narrow middle, and out again."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_in = nn.Conv1d(channels, hidden_channels, 1)
        self.conv_out = nn.Conv1d(hidden_channels, channels, 1)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        update_BCT: torch.Tensor = self.conv_out(functional.silu(self.conv_in(self.norm(x_BCT))))
        return x_BCT + update_BCT


class WindowDownsampling(nn.Module):
    """Windows of projected states to one vector for two frames: [B, C, F, W] -> [B, C', (F - 1) / 2 + 1].

    Depthwise, then over the channels: a seventh of a full convolution's weights. Windows of neighbouring frames share
    most of their states, so a few patterns a channel are enough.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int, window: int) -> None:
        super().__init__()
        self.patterns = nn.Conv2d(
            in_channels, _PATTERNS * in_channels, (TIME_KERNEL, window), stride=(2, 1), groups=in_channels, bias=False
        )
        self.join = nn.Conv1d(_PATTERNS * in_channels, out_channels, 1, bias=False)
        self.mixer = ChannelMixer(out_channels, hidden_channels)

    def forward(self, x_BCFW: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        joined_BCFW, past = join_past(x_BCFW, past, stride=2)
        return self.mixer(self.join(self.patterns(joined_BCFW).squeeze(3))), past


class TimeDownsampling(nn.Module):
    """Halves time: the first input of a stream gives one output by itself, 2n further inputs give n."""

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv1d(in_channels, out_channels, TIME_KERNEL, stride=2)
        assert self.down.bias is not None
        nn.init.zeros_(self.down.bias)
        self.mixer = ChannelMixer(out_channels, hidden_channels)

    def forward(self, x_BCT: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        joined_BCT, past = join_past(x_BCT, past, stride=2)
        return self.mixer(self.down(joined_BCT)), past


class PairDownsampling(nn.Module):
    """Halves time by laying two steps side by side: [B, C, 2k + 1] -> [B, C, k + 1, 2].

    A narrow convolution lets each of the two know the other. The first step of a stream is a pair with itself.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv1d(channels, hidden_channels, TIME_KERNEL, stride=2)
        self.conv_out = nn.Conv1d(hidden_channels, 2 * channels, 1)

    def forward(self, x_BCT: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        joined_BCT, past = join_past(x_BCT, past, stride=2)
        pairs_BCTW = joined_BCT[:, :, 1:].unflatten(2, (-1, 2))
        update_BCT = self.conv_out(functional.silu(self.conv_in(joined_BCT)))
        return pairs_BCTW + update_BCT.unflatten(1, (-1, 2)).transpose(2, 3), past


class ResidualBlock(nn.Module):
    """A narrow causal convolution in time around a shortcut."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_in = nn.Conv1d(channels, hidden_channels, 1)
        self.conv_time = nn.Conv1d(hidden_channels, hidden_channels, TIME_KERNEL)
        self.conv_out = nn.Conv1d(hidden_channels, channels, 1)

    def forward(self, x_BCT: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        joined_BCT, past = join_past(functional.silu(self.conv_in(self.norm(x_BCT))), past, stride=1)
        update_BCT: torch.Tensor = self.conv_out(functional.silu(self.conv_time(joined_BCT)))
        return x_BCT + update_BCT, past


class UpsampleBlock(nn.Module):
    """Doubles time: each step, after it has looked back, becomes two.

    Of the first input of a stream only the second step is kept: n + 1 inputs give 2n + 1 outputs.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, hidden_channels)
        self.up = nn.Conv1d(in_channels, 2 * out_channels, 1)

    def forward(self, x_BCT: torch.Tensor, past: Past) -> tuple[torch.Tensor, torch.Tensor]:
        first = past is None
        hidden_BCT, past = self.residual(x_BCT, past)
        steps_BCT = self.up(hidden_BCT).unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)
        return steps_BCT[:, :, int(first) :], past


class WindowHead(nn.Module):
    """One vector a frame to the frame's window of projected states: [B, C, F] -> [B, C', F, 10].

    Eight frames of one latent frame have 16 states of their own, and windows share them. The 4 after these come from
    the last of the eight, the 4 before them are those of the eight before, changed by what the first of these knows:
    where a chunk begins, Whisper hears the same time at another position.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, hidden_channels)
        self.own = nn.Conv1d(in_channels, OWN_STATES * out_channels, 1)
        self.after = nn.Conv1d(in_channels, MARGIN_STATES * out_channels, 1)
        self.before_in = nn.Conv1d(in_channels, hidden_channels, 1)
        self.before_out = nn.Conv1d(hidden_channels, MARGIN_STATES * out_channels, 1)

    def forward(self, x_BCF: torch.Tensor, pasts: tuple[Past, Past]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        hidden_BCF, residual_past = self.residual(x_BCF, pasts[0])
        alone = FRAMES_A_LATENT - 1 if pasts[0] is None else 0
        # Frame 0 is a latent frame by itself, so it stands for eight.
        hidden_BCF = torch.cat([hidden_BCF[:, :, :1].expand(-1, -1, alone), hidden_BCF], dim=2)
        own_BCFP = self.own(hidden_BCF).unflatten(1, (-1, OWN_STATES)).transpose(2, 3)
        joined_BCFP, own_past = join_past(own_BCFP, pasts[1], stride=1)
        # [B, C, latent frames, states]
        before = joined_BCFP.flatten(2)[:, :, :-MARGIN_STATES].unflatten(2, (-1, FRAMES_A_LATENT * OWN_STATES))
        before = before[..., :MARGIN_STATES] + self._margin(self._change(hidden_BCF[:, :, ::FRAMES_A_LATENT]))
        after = self._margin(self.after(hidden_BCF[:, :, FRAMES_A_LATENT - 1 :: FRAMES_A_LATENT]))
        own = own_BCFP.flatten(2).unflatten(2, (-1, FRAMES_A_LATENT * OWN_STATES))
        windows = torch.cat([before, own, after], dim=3).unfold(3, 2 * MARGIN_STATES + OWN_STATES, OWN_STATES)
        return windows.flatten(2, 3)[:, :, alone:], (residual_past, own_past)

    def _change(self, first_BCT: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.before_out(functional.silu(self.before_in(first_BCT)))
        return change

    def _margin(self, states_BCT: torch.Tensor) -> torch.Tensor:
        margin: torch.Tensor = states_BCT.unflatten(1, (-1, MARGIN_STATES)).transpose(2, 3)
        return margin
