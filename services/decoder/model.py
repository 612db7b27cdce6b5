"""The video VAE as the decoder uses it: contract tensors in, pictures of 8 bits out.

Legend: T latent frames, H W latent rows and columns, C latent channels, F video frames, h w picture rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from services.pass_times import PassTimes, measure_pass_times
from services.replay import most_replayed
from services.tensor_checks import checked_tensor
from visavis.contract import CHUNK_LATENT_FRAMES
from visavis.models.reach import video_decoder_reach
from visavis.models.tensors import tensor_to_message
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.video_stream import DecoderState
from visavis.v1 import tensor_pb2


class DecoderModel:
    """A loaded VAE and the one picture size it serves."""

    def __init__(self, vae: VideoAutoencoder, picture_size: int) -> None:
        """`picture_size`: rows and columns of the square picture, a multiple of the VAE's spatial ratio."""
        rows, remainder = divmod(picture_size, vae.spatial_compression_ratio)
        if remainder or not rows:
            raise ValueError(f"{picture_size} is no multiple of {vae.spatial_compression_ratio}")
        self._vae = vae
        self.picture_size = picture_size
        # Both are known once the model is warm: the size of a state, and how many chunks make it anew.
        self.state_bytes = 0
        self.replay_chunks = 0
        self.latent_shape = (rows, rows, vae.latents_mean.shape[0])

    def warm_up(self) -> None:
        """Encodes a portrait and decodes two chunks at real shapes; finds size and reach of a session's state."""
        portrait_latent = self.encode_portrait(Image.new("RGB", (self.picture_size, self.picture_size)))
        state = self.initial_state(portrait_latent, seed=0)
        for _ in range(2):
            ((_, state),) = self.decode_chunks([torch.zeros(CHUNK_LATENT_FRAMES, *self.latent_shape)], [state])
        self._warm = state
        self.state_bytes = sum(tensor.nbytes for tensor in state.caches)
        reach = video_decoder_reach(self._vae, CHUNK_LATENT_FRAMES)
        self.replay_chunks = most_replayed(
            reach, CHUNK_LATENT_FRAMES * math.prod(self.latent_shape) * self._vae.dtype.itemsize
        )

    @torch.inference_mode()
    def encode_portrait(self, portrait: Image.Image) -> tensor_pb2.Tensor:
        """Returns the normalised latent `[1, H, W, C]` of a portrait of the model's size."""
        picture_hw3 = torch.from_numpy(np.array(portrait, dtype=np.uint8))
        picture_3hw = picture_hw3.permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1.0)
        latent_BTHWC = self._vae.encode_image(self._placed(picture_3hw)[None])
        return tensor_to_message(latent_BTHWC[0])

    @torch.inference_mode()
    def initial_state(self, portrait_latent: tensor_pb2.Tensor, seed: int) -> DecoderState:
        """Returns the state after frame 0; raises InvalidInput for a latent `[1, H, W, C]` that is none."""
        latent_THWC = checked_tensor(portrait_latent, (1, *self.latent_shape), "config.portrait_latent")
        return self._vae.initial_decoder_state(self._placed(latent_THWC)[None], seed)

    def read_latents(self, latents: tensor_pb2.Tensor, field: str = "video.latents") -> torch.Tensor:
        """Returns a chunk's latents `[3, H, W, C]`; raises InvalidInput for any others."""
        return checked_tensor(latents, (CHUNK_LATENT_FRAMES, *self.latent_shape), field)

    @torch.inference_mode()
    def decode_chunks(
        self, latents: Sequence[torch.Tensor], states: Sequence[DecoderState]
    ) -> list[tuple[npt.NDArray[np.uint8], DecoderState]]:
        """Decodes a chunk `[3, H, W, C]` of each of several sessions whose states `can_join`, in one pass.

        Returns pictures `[24, h, w, 3]` and the next state of each.
        """
        latents_BTHWC = torch.stack([self._placed(latents_THWC) for latents_THWC in latents])
        pictures_BF3hw, next_state = self._vae.decode_chunk(latents_BTHWC, DecoderState.join(states))
        return [
            (_pixels(pictures_F3hw), state)
            for pictures_F3hw, state in zip(pictures_BF3hw, next_state.split(), strict=True)
        ]

    def measure(self, most: int, budget_seconds: float) -> PassTimes:
        """Seconds of a pass by the sessions in it, up to `most`; pictures on the host included."""
        latents_THWC = torch.zeros(CHUNK_LATENT_FRAMES, *self.latent_shape)

        def run_pass(sessions: int) -> None:
            self.decode_chunks([latents_THWC] * sessions, [self._warm] * sessions)

        return measure_pass_times(run_pass, most, budget_seconds=budget_seconds)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._vae.device, self._vae.dtype)


def _pixels(pictures_F3hw: torch.Tensor) -> npt.NDArray[np.uint8]:
    """[-1, 1] to 0 to 255: `[24, h, w, 3]` on the host."""
    pixels_F3hw = pictures_F3hw.float().add(1.0).mul_(127.5).round_().to(torch.uint8)
    pixels_Fhw3: npt.NDArray[np.uint8] = pixels_F3hw.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels_Fhw3
