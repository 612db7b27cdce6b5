"""The video VAE of the presets `mini` and `tiny`: 32 x 32 x 8 pixels a token, 128 channels, causal on both sides.

The principle is LTX-Video's (REST, section 3.2); the network is our own and made for two CPU cores. Frame 0 and each
eighth after it are keys, pictures of their own; the seven frames between two keys are both keys moved towards them by
optical flow, one fading into the other, and what that leaves. So no border between latents is a border in time, and a
latent holds one picture and its motion, not eight pictures (docs/decisions/0018-keys-and-motion.md).

A cell of 32 x 32 pixels becomes a few hundred components at once, and all depth works on the tokens of cells: an eighth
of the operations of convolutions at the resolution of pictures. What blocks add left out, keys, flow and rest are
linear in the latents, and training starts as the best such network (training/linear_start.py).

Legend: B batch, T latent frames, F video frames, H W rows and columns, C channels, K components of a cell, M values of
a cell's motion.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from visavis.models.optical_flow import GRID, estimate_flow, warp
from visavis.models.stream_memory import StreamMemory
from visavis.models.video_autoencoder import LOG_VARIANCE_RANGE, VideoAutoencoder
from visavis.models.video_stream import DecoderState
from visavis.models.video_vae_blocks import CellBlock, CellBlocks, Detail, pictures_of, steps_of

CELL = 32
CELL_VALUES = 3 * CELL**2
FRAMES = 8
BETWEEN = FRAMES - 1
# Of each frame between keys: flow to both keys, in two directions, at the points of a cell.
_FLOWS = BETWEEN * 2 * 2
CELL_POINTS = CELL // GRID
CELL_MOTION = _FLOWS * CELL_POINTS**2
# An untrained posterior has a standard deviation of 0.05: training starts as a plain autoencoder.
INITIAL_LOG_VARIANCE = -6.0


class ForKind(nn.Module):
    """Two linear layers: one for a clip's first step, which is one frame, one for all others, which are eight."""

    def __init__(self, first: nn.Linear, other: nn.Linear) -> None:
        super().__init__()
        self.first = first
        self.other = other

    def forward(self, first: Tensor | None, other: Tensor) -> Tensor:
        """Joins both along time; the first step is None where a stream goes on."""
        return self.other(other) if first is None else torch.cat([self.first(first), self.other(other)], dim=1)


def split_kinds(steps_BTHWC: Tensor, memory: StreamMemory) -> tuple[Tensor | None, Tensor]:
    """The clip's first step, if it is here, and the others."""
    return (steps_BTHWC[:, :1], steps_BTHWC[:, 1:]) if memory.starts_clip else (None, steps_BTHWC)


