"""Starts a video VAE as nearly the best linear autoencoder of its clips; training then adds what is not linear.

The straight way through the network is fitted in closed form: a cell of a frame to its principal components, eight
frames of a cell to theirs, of which the first become the latent; then the decoder's first layer by least squares from
each latent with its neighbours and the one before, and the transposes of the components out to pixels. Blocks add
nothing at first. Random weights take hours on two cores to get where this begins. Some pixels can count more than
others, so that more components are theirs.

Legend: T frames, H W rows and columns (of cells), C channels, K components, R rows to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory
from visavis.models.video_vae import CELL, CausalVideoVAE
from visavis.models.video_vae_blocks import CellBlock, Detail
from visavis.runtime.freed_memory import return_freed_memory

# Pictures next to each other are nearly alike: for the components of single pictures each seventh is enough.
_FRAME_STRIDE: Final = 7
# Of the inputs' mean square: what least squares may not rely on.
_RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class StartClip:
    """A clip's pictures [T, 3, H, W] in [-1, 1] and how much each pixel counts [T, 1, H, W]."""

    pictures_T3HW: Tensor
    weight_T1HW: Tensor


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows [R, C] and how much each counts [R]."""

    values_RC: Tensor
    weight_R: Tensor


@dataclass(frozen=True, slots=True)
class _Components:
    """coefficients = basis^T (row - mean), with an orthonormal basis [C, K] and falling variances [K]."""

    mean_C: Tensor
    basis_CK: Tensor
    variance_K: Tensor

    def scale(self, count: int) -> float:
        """The deviation of the first `count` coefficients."""
        return float(self.variance_K[:count].mean().sqrt())


@torch.no_grad()
def start_linear(vae: CausalVideoVAE, clips: Callable[[], Iterable[StartClip]]) -> None:
    """Sets the straight way's weights from these clips of 8k + 1 frames, two latents at least; more people are better.

    Clips are on the device of the network, which does the work.

    `clips` is called twice; the components of all of them are kept in half precision (1.3 MB a clip of 41 frames for
    `mini`).
    """
    encoder, decoder, latent_channels = vae.encoder, vae.decoder, vae.config["latent_channels"]
    cells = _principal((_cells(clip) for clip in _in_steady_memory(clips())), encoder.cells_in.out_features)
    _set_ends(encoder.cells_in, decoder.pictures_out, cells, cells.scale(encoder.cells_in.out_features))
    coded = [_coded(vae, clip) for clip in _in_steady_memory(clips())]
    for kind in ("first", "other"):
        steps_in, cells_out, out = (getattr(part, kind) for part in (encoder.steps_in, decoder.cells_out, encoder.out))
        steps = _principal((clip.rows(kind) for clip in coded), steps_in.out_features)
        spread_CK = _set_ends(steps_in, cells_out, steps, steps.scale(latent_channels))
        latents_CK = _spread(latent_channels, min(latent_channels, spread_CK.shape[1]), vae.device)
        out.weight[:latent_channels] = latents_CK @ spread_CK[:, : latents_CK.shape[1]].T
        out.bias[:latent_channels] = 0.0
    for kind in ("first", "other"):
        _fit_read(vae, coded, kind)
    for module in vae.modules():
        if isinstance(module, CellBlock | Detail):
            module.add_nothing()


@dataclass(frozen=True, slots=True)
class _CodedClip:
    """The components of a clip's cells [T, H, W, K] in half precision, and how much each cell counts [T, H, W]."""

    components_THWK: Tensor
    weight_THW: Tensor

    def rows(self, kind: str) -> _Rows:
        """What a layer of this kind of step reads: single frames, not only frame 0, or eight frames of a cell."""
        if kind == "first":
            chosen = slice(None, None, _FRAME_STRIDE)
            return _Rows(self.components_THWK[chosen].float().flatten(0, 2), self.weight_THW[chosen].flatten())
        eights = self.components_THWK[1:].float().unflatten(0, (-1, 8)).movedim(1, 3)
        return _Rows(eights.flatten(3).flatten(0, 2), self.weight_of_steps(kind))

    def weight_of_steps(self, kind: str) -> Tensor:
        """How much each token counts [R]: of frame 0, or of all others."""
        if kind == "first":
            return self.weight_THW[:1].flatten()
        weight_R: Tensor = self.weight_THW[1:].unflatten(0, (-1, 8)).mean(dim=1).flatten()
        return weight_R


