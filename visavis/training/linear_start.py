"""Starts a video VAE as nearly the best whose keys, flow and rest are linear in its latents; blocks then learn more.

The straight way through the network is fitted in closed form: a cell of a key to its principal components; those of
keys, of cells' motion, and of what motion leaves to principal components of their own, of which the first become the
latent; then the decoder's first layer by least squares from each latent with its neighbours and the one before, and the
transposes of the components out to pixels and flow. Blocks add nothing at first. Random weights take hours on two cores
to get where this begins. Some pixels can count more than others, so that more components are theirs.

A picture has the same latent channels as a clip's first frame and as a later key, but for those in which only the first
has room for more of it: whoever goes on from a portrait need not learn a second code.

Legend: T frames, H W rows and columns (of cells), C channels, K components, R rows to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    _start_tokens(vae, coded)
    for kind in ("first", "other"):
        _fit_read(vae, coded, kind)
    for module in vae.modules():
        if isinstance(module, CellBlock | Detail):
            module.add_nothing()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of what the encoder sees of a step, and the decoder's layer that gives it back.

    Of its components so many at most go into a token, and so many of these on into a latent, divided by `scale`.
    """

    found: _Components
    scale: float
    columns: slice
    synthesis: nn.Linear
    in_token: int
    in_latent: int


@dataclass(frozen=True, slots=True)
class _CodedClip:
    """What the encoder sees of a clip's first frame and of each eight others [T, H, W, C], in half precision, and how
    much each cell of these, and of keys, counts [T, H, W].
    """

    first_1HWK: Tensor
    others_THWC: Tensor
    weight_THW: Tensor
    key_weight_THW: Tensor

    def keys(self) -> _Rows:
        """Of frame 0 and of all other keys."""
        # The components of its key come first in what is seen of a step.
        keys_THWK = torch.cat([self.first_1HWK, self.others_THWC[..., : self.first_1HWK.shape[-1]]])
        return _Rows(keys_THWK.float().flatten(0, 2), self.key_weight_THW.flatten())

    def others(self, columns: slice) -> _Rows:
        """Of each eight other frames."""
        return _Rows(self.others_THWC[..., columns].float().flatten(0, 2), self.weight_of_steps("other"))

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


def _start_tokens(vae: CausalVideoVAE, coded: Sequence[_CodedClip]) -> None:
    """Sets the way from what is seen to a token, from there to a latent, and from a token back to what was seen."""
    encoder, decoder, latent_channels = vae.encoder, vae.decoder, vae.config["latent_channels"]
    width, components = encoder.steps_in.other.out_features, encoder.cells_in.out_features
    in_token = [int(share * width) for share in _TOKEN_SHARES]
    in_latent = [round(share * latent_channels) for share in _LATENT_SHARES]
    keys = _principal((clip.keys() for clip in coded), width)
    # The same components at the same scale in both kinds of steps; the first one has room for more of them.
    scale = keys.scale(in_latent[0])
    first = _Part(keys, scale, slice(None), decoder.keys_out.first, width, latent_channels)
    others = [_Part(keys, scale, slice(components), decoder.keys_out.other, in_token[0], in_latent[0])]
    ends = (components, components + CELL_MOTION, encoder.steps_in.other.in_features)
    for number, synthesis in enumerate((decoder.motion_out, decoder.rest_out), start=1):
        columns = slice(*ends[number - 1 : number + 1])
        found = _principal((clip.others(columns) for clip in coded), in_token[number])
        scale = found.scale(max(in_latent[number], 1))
        others.append(_Part(found, scale, columns, synthesis, in_token[number], in_latent[number]))
    # One turn for both kinds of steps, so that a key has the same channels in both.
    token_turn, latent_turn = _turn(width, vae.device), _turn(latent_channels, vae.device)
    _start_kind(encoder.steps_in.first, encoder.out.first, [first], token_turn, latent_turn)
    _start_kind(encoder.steps_in.other, encoder.out.other, others, token_turn, latent_turn)


def _start_kind(
    steps_in: nn.Linear, out: nn.Linear, parts: Sequence[_Part], token_turn_CC: Tensor, latent_turn_CC: Tensor
) -> None:
    """Parts take the channels of tokens and of latents one after the other."""
    latent_channels = len(latent_turn_CC)
    steps_in.weight.zero_()
    steps_in.bias.zero_()
    begin, sent = 0, []
    for part in parts:
        basis_CK = part.found.basis_CK[:, : part.in_token]
        count = basis_CK.shape[1]
        turn_CK = token_turn_CC[:, begin : begin + count]
        steps_in.weight[:, part.columns] = turn_CK @ basis_CK.T / part.scale
        steps_in.bias.sub_(turn_CK @ (basis_CK.T @ part.found.mean_C) / part.scale)
        part.synthesis.weight.copy_(basis_CK @ turn_CK.T * part.scale)
        part.synthesis.bias.copy_(part.found.mean_C)
        sent.append(turn_CK[:, : part.in_latent])
        begin += count
    sent_CL = torch.cat(sent, dim=1)
    out.weight[:latent_channels] = latent_turn_CC[:, : sent_CL.shape[1]] @ sent_CL.T
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
    turn_CK = _turn(analysis.out_features, found.basis_CK.device)[:, : found.basis_CK.shape[1]]
    basis_IC = found.basis_CK @ turn_CK.T
    analysis.weight.copy_(basis_IC.T / scale)
    synthesis.weight.copy_(basis_IC * scale)


def _turn(channels: int, device: torch.device) -> Tensor:
    """Orthonormal columns [C, C] that spread coefficients over channels, so that all channels have a like scale."""
    square, _ = torch.linalg.qr(torch.randn(channels, channels))  # drawn on the CPU: alike on every device
    turned: Tensor = square.to(device)
    return turned


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
