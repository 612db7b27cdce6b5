"""Starts a video VAE as nearly the best linear autoencoder of its clips; training then adds what is not linear.

Each step of the encoder narrows what it sees to its principal components: 4 x 4 pixels, then in turns 2 x 2 cells and
two time steps. The decoder's steps are the transposes, and all residual blocks add nothing, so the whole network is
that linear map. Random weights take hours on two cores to get where this begins. Some pixels can count more than
others, so that more components are theirs.

Legend: T frames or time steps, H W rows and columns, C channels, K components, P positions in a cell, R rows to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.causal_convolution import CausalTimeConvolution
from visavis.models.video_vae import PATCH, CausalVideoVAE
from visavis.models.video_vae_blocks import (
    SpatialUpsampling,
    TemporalBlock,
    TemporalDownsampling,
    TemporalUpsampling,
)


@dataclass(frozen=True, slots=True)
class StartClip:
    """A clip's pictures [T, 3, H, W] in [-1, 1] (later: coefficients) and how much each pixel counts [T, 1, H, W]."""

    steps_TCHW: Tensor
    weight_T1HW: Tensor


@dataclass(frozen=True, slots=True)
class _Narrowing:
    """coefficients = basis^T (cell - mean) / scale, of cells of `side` x `side` or, with side 0, of two time steps."""

    side: int
    # [C P] and [C P, K], in the order of `_cells`
    mean: Tensor
    basis: Tensor
    scale: float

    def apply(self, steps_TCHW: Tensor) -> Tensor:
        """[T, C, H, W] -> [T', K, H', W']."""
        rows = (_cells(steps_TCHW, self.side) - self.mean[:, None, None]) / self.scale
        return torch.einsum("tchw,ck->tkhw", rows, self.basis)


@torch.no_grad()
def start_linear(vae: CausalVideoVAE, clips: Callable[[], Iterable[StartClip]]) -> None:
    """Sets all weights from these clips of 8k + 1 frames; the more different people, the better.

    `clips` is called four times, so that no more than one clip's pictures need be in memory.
    """
    encoder_widths, decoder_widths = vae.config["encoder_widths"], vae.config["decoder_widths"]
    narrowest = [min(pair) for pair in zip(encoder_widths, decoder_widths, strict=True)]
    narrowings = [_fit(clips(), PATCH, narrowest[0])]
    narrowings.append(_fit(_narrowed(clips(), narrowings), 2, narrowest[1]))
    narrowings.append(_fit(_narrowed(clips(), narrowings), 0, narrowest[1]))
    kept = list(_narrowed(clips(), narrowings))  # 4.7 MB a clip of 17 frames for `mini`
    for components in narrowest[2:]:
        for side in (2, 0):
            narrowings.append(_fit(kept, side, components))
            kept = list(_narrowed(kept, narrowings[-1:]))
    narrowings.append(_fit(kept, 1, vae.config["latent_channels"]))
    for module in vae.modules():
        if isinstance(module, TemporalBlock):
            nn.init.zeros_(module.conv.weight)
    latents = _spread(vae.config["latent_channels"], narrowings[-1])
    _set_encoder(vae, narrowings, latents)
    _set_decoder(vae, narrowings, latents)


def _cells(steps_TCHW: Tensor, side: int) -> Tensor:
    if side:
        return F.pixel_unshuffle(steps_TCHW, side)
    # Pairs of steps; the first stands alone, as two of itself.
    first, second = torch.cat([steps_TCHW[:1], steps_TCHW[1::2]]), steps_TCHW[::2]
    return torch.cat([first, second], dim=1)


def _narrowed(clips: Iterable[StartClip], narrowings: Sequence[_Narrowing]) -> Iterator[StartClip]:
    for clip in clips:
        steps, weight = clip.steps_TCHW, clip.weight_T1HW
        for narrowing in narrowings:
            steps, weight = narrowing.apply(steps), _cells(weight, narrowing.side).mean(dim=1, keepdim=True)
        yield StartClip(steps, weight)


def _fit(clips: Iterable[StartClip], side: int, components: int) -> _Narrowing:
    """Weighted principal components of the clips' cells."""
    total, sums, products = 0.0, torch.zeros(()), torch.zeros(())
    for clip in clips:
        rows_RC = _cells(clip.steps_TCHW, side).movedim(1, -1).flatten(0, 2)
        weight_R1 = _cells(clip.weight_T1HW, side).mean(dim=1).flatten()[:, None]
        total += float(weight_R1.sum())
        sums = sums + (weight_R1 * rows_RC).sum(dim=0).double()
        products = products + ((weight_R1 * rows_RC).T @ rows_RC).double()
    mean = sums / total
    covariance = products / total - torch.outer(mean, mean)
    variances, vectors = torch.linalg.eigh(covariance)
    scale = float(variances.flip(0)[:components].mean().clamp_min(1e-12).sqrt())
    return _Narrowing(side, mean.float(), vectors.flip(1)[:, :components].float(), scale)