class VideoEncoder(nn.Module):
    """Pictures [B, F, 3, H, W] -> moments [B, T, H/32, W/32, 2 C]: mean, then log-variance."""

    def __init__(self, width: int, blocks: int, expansion: int, components: int, latent_channels: int) -> None:
        super().__init__()
        self.cells_in = _keeping_scale(CELL_VALUES, components, bias=False)
        seen = components + CELL_MOTION + BETWEEN * components
        self.steps_in = ForKind(_keeping_scale(components, width), _keeping_scale(seen, width))
        self.blocks = CellBlocks(width, blocks, expansion)
        self.out = ForKind(_keeping_scale(width, 2 * latent_channels), _keeping_scale(width, 2 * latent_channels))
        for layer in (self.out.first, self.out.other):
            nn.init.zeros_(layer.weight[latent_channels:])
            nn.init.constant_(layer.bias[latent_channels:], INITIAL_LOG_VARIANCE)

    def forward(self, video_BF3HW: Tensor, memory: StreamMemory) -> Tensor:
        return self.moments(self.blocks(self.steps_in(*self.seen(video_BF3HW, memory)), memory), memory)

    def seen(self, video_BF3HW: Tensor, memory: StreamMemory) -> tuple[Tensor | None, Tensor]:
        """What is known of each cell: of the first frame its components [B, 1, H, W, K], of each eight others the
        components of their key, their motion, and the components of what motion leaves [B, T, H, W, K + M + 7 K].
        """
        first, others = split_kinds(video_BF3HW, memory)
        eights = others.unflatten(1, (others.shape[1] // FRAMES, FRAMES))
        between, keys = eights[:, :, :BETWEEN], eights[:, :, BETWEEN]
        before = _keys_before(first, keys, memory)
        if not keys.shape[1]:
            assert first is not None
            components = self._components(first)
            return components, components.new_zeros(
                len(first), 0, *components.shape[2:4], self.steps_in.other.in_features
            )
        flow = _estimated_flow(between, before, keys)
        rest = between - _moved(before, keys, flow).to(between)
        motion = steps_of(F.pixel_unshuffle(flow.to(keys).flatten(0, 1).flatten(1, 3), CELL_POINTS), len(keys))
        rests = self._components(rest.flatten(1, 2)).unflatten(1, (-1, BETWEEN)).movedim(2, 4).flatten(4)
        seen = torch.cat([self._components(keys), motion, rests], dim=-1)
        return (None if first is None else self._components(first)), seen

    def moments(self, tokens_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        """Mean and log-variance of the latents, one behind the other."""
        moments: Tensor = self.out(*split_kinds(tokens_BTHWC, memory))
        return moments

    def _components(self, video_BF3HW: Tensor) -> Tensor:
        components: Tensor = self.cells_in(
            steps_of(F.pixel_unshuffle(video_BF3HW.flatten(0, 1), CELL), len(video_BF3HW))
        )
        return components


class VideoDecoder(nn.Module):
    """Latents [B, T, H/32, W/32, C] -> pictures [B, F, 3, H, W], not clamped."""

    # A latent is read with its neighbours and with the one before.
    READ_SIDE = 3
    READ_STEPS = 2

    def __init__(
        self, width: int, blocks: int, expansion: int, components: int, latent_channels: int, detail: tuple[int, int]
    ) -> None:
        super().__init__()
        values = latent_channels * self.READ_STEPS * self.READ_SIDE**2
        self.read = ForKind(_keeping_scale(values, width), _keeping_scale(values, width))
        self.blocks = CellBlocks(width, blocks, expansion)
        self.keys_out = ForKind(_keeping_scale(width, components), _keeping_scale(width, components))
        self.motion_out = _keeping_scale(width, CELL_MOTION)
        self.rest_out = _keeping_scale(width, BETWEEN * components)
        self.pictures_out = _keeping_scale(components, CELL_VALUES, bias=False)
        # Noise of untrained weights as weak as pictures are, which leave [-1, 1] nowhere and codecs something to do.
        nn.init.normal_(self.pictures_out.weight, std=0.3 * components**-0.5)
        halves = 4 * detail[0]
        self.detail_in = ForKind(nn.Linear(width, halves), nn.Linear(width, halves))
        self.detail = Detail(*detail)

    def forward(self, latents_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        steps = self.read(*split_kinds(self.neighbourhood(latents_BTHWC, memory), memory))
        first, others = split_kinds(self.blocks(steps, memory), memory)
        first_key, keys = split_kinds(self._keys(first, others), memory)
        before = _keys_before(first_key, keys, memory)
        if not keys.shape[1]:
            assert first_key is not None
            return first_key
        points = F.pixel_shuffle(pictures_of(self.motion_out(others)), CELL_POINTS)
        flow = points.unflatten(1, (BETWEEN, 2, 2)).unflatten(0, keys.shape[:2])
        rests = self._pictures(self.rest_out(others).unflatten(4, (BETWEEN, -1)).movedim(4, 2).flatten(1, 2))
        between = _moved(before, keys, flow).to(rests) + rests.unflatten(1, (-1, BETWEEN))
        eights = torch.cat([between, keys.unsqueeze(2)], dim=2).flatten(1, 2)
        return eights if first_key is None else torch.cat([first_key, eights], dim=1)

    def _keys(self, first: Tensor | None, others: Tensor) -> Tensor:
        halves = F.pixel_shuffle(pictures_of(self.detail_in(first, others)), 2)
        detail = self.detail(halves.contiguous(memory_format=torch.channels_last))
        keys: Tensor = self._pictures(self.keys_out(first, others)) + detail.unflatten(0, (len(others), -1))
        return keys

    def _pictures(self, components_BFHWK: Tensor) -> Tensor:
        cells = F.pixel_shuffle(pictures_of(self.pictures_out(components_BFHWK)), CELL)
        pictures: Tensor = cells.unflatten(0, (len(components_BFHWK), -1))
        return pictures

    @classmethod
    def neighbourhood(cls, latents_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        """[B, T, H, W, C] -> [B, T, H, W, 18 C]: the latents of 3 x 3 cells, of this step and the one before."""
        before = cls.READ_STEPS - 1
        extended = memory.extend(latents_BTHWC, dim=1, padding=before, kept=before)
        seen = torch.cat([extended[:, :-1], latents_BTHWC], dim=-1)
        side = cls.READ_SIDE
        # Beyond the picture its border goes on.
        padded = F.pad(pictures_of(seen), [side // 2] * 4, mode="replicate")
        around = F.unfold(padded, side).unflatten(2, latents_BTHWC.shape[2:4])
        return steps_of(around, len(latents_BTHWC))


class CausalVideoVAE(VideoAutoencoder):
    """A KL-regularised video autoencoder whose chunked decoding (and encoding) equals that of the whole clip.

    Any picture whose sides are multiples of 32 will do. width: channels of a token. components: of a cell of one
    frame. expansion: of the layers inside a block. detail_channels: of half a cell, and inside the layers on them.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        width: int = 384,
        components: int = 256,
        encoder_blocks: int = 3,
        decoder_blocks: int = 6,
        expansion: int = 3,
        detail_channels: tuple[int, int] = (96, 128),
        latent_channels: int = 128,
    ) -> None:
        super().__init__(latent_channels, CELL, FRAMES)
        sizes = (width, components, encoder_blocks, decoder_blocks, expansion, *detail_channels, latent_channels)
        if len(detail_channels) != 2 or min(sizes) < 1:
            raise ValueError(f"a video VAE has positive sizes and two detail_channels, got {sizes}")
        self.encoder = VideoEncoder(width, encoder_blocks, expansion, components, latent_channels)
        inner, hidden = detail_channels
        self.decoder = VideoDecoder(width, decoder_blocks, expansion, components, latent_channels, (inner, hidden))

    def posterior(self, video_BF3HW: Tensor, memory: StreamMemory) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(video_BF3HW, memory).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def reconstruct(self, latents_BTHWC: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(latents_BTHWC, StreamMemory.of_whole_clip())
        return pictures

    @torch.no_grad()
    def decode(self, latents_BTHWC: Tensor, seed: int = 0) -> Tensor:
        """As `VideoAutoencoder.decode`; no noise is injected, so `seed` changes nothing."""
        self._check_latents(latents_BTHWC)
        return self.reconstruct(self.denormalise(latents_BTHWC)).clamp(-1.0, 1.0)

    @torch.no_grad()
    def initial_decoder_state(self, portrait_latent_BTHWC: Tensor, seed: int) -> DecoderState:
        """As `VideoAutoencoder.initial_decoder_state`; no noise is injected, so `seed` changes nothing."""
        self._check_portrait(portrait_latent_BTHWC)
        memory = StreamMemory.at_first_frame()
        self.decoder(self.denormalise(portrait_latent_BTHWC), memory)
        return DecoderState(caches=memory.caches(), noise=())

    @torch.no_grad()
    def decode_chunk(self, latents_BTHWC: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        self._check_fits_state(latents_BTHWC, state)
        memory = StreamMemory.after(state.caches)
        pictures: Tensor = self.decoder(self.denormalise(latents_BTHWC), memory)
        return pictures.clamp(-1.0, 1.0), DecoderState(caches=memory.caches(), noise=())

    def straight_parameters(self) -> Iterator[nn.Parameter]:
        """The way through which a linear autoencoder goes: all that is in no block and adds no detail."""
        blocks = [module for module in self.modules() if isinstance(module, CellBlock)]
        added = [*blocks, self.decoder.detail_in, self.decoder.detail]
        residual = {id(parameter) for module in added for parameter in module.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in residual)


def _keys_before(first: Tensor | None, keys_BT3HW: Tensor, memory: StreamMemory) -> Tensor:
    """The key before each of these, [B, T, 3, H, W]; remembers the last for the stream."""
    known = keys_BT3HW if first is None else torch.cat([first, keys_BT3HW], dim=1)
    before: Tensor = memory.extend(known, dim=1, padding=0, kept=1)[:, : keys_BT3HW.shape[1]]
    return before


def _estimated_flow(between_BTF3HW: Tensor, before_BT3HW: Tensor, keys_BT3HW: Tensor) -> Tensor:
    """Flow [B, T, 7, 2, 2, h, w] of the frames between keys to the key before and to the next one, in float32."""
    references = torch.stack([before_BT3HW, keys_BT3HW], dim=2).float().mean(dim=3)
    pictures = between_BTF3HW.float().mean(dim=3)
    flow = estimate_flow(pictures.flatten(0, 2), references.flatten(0, 1).repeat_interleave(BETWEEN, dim=0))
    unfolded: Tensor = flow.unflatten(0, pictures.shape[:3])
    return unfolded


def _moved(before_BT3HW: Tensor, keys_BT3HW: Tensor, flow_BTF22hw: Tensor) -> Tensor:
    """Frames between keys, [B, T, 7, 3, H, W] in float32: both keys moved, the first fading into the second."""
    share = torch.arange(1, FRAMES, device=keys_BT3HW.device).div(FRAMES).view(-1, 1, 1, 1)
    before, after = (
        warp(key_BT3HW.flatten(0, 1).repeat_interleave(BETWEEN, dim=0), flow_BTF22hw[:, :, :, end].flatten(0, 2))
        for end, key_BT3HW in enumerate((before_BT3HW, keys_BT3HW))
    )
    moved = torch.lerp(before, after, share.repeat(len(after) // BETWEEN, 1, 1, 1))
    frames: Tensor = moved.unflatten(0, flow_BTF22hw.shape[:3])
    return frames


def _keeping_scale(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Starts a layer so that what leaves it has about the variance of what enters."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