def _cells(clip: StartClip) -> _Rows:
    cells = F.pixel_unshuffle(clip.pictures_T3HW[::_FRAME_STRIDE], CELL).movedim(1, -1)
    return _Rows(cells.flatten(0, 2), F.avg_pool2d(clip.weight_T1HW[::_FRAME_STRIDE], CELL).flatten())


def _coded(vae: CausalVideoVAE, clip: StartClip) -> _CodedClip:
    cells = F.pixel_unshuffle(clip.pictures_T3HW, CELL).movedim(1, -1)
    weight = F.avg_pool2d(clip.weight_T1HW, CELL)[:, 0]
    return _CodedClip(vae.encoder.cells_in(cells).half(), weight)


def _in_steady_memory(clips: Iterable[StartClip]) -> Iterator[StartClip]:
    """The same clips. What is kept of each lies between large tensors that went; glibc would keep 40 MB a clip."""
    for number, clip in enumerate(clips):
        if number % 8 == 0:
            return_freed_memory()
        yield clip


def _principal(parts: Iterable[_Rows], components: int) -> _Components:
    """Weighted principal components of all rows; as many as there are dimensions at most."""
    total, sums, products = torch.zeros((), dtype=torch.float64), torch.zeros(()), torch.zeros(())
    for part in parts:
        weighted = part.weight_R[:, None] * part.values_RC
        total = total + part.weight_R.sum()
        sums = sums + weighted.sum(dim=0).double()
        products = products + (weighted.T @ part.values_RC).double()
    mean = sums / total
    variances, vectors = torch.linalg.eigh(products / total - torch.outer(mean, mean))
    variance_K = variances.flip(0)[:components].clamp_min(1e-12).float()
    return _Components(mean.float(), vectors.flip(1)[:, :components].float(), variance_K)


def _set_ends(analysis: nn.Linear, synthesis: nn.Linear, found: _Components, scale: float) -> Tensor:
    """A layer that gives coefficients divided by `scale`, and the one that takes them back.

    Returns how coefficients are spread over channels [C, K].
    """
    spread_CK = _spread(analysis.out_features, found.basis_CK.shape[1], found.basis_CK.device)
    basis_IC = found.basis_CK @ spread_CK.T
    analysis.weight.copy_(basis_IC.T / scale)
    analysis.bias.copy_(-(found.mean_C @ basis_IC) / scale)
    synthesis.weight.copy_(basis_IC * scale)
    synthesis.bias.copy_(found.mean_C)
    return spread_CK


def _spread(channels: int, components: int, device: torch.device) -> Tensor:
    """Orthonormal columns [C, K] that spread coefficients over channels, so that all channels have a like scale."""
    square, _ = torch.linalg.qr(torch.randn(channels, channels))  # drawn on the CPU: alike on every device
    columns: Tensor = square[:, :components]
    return columns.to(device)


def _fit_read(vae: CausalVideoVAE, coded: Iterable[_CodedClip], kind: str) -> None:
    """Least squares from a latent's neighbourhood to the encoder's token, which the straight way takes to pixels."""
    layer: nn.Linear = getattr(vae.decoder.read, kind)
    size, device = layer.in_features + 1, layer.weight.device
    inputs, outputs = torch.zeros(size, size, device=device), torch.zeros(size, layer.out_features, device=device)
    for clip in coded:
        tokens = vae.encoder.tokens(clip.components_THWK.float()[None], StreamMemory.of_whole_clip())
        latents = vae.encoder.moments(tokens, StreamMemory.of_whole_clip()).chunk(2, dim=-1)[0]
        seen = vae.decoder.neighbourhood(latents, StreamMemory.of_whole_clip())
        chosen = slice(0, 1) if kind == "first" else slice(1, None)
        seen_RI = F.pad(seen[0, chosen].flatten(0, 2), (0, 1), value=1.0)
        weighted = seen_RI * clip.weight_of_steps(kind)[:, None]
        inputs += weighted.T @ seen_RI
        outputs += weighted.T @ tokens[0, chosen].flatten(0, 2)
    inputs += _RIDGE * inputs.diagonal().mean() * torch.eye(size, device=device)
    solution_IC = torch.linalg.solve(inputs.double(), outputs.double()).float()
    layer.weight.copy_(solution_IC[:-1].T)
    layer.bias.copy_(solution_IC[-1])