def _set_encoder(vae: CausalVideoVAE, narrowings: Sequence[_Narrowing], latents: Tensor) -> None:
    encoder = vae.encoder
    layers: list[nn.Module] = [encoder.conv_in]
    for downsampling, halving in zip(encoder.downsampling, encoder.temporal_downsampling, strict=True):
        layers += [downsampling, halving]
    before = torch.eye(3)
    for layer, narrowing in zip(layers, narrowings[:-1], strict=True):
        conv = layer.conv if isinstance(layer, TemporalDownsampling) else layer
        assert isinstance(conv, nn.Conv2d | CausalTimeConvolution)
        assert conv.bias is not None
        after = _spread(len(conv.weight), narrowing)
        weight_OPI = _analysis(narrowing, before, after)
        conv.weight.zero_()
        if isinstance(conv, CausalTimeConvolution):  # kernel of three steps: the last two are the pair
            conv.weight[:, :, 1:, 0] = weight_OPI.transpose(1, 2)
        elif conv.stride == (2, 2):  # kernel of 3 x 3: the last two rows and columns are the cell
            conv.weight[:, :, 1:, 1:] = weight_OPI.transpose(1, 2).unflatten(2, (2, 2))
        else:  # the cell is in the channels already
            conv.weight[:, :, 1, 1] = weight_OPI.transpose(1, 2).flatten(1)
        conv.bias.copy_(_analysis_bias(narrowing, after))
        before = after
    means = slice(0, len(latents))
    assert encoder.conv_out.bias is not None
    encoder.conv_out.weight[means, :, 0, 0] = _analysis(narrowings[-1], before, latents)[:, 0]
    encoder.conv_out.bias[means] = _analysis_bias(narrowings[-1], latents)


def _set_decoder(vae: CausalVideoVAE, narrowings: Sequence[_Narrowing], latents: Tensor) -> None:
    decoder = vae.decoder
    layers: list[nn.Module] = [decoder.conv_in]
    for doubling, upsampling in zip(decoder.temporal_upsampling, decoder.upsampling, strict=True):
        layers += [doubling, upsampling]
    after = latents
    for layer, narrowing, wider in zip(
        [*layers, decoder.conv_straight], reversed(narrowings), [*reversed(narrowings[:-1]), None], strict=True
    ):
        conv = layer.conv if isinstance(layer, TemporalUpsampling | SpatialUpsampling) else layer
        assert isinstance(conv, nn.Conv2d | CausalTimeConvolution)
        assert conv.bias is not None
        positions = narrowing.side**2 or 2
        before = torch.eye(3) if wider is None else _spread(len(conv.weight) // positions, wider)
        weight_IPO, bias_IP = _synthesis(narrowing, before, after)
        conv.weight.zero_()
        if isinstance(conv, CausalTimeConvolution):  # kernel of two steps: the last is the pair's; time comes first
            conv.weight[:, :, 1, 0] = weight_IPO.transpose(0, 1).flatten(0, 1)
            conv.bias.copy_(bias_IP.T.flatten())
        else:
            conv.weight[:, :, 0, 0] = weight_IPO.flatten(0, 1)
            conv.bias.copy_(bias_IP.flatten())
        after = before
    for parameter in decoder.conv_out.parameters():
        parameter.zero_()


def _spread(width: int, narrowing: _Narrowing) -> Tensor:
    """Orthonormal columns [C, K] that spread coefficients over channels, so that all channels have a like scale."""
    square, _ = torch.linalg.qr(torch.randn(width, width))
    columns: Tensor = square[:, : narrowing.basis.shape[1]]
    return columns


def _by_position(values: Tensor, narrowing: _Narrowing, channels: int) -> Tensor:
    """[C P, ...] in the order of `_cells` -> [C, P, ...]."""
    position_first: Tensor = values.unflatten(0, (-1, channels)).transpose(0, 1)
    channel_first: Tensor = values.unflatten(0, (channels, -1))
    return channel_first if narrowing.side else position_first


def _analysis(narrowing: _Narrowing, before: Tensor, after: Tensor) -> Tensor:
    """[out, P, in]: channels in which `before` spreads a cell's components -> those in which `after` does."""
    basis_CPK = _by_position(narrowing.basis, narrowing, before.shape[1])
    return torch.einsum("ok,cpk,ic->opi", after, basis_CPK, before) / narrowing.scale


def _analysis_bias(narrowing: _Narrowing, after: Tensor) -> Tensor:
    bias: Tensor = -after @ (narrowing.mean @ narrowing.basis) / narrowing.scale
    return bias


def _synthesis(narrowing: _Narrowing, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """[in, P, out] and [in, P]: the transpose of the analysis."""
    basis_CPK = _by_position(narrowing.basis, narrowing, before.shape[1])
    weight = torch.einsum("ic,cpk,ok->ipo", before, basis_CPK, after) * narrowing.scale
    return weight, before @ _by_position(narrowing.mean, narrowing, before.shape[1]).flatten(1)
