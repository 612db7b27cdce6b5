"""Starts a SpeechAE as a linear autoencoder: principal components of the features, level by level.

A network with seven times fewer latent numbers than features mostly learns what principal component analysis knows at
once. Measured on held-out voices (docs/log.md): 0.69 of the variance explained before the first step, where random
weights stand at 0.51 after 300 steps. Training then adds what is not linear.

M samples, X feature channels, C channels in, K channels kept
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_ae_blocks import (
    MARGIN_STATES,
    OWN_STATES,
    ChannelMixer,
    PairDownsampling,
    ResidualBlock,
    TimeDownsampling,
    UpsampleBlock,
    WindowDownsampling,
    WindowHead,
)

# Latents are whitened half-way: the speech is heard in a few components, small ones must not drown them, nor vanish.
_WHITENING = 0.25
# Directions in which nothing happens must not be whitened into noise; share of the largest variance.
_FLOOR = 1e-6
# Nonlinear branches begin small beside the linear way.
_BRANCH_SCALE = 0.1
# Against noise in the regression of the states that a frame cannot have heard of; share of the variance.
_RIDGE = 0.1


@dataclass(frozen=True, slots=True)
class _Components:
    """Orthonormal directions [C, K] of the most variance, and the variance of each [K]."""

    directions_CK: Tensor
    variances_K: Tensor


def principal_components(samples_MC: Tensor, kept: int) -> _Components:
    """The `kept` directions of most power around 0. More than there are samples or channels: ValueError."""
    if not 0 < kept <= min(samples_MC.shape):
        raise ValueError(f"{list(samples_MC.shape)} samples cannot have {kept} components")
    powers, directions = torch.linalg.eigh((samples_MC.T @ samples_MC / len(samples_MC)).double())
    variances_K = powers.flip(0)[:kept].float()
    return _Components(directions.flip(1)[:, :kept].float(), variances_K.clamp(min=_FLOOR * float(variances_K[0])))


@torch.no_grad()
def start_from_principal_components(model: SpeechAE, states_NPX: Tensor) -> None:
    """Sets the weights of `model` from states [N, 56, X] of training chunks, as Whisper gives them.

    `set_feature_statistics` comes before. Raises ValueError when there are too few chunks, or the model's channels
    grow where components can only become fewer.
    """
    blocks = _Blocks.of(model)
    step_channels = blocks.time.down.in_channels
    own_NPX = model.normalise(states_NPX)[:, MARGIN_STATES:-MARGIN_STATES]
    state = principal_components(own_NPX.flatten(0, 1), model.project_in.out_features)
    # One scale for all components: the layers in between see numbers around 1.
    scale = state.variances_K.mean().sqrt()
    frames_NFC = _paired(own_NPX @ state.directions_CK / scale)
    frame = principal_components(frames_NFC.flatten(0, 1), step_channels)
    coded_NFK = frames_NFC @ frame.directions_CK
    pairs_NTC = _paired(coded_NFK)
    pair = principal_components(pairs_NTC.flatten(0, 1), step_channels)
    halves_NTC = _paired(pairs_NTC @ pair.directions_CK)
    # One channel is left for the amplitude.
    half = principal_components(halves_NTC.flatten(0, 1), model.latent_dim - 1)
    whitening_K = half.variances_K.pow(-_WHITENING)
    # Latents with a root mean square of 1 on the whole, so that the amplitude's channel is one among others.
    whitening_K = whitening_K / (half.variances_K * whitening_K.square()).mean().sqrt()

    _quieten_branches(model)
    _set(model.project_in, state.directions_CK.T / scale)
    _set(model.project_out, state.directions_CK * scale)
    _set_window_downsampling(blocks.window, frame.directions_CK, pair.directions_CK)
    _set_time_downsampling(blocks.time, half.directions_CK * whitening_K)
    amplitude_C1 = half.directions_CK.new_zeros(len(half.directions_CK), 1)
    expand_CK = torch.cat([half.directions_CK / whitening_K, amplitude_C1], dim=1)
    _set(blocks.first_up.up, _interleaved(expand_CK, 2))
    _set(blocks.second_up.up, _interleaved(pair.directions_CK, 2))
    _set(blocks.head.own, _interleaved(frame.directions_CK, OWN_STATES))
    following_NFC = torch.cat([frames_NFC[:, 1:-1], frames_NFC[:, 2:]], dim=2)
    _set(blocks.head.after, _interleaved(_regression(coded_NFK[:, :-2], following_NFC).T, MARGIN_STATES))


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The model's parts with their types, which torch's containers forget."""

    window: WindowDownsampling
    time: TimeDownsampling
    first_up: UpsampleBlock
    second_up: UpsampleBlock
    head: WindowHead

    @classmethod
    def of(cls, model: SpeechAE) -> _Blocks:
        window, time, _ = model.down_blocks
        first_up, second_up = model.up_blocks
        assert isinstance(window, WindowDownsampling)
        assert isinstance(time, TimeDownsampling)
        assert isinstance(first_up, UpsampleBlock)
        assert isinstance(second_up, UpsampleBlock)
        return cls(window, time, first_up, second_up, model.window_head)


