"""Starts a video VAE as nearly the best whose keys, flow and rest are linear in its latents; blocks then learn more.

The straight way through the network is fitted in closed form: a cell of a key to its principal components; those of
keys, of cells' motion, and of what motion leaves to principal components of their own, of which the first become the
latent; then the decoder's first layer by least squares from each latent with its neighbours and the one before, and the
transposes of the components out to pixels and flow. Blocks add nothing at first. Random weights take hours on two cores
to get where this begins. Some pixels can count more than others, so that more components are theirs.

Legend: T frames, H W rows and columns (of cells), C channels, K components, R rows to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory
from visavis.models.video_vae import CELL, CELL_MOTION, FRAMES, CausalVideoVAE
from visavis.models.video_vae_blocks import CellBlock, Detail
from visavis.runtime.freed_memory import return_freed_memory

# Of a token's channels, and of a latent's: for the key, its motion and what motion leaves.
_TOKEN_SHARES: Final = (0.5, 0.25, 0.25)
_LATENT_SHARES: Final = (0.8125, 0.1875, 0.0)
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

    `clips` is called twice; what the encoder sees of all of them is kept in half precision (1.1 MB a clip of 25 frames
    for `mini`).
    """
    encoder, decoder = vae.encoder, vae.decoder
    components = encoder.cells_in.out_features
    cells = _principal((_cells(clip) for clip in _in_steady_memory(clips())), components, centred=False)
    _set_ends(encoder.cells_in, decoder.pictures_out, cells, cells.scale(components))
    coded = [_coded(vae, clip) for clip in _in_steady_memory(clips())]
    keys_out = decoder.keys_out
    _start_tokens(vae, "first", coded, [_Part(slice(None), keys_out.first, 1.0, 1.0)])
    columns = (0, components, components + CELL_MOTION, encoder.steps_in.other.in_features)
    layers = (keys_out.other, decoder.motion_out, decoder.rest_out)
    ranges = [slice(start, end) for start, end in pairwise(columns)]
    parts = zip(ranges, layers, _TOKEN_SHARES, _LATENT_SHARES, strict=True)
    _start_tokens(vae, "other", coded, [_Part(*part) for part in parts])
    for kind in ("first", "other"):
        _fit_read(vae, coded, kind)
    for module in vae.modules():
        if isinstance(module, CellBlock | Detail):
            module.add_nothing()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of what the encoder sees: its columns, the decoder's layer that gives them back, and its shares."""

    columns: slice
    synthesis: nn.Linear
    of_token: float
    of_latent: float


@dataclass(frozen=True, slots=True)
class _CodedClip:
    """What the encoder sees of a clip's first frame and of each eight others [T, H, W, C], in half precision, and how
    much each cell of these, and of keys, counts [T, H, W].
    """

    first_1HWK: Tensor
    others_THWC: Tensor
    weight_THW: Tensor
    key_weight_THW: Tensor

    def rows(self, kind: str, columns: slice) -> _Rows:
        """What a layer of this kind of step reads: keys, not only frame 0, or eight frames of a cell."""
        if kind == "first":
            # The components of its key come first in what is seen of a step.
            keys_THWK = torch.cat([self.first_1HWK, self.others_THWC[..., : self.first_1HWK.shape[-1]]])
            return _Rows(keys_THWK.float().flatten(0, 2), self.key_weight_THW.flatten())
        return _Rows(self.others_THWC[..., columns].float().flatten(0, 2), self.weight_of_steps(kind))

    def weight_of_steps(self, kind: str) -> Tensor:
        """How much each token counts [R]: of frame 0, or of all others."""
        return (self.key_weight_THW[:1] if kind == "first" else self.weight_THW).flatten()


def _cells(clip: StartClip) -> _Rows:
    cells = F.pixel_unshuffle(clip.pictures_T3HW[::FRAMES], CELL).movedim(1, -1)
    return _Rows(cells.flatten(0, 2), F.avg_pool2d(clip.weight_T1HW[::FRAMES], CELL).flatten())


