"""The video VAE of the presets `mini` and `tiny`: 32 x 32 x 8 pixels a token, 128 channels, causal on both sides.

The principle is LTX-Video's (REST, section 3.2); the network is our own and made for two CPU cores. A cell of 32 x 32
pixels of one frame becomes a few hundred components at once, eight frames of a cell one token, and all depth works on
these tokens: an eighth of the operations of convolutions at the resolution of pictures. The straight way through, with
what the blocks add left out, is a linear autoencoder, and training starts as the best one (training/linear_start.py).

Legend: B batch, T latent frames, F video frames, H W rows and columns, C channels, K components of a cell.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from visavis.models.stream_memory import StreamMemory
from visavis.models.video_autoencoder import LOG_VARIANCE_RANGE, VideoAutoencoder
from visavis.models.video_stream import DecoderState
from visavis.models.video_vae_blocks import CellBlock, CellBlocks, Detail, pictures_of, steps_of

CELL = 32
CELL_VALUES = 3 * CELL**2
FRAMES = 8
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
        self.cells_in = _keeping_scale(CELL_VALUES, components)
        self.steps_in = ForKind(_keeping_scale(components, width), _keeping_scale(FRAMES * components, width))
        self.blocks = CellBlocks(width, blocks, expansion)
        self.out = ForKind(_keeping_scale(width, 2 * latent_channels), _keeping_scale(width, 2 * latent_channels))
        for layer in (self.out.first, self.out.other):
            nn.init.zeros_(layer.weight[latent_channels:])
            nn.init.constant_(layer.bias[latent_channels:], INITIAL_LOG_VARIANCE)

    def forward(self, video_BF3HW: Tensor, memory: StreamMemory) -> Tensor:
        cells = F.pixel_unshuffle(video_BF3HW.flatten(0, 1), CELL)
        tokens = self.tokens(self.cells_in(steps_of(cells, len(video_BF3HW))), memory)
        return self.moments(self.blocks(tokens, memory), memory)

    def tokens(self, components_BFHWK: Tensor, memory: StreamMemory) -> Tensor:
        """Components of cells -> tokens [B, T, H, W, width], one of the first frame and one of each eight others."""
        first, others = split_kinds(components_BFHWK, memory)
        tokens: Tensor = self.steps_in(first, _frames_as_channels(others))
        return tokens

    def moments(self, tokens_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        """Mean and log-variance of the latents, one behind the other."""
        moments: Tensor = self.out(*split_kinds(tokens_BTHWC, memory))
        return moments


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
        self.cells_out = ForKind(_keeping_scale(width, components), _keeping_scale(width, FRAMES * components))
        self.pictures_out = _keeping_scale(components, CELL_VALUES)
        # Noise of untrained weights as weak as pictures are, which leave [-1, 1] nowhere and codecs something to do.
        nn.init.normal_(self.pictures_out.weight, std=0.3 * components**-0.5)
        halves = 4 * detail[0]
        self.detail_in = ForKind(nn.Linear(width, halves), nn.Linear(width, FRAMES * halves))
        self.detail = Detail(*detail)

    def forward(self, latents_BTHWC: Tensor, memory: StreamMemory) -> Tensor:
        steps = self.read(*split_kinds(self.neighbourhood(latents_BTHWC, memory), memory))
        kinds = split_kinds(self.blocks(steps, memory), memory)
        straight = F.pixel_shuffle(pictures_of(self.pictures_out(_as_frames(self.cells_out, *kinds))), CELL)
        halves = F.pixel_shuffle(pictures_of(_as_frames(self.detail_in, *kinds)), 2)
        pictures = straight + self.detail(halves.contiguous(memory_format=torch.channels_last))
        unfolded: Tensor = pictures.unflatten(0, (len(latents_BTHWC), -1))
        return unfolded

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


def _keeping_scale(inputs: int, outputs: int) -> nn.Linear:
    """Starts a layer so that what leaves it has about the variance of what enters."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def _frames_as_channels(cells_BFHWK: Tensor) -> Tensor:
    """[B, 8 T, H, W, K] -> [B, T, H, W, 8 K]."""
    eights = cells_BFHWK.unflatten(1, (cells_BFHWK.shape[1] // FRAMES, FRAMES))
    joined: Tensor = eights.movedim(2, 4).flatten(4)
    return joined


def _as_frames(layers: ForKind, first: Tensor | None, others: Tensor) -> Tensor:
    """Steps [B, T, H, W, C] -> frames [B, F, H, W, C']: one of the first step, eight of each other."""
    frames = layers.other(others).unflatten(4, (FRAMES, -1)).movedim(4, 2).flatten(1, 2)
    return frames if first is None else torch.cat([layers.first(first), frames], dim=1)