def _paired(steps_NTC: Tensor) -> Tensor:
    """[N, 2 T, C] -> [N, T, 2 C]."""
    paired: Tensor = steps_NTC.unflatten(1, (-1, 2)).flatten(2)
    return paired


def _interleaved(blocks_CK: Tensor, blocks: int) -> Tensor:
    """Rows in blocks, one for each step that comes out, in the order of a convolution's channels: steps innermost."""
    ordered: Tensor = blocks_CK.unflatten(0, (blocks, -1)).transpose(0, 1).flatten(0, 1)
    return ordered


def _regression(known_NTK: Tensor, wanted_NTC: Tensor) -> Tensor:
    """What best tells `wanted` from `known`, [K, C]."""
    known_MK, wanted_MC = known_NTK.flatten(0, 1), wanted_NTC.flatten(0, 1)
    power_KK = known_MK.T @ known_MK
    ridge = _RIDGE * power_KK.diagonal().mean() * torch.eye(len(power_KK))
    solution: Tensor = torch.linalg.solve(power_KK + ridge, known_MK.T @ wanted_MC)
    return solution


def _set_window_downsampling(block: WindowDownsampling, frame_CK: Tensor, pair_CK: Tensor) -> None:
    """The four patterns pick the four states of the two frames."""
    picked = [(time, place) for time in (1, 2) for place in (MARGIN_STATES, MARGIN_STATES + 1)]
    channels = block.patterns.in_channels
    patterns = block.patterns.weight.unflatten(0, (channels, len(picked)))
    patterns[:] = 0
    for number, (time, place) in enumerate(picked):
        patterns[:, number, 0, time, place] = 1
    frames_FCK = torch.stack([frame_CK @ half_CK for half_CK in pair_CK.chunk(2)])
    states_KCP = frames_FCK.unflatten(1, (2, channels)).flatten(0, 1).permute(2, 1, 0)
    _set(block.join, states_KCP.flatten(1))


def _set_time_downsampling(block: TimeDownsampling, compress_CK: Tensor) -> None:
    """Taps 1 and 2 are the two steps that become one; tap 0, the step before them, is silent at first.

    The last channel is 1 always: `undo_scale` reads the amplitude from it.
    """
    assert block.down.bias is not None
    nn.init.zeros_(block.down.weight)
    nn.init.zeros_(block.down.bias)
    block.down.bias[-1] = 1.0
    first_CK, second_CK = compress_CK.chunk(2)
    block.down.weight[:-1, :, 1], block.down.weight[:-1, :, 2] = first_CK.T, second_CK.T


def _quieten_branches(model: SpeechAE) -> None:
    """Whatever runs beside the linear way begins small."""
    for module in model.modules():
        if isinstance(module, ChannelMixer | PairDownsampling | ResidualBlock):
            module.conv_out.weight.mul_(_BRANCH_SCALE)
            _silence(module.conv_out.bias)
        elif isinstance(module, WindowHead):
            module.before_out.weight.mul_(_BRANCH_SCALE)
            _silence(module.before_out.bias)


def _set(layer: nn.Linear | nn.Conv1d, weight_KC: Tensor) -> None:
    layer.weight.copy_(weight_KC.view_as(layer.weight))
    _silence(layer.bias)


def _silence(bias: Tensor | None) -> None:
    if bias is not None:
        bias.zero_()
