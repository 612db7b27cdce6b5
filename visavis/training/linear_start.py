"""Starts a video VAE as the best linear autoencoder of its pictures; training then only adds what is not linear.

Each level of the network halves rows and columns, so its best linear map is the principal components of 2 x 2 cells of
the level before (4 x 4 pixels at first), and the decoder's is the transpose. The residual blocks add nothing at first,
so the whole network is that map. Random weights take hours on two cores to get where this begins.

Legend: N pictures, K components, C channels, P positions of a cell (1, 4 or 16).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.video_vae import PATCH, CausalVideoVAE
from visavis.models.video_vae_blocks import SpatialUpsampling

_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class _Level:
    """coefficients = basis^T (cell - mean) / scale; cells [K' P] of the level before, basis [K' P, K]."""

    mean: Tensor
    basis: Tensor
    scale: float


@torch.no_grad()
def start_linear(vae: CausalVideoVAE, pictures_N3HW: Tensor) -> None:
    """Sets the spatial weights from pictures in [-1, 1]; the more different people, the better."""
    encoder, decoder = vae.encoder, vae.decoder
    encoder_widths, decoder_widths = vae.config["encoder_widths"], vae.config["decoder_widths"]
    levels: list[_Level] = []
    cells, side = pictures_N3HW, PATCH
    for widths in zip(encoder_widths, decoder_widths, strict=True):
        level, cells = _fit(F.pixel_unshuffle(cells, side), min(widths))
        levels.append(level)
        side = 2
    latent, _ = _fit(cells, vae.config["latent_channels"])

    upsampling = [module for module in reversed(decoder.upsampling) if isinstance(module, SpatialUpsampling)]
    into = [_embedding(width, level) for width, level in zip(encoder_widths, levels, strict=True)]
    out_of = [_embedding(width, level) for width, level in zip(decoder_widths, levels, strict=True)]
    rotation = _embedding(vae.config["latent_channels"], latent)
    pixels = torch.eye(3)
    for conv, level, (before, after) in zip(
        [encoder.conv_in, *encoder.downsampling], levels, pairwise([pixels, *into]), strict=True
    ):
        _set_analysis(conv, level, before, after)
    _set_analysis_of_latents(encoder.conv_out, latent, into[-1], rotation)
    for conv, level, (before, after) in zip(
        [decoder.conv_straight, *(module.conv for module in upsampling)],
        levels,
        pairwise([pixels, *out_of]),
        strict=True,
    ):
        _set_synthesis(conv, level, before, after)
    _set_synthesis(decoder.conv_in, latent, out_of[-1], rotation)
    for parameter in decoder.conv_out.parameters():
        parameter.zero_()


def _fit(cells_NCHW: Tensor, components: int) -> tuple[_Level, Tensor]:
    """The principal components of these cells, and their coefficients [N, K, H, W] of mean square 1."""
    rows = cells_NCHW.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = rows[torch.randperm(len(rows))[:_ROWS]].double()
    mean = chosen.mean(dim=0)
    _, vectors = torch.linalg.eigh((chosen - mean).T @ (chosen - mean))
    basis = vectors.flip(1)[:, :components]
    scale = float(((chosen - mean) @ basis).square().mean().sqrt())
    level = _Level(mean.float(), basis.float(), scale)
    coefficients = torch.einsum("nchw,ck->nkhw", cells_NCHW - level.mean[:, None, None], level.basis / scale)
    return level, coefficients


def _embedding(width: int, level: _Level) -> Tensor:
    """Orthonormal columns [C, K] that spread K coefficients over C channels, so that all channels have a like scale."""
    square, _ = torch.linalg.qr(torch.randn(width, width))
    embedding: Tensor = square[:, : level.basis.shape[1]]
    return embedding


def _set_analysis(conv: nn.Module, level: _Level, before: Tensor, after: Tensor) -> None:
    """Cells of channels -> channels. A strided 3 x 3 kernel's last two rows and columns are its cell."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    basis = level.basis.unflatten(0, (before.shape[1], -1)) / level.scale
    weight = torch.einsum("ok,cpk,ic->oip", after, basis, before)
    conv.weight.zero_()
    if conv.stride == (2, 2):
        conv.weight[:, :, 1:, 1:] = weight.unflatten(2, (2, 2))
    else:  # the picture's cells are channels already
        conv.weight[:, :, 1, 1] = weight.flatten(1)
    conv.bias.copy_(-after @ (level.mean @ level.basis) / level.scale)


def _set_analysis_of_latents(conv: nn.Conv2d, level: _Level, before: Tensor, after: Tensor) -> None:
    assert conv.bias is not None
    channels = after.shape[0]
    conv.weight[:channels, :, 0, 0] = after @ (before @ level.basis / level.scale).T
    conv.bias[:channels] = -after @ (level.mean @ level.basis) / level.scale


def _set_synthesis(conv: nn.Module, level: _Level, before: Tensor, after: Tensor) -> None:
    """Channels -> cells of channels, which a pixel shuffle spreads; the transpose of the analysis."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    basis = level.basis.unflatten(0, (before.shape[1], -1)) * level.scale
    conv.weight[:, :, 0, 0] = torch.einsum("ic,cpk,ok->ipo", before, basis, after).flatten(0, 1)
    conv.bias.copy_((before @ level.mean.unflatten(0, (before.shape[1], -1))).flatten())