def _coded(vae: CausalVideoVAE, clip: StartClip) -> _CodedClip:
    first, others = vae.encoder.seen(clip.pictures_T3HW[None], StreamMemory.of_whole_clip())
    assert first is not None
    weight = F.avg_pool2d(clip.weight_T1HW, CELL)[:, 0]
    return _CodedClip(
        first[0].half(),
        others[0].half(),
        weight[1:].unflatten(0, (-1, FRAMES)).mean(dim=1),
        weight[::FRAMES],
    )


def _start_tokens(vae: CausalVideoVAE, kind: str, coded: Sequence[_CodedClip], parts: Sequence[_Part]) -> None:
    """Sets the way from what is seen to a token, from there to a latent, and from a token back to what was seen."""
    steps_in, out = getattr(vae.encoder.steps_in, kind), getattr(vae.encoder.out, kind)
    width, latent_channels = steps_in.out_features, vae.config["latent_channels"]
    spread_CC = _spread(width, width, vae.device)
    steps_in.weight.zero_()
    steps_in.bias.zero_()
    begin, sent = 0, []
    for part in parts:
        rows = (clip.rows(kind, part.columns) for clip in coded)
        found = _principal(rows, int(part.of_token * width))
        count = found.basis_CK.shape[1]
        into_latent = min(round(part.of_latent * latent_channels), count)
        scale, spread_CK = found.scale(max(into_latent, 1)), spread_CC[:, begin : begin + count]
        steps_in.weight[:, part.columns] = spread_CK @ found.basis_CK.T / scale
        steps_in.bias -= spread_CK @ (found.basis_CK.T @ found.mean_C) / scale
        part.synthesis.weight.copy_(found.basis_CK @ spread_CK.T * scale)
        part.synthesis.bias.copy_(found.mean_C)
        sent.append(spread_CK[:, :into_latent])
        begin += count
    sent_CL = torch.cat(sent, dim=1)
    out.weight[:latent_channels] = _spread(latent_channels, sent_CL.shape[1], vae.device) @ sent_CL.T
    out.bias[:latent_channels] = 0.0


def _in_steady_memory(clips: Iterable[StartClip]) -> Iterator[StartClip]:
    """The same clips. What is kept of each lies between large tensors that went; glibc would keep 40 MB a clip."""
    for number, clip in enumerate(clips):
        if number % 8 == 0:
            return_freed_memory()
        yield clip


def _principal(parts: Iterable[_Rows], components: int, *, centred: bool = True) -> _Components:
    """Weighted principal components of all rows; as many as there are dimensions at most. Around 0 if not `centred`."""
    total, sums, products = torch.zeros((), dtype=torch.float64), torch.zeros(()), torch.zeros(())
    for part in parts:
        weighted = part.weight_R[:, None] * part.values_RC
        total = total + part.weight_R.sum()
        sums = sums + weighted.sum(dim=0).double()
        products = products + (weighted.T @ part.values_RC).double()
    mean = sums / total if centred else torch.zeros_like(sums)
    variances, vectors = torch.linalg.eigh(products / total - torch.outer(mean, mean))
    variance_K = variances.flip(0)[:components].clamp_min(1e-12).float()
    return _Components(mean.float(), vectors.flip(1)[:, :components].float(), variance_K)


def _set_ends(analysis: nn.Linear, synthesis: nn.Linear, found: _Components, scale: float) -> None:
    """A layer that gives coefficients divided by `scale`, spread over its channels, and one that takes them back."""
    basis_IC = found.basis_CK @ _spread(analysis.out_features, found.basis_CK.shape[1], found.basis_CK.device).T
    analysis.weight.copy_(basis_IC.T / scale)
    synthesis.weight.copy_(basis_IC * scale)


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
        tokens = vae.encoder.steps_in(clip.first_1HWK.float()[None], clip.others_THWC.float()[None])
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
