"""The common face of the video VAEs: pictures in [-1, 1] on one side, normalised latents on the other.

A clip has 8k+1 frames and k+1 latent frames: the first frame is encoded alone (REST, section 3.2 and appendix C;
LTX-Video, arXiv 2501.00103).

Legend: B batch, T latent frames, F video frames, H W rows and columns (of latents 1/32 of the picture's), C channels.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from visavis.models.stream_memory import StreamMemory
from visavis.models.video_stream import DecoderState, EncoderState

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """One training pass: pictures [B, F, 3, H, W], not clamped, and the posterior [B, T, H, W, C], not normalised."""

    pictures: Tensor
    mean: Tensor
    log_variance: Tensor

    def kl_divergence(self) -> Tensor:
        """KL divergence of the posterior from a standard normal, mean over all latent elements; a scalar."""
        mean, log_variance = self.mean.float(), self.log_variance.float()
        return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


class VideoAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both define `config_name`
    """What pipeline and decoder service know of a video VAE.

    The public methods run without gradients; `forward` is the way of training.
    """

    latents_mean: Tensor
    latents_std: Tensor
    spatial_compression_ratio: int
    temporal_compression_ratio: int

    def __init__(self, latent_channels: int, spatial_compression_ratio: int, temporal_compression_ratio: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.register_buffer("latents_mean", torch.zeros(latent_channels))
        self.register_buffer("latents_std", torch.ones(latent_channels))
        self.spatial_compression_ratio = spatial_compression_ratio
        self.temporal_compression_ratio = temporal_compression_ratio

    @abstractmethod
    def posterior(self, video_BF3HW: Tensor, memory: StreamMemory) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [B, T, H, W, C] of the latents, not normalised."""

    @abstractmethod
    def reconstruct(self, latents_BTHWC: Tensor) -> Tensor:
        """Pictures [B, F, 3, H, W], not clamped, of a whole clip of latents that are not normalised."""

    @abstractmethod
    def decode(self, latents_BTHWC: Tensor, seed: int = 0) -> Tensor:
        """Decodes a whole clip: normalised latents [B, k+1, H, W, C] -> pictures [B, 8k+1, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def initial_decoder_state(self, portrait_latent_BTHWC: Tensor, seed: int) -> DecoderState:
        """The state after frame 0, the portrait [B, 1, H, W, C]; `seed` draws the noise a decoder may inject."""

    @abstractmethod
    def decode_chunk(self, latents_BTHWC: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decodes the next T latent frames into 8 T pictures [B, 8T, 3, H, W] in [-1, 1]."""

    def forward(
        self, video_BF3HW: Tensor, generator: torch.Generator | None = None, latent_noise: float = 0.0
    ) -> Reconstruction:
        """Encodes, draws from the posterior and decodes, with gradients. F is 8k+1; F = 1 trains single pictures.

        `latent_noise` adds noise to what is decoded, its standard deviation relative to that of the means: no encoder
        can outgrow it.
        """
        self._check_video(video_BF3HW)
        mean, log_variance = self.posterior(video_BF3HW, StreamMemory.of_whole_clip())
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
        spread = (0.5 * log_variance).exp() + latent_noise * mean.detach().std()
        latents = mean + spread * noise
        return Reconstruction(pictures=self.reconstruct(latents), mean=mean, log_variance=log_variance)

    @torch.no_grad()
    def encode(self, video_BF3HW: Tensor) -> Tensor:
        """Encodes a whole clip of 8k+1 pictures in [-1, 1] into normalised latents [B, k+1, H, W, C] (the mean)."""
        self._check_video(video_BF3HW)
        mean, _ = self.posterior(video_BF3HW, StreamMemory.of_whole_clip())
        return self.normalise(mean)

    def encode_image(self, picture_B3HW: Tensor) -> Tensor:
        """Encodes a portrait in [-1, 1] into its normalised latent [B, 1, H, W, C]."""
        return self.encode(self._as_video(picture_B3HW))

    @torch.no_grad()
    def initial_encoder_state(self, picture_B3HW: Tensor) -> EncoderState:
        """The encoder's state after frame 0, whose latent is `encode_image(picture)`."""
        self._check_streamed_encoder()
        video = self._as_video(picture_B3HW)
        memory = StreamMemory.at_first_frame()
        self.posterior(video, memory)
        return EncoderState(caches=memory.caches())

    @torch.no_grad()
    def encode_chunk(self, video_BF3HW: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encodes the next 8 T pictures into T normalised latent frames."""
        self._check_streamed_encoder()
        self._check_pictures(video_BF3HW)
        frames = video_BF3HW.shape[1]
        if frames == 0 or frames % self.temporal_compression_ratio:
            raise ValueError(f"a chunk holds a multiple of {self.temporal_compression_ratio} frames, got {frames}")
        memory = StreamMemory.after(state.caches)
        mean, _ = self.posterior(video_BF3HW, memory)
        return self.normalise(mean), EncoderState(caches=memory.caches())

    def normalise(self, latents_BTHWC: Tensor) -> Tensor:
        """Zero mean and unit variance per channel, as the transformer wants them."""
        return (latents_BTHWC - self.latents_mean.to(latents_BTHWC)) / self.latents_std.to(latents_BTHWC)

    def denormalise(self, latents_BTHWC: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents_BTHWC * self.latents_std.to(latents_BTHWC) + self.latents_mean.to(latents_BTHWC)

    def set_latent_statistics(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Stores the per-channel statistics that `normalise` uses; they are saved with the weights."""
        channels = self.latents_mean.shape
        if mean_C.shape != channels or std_C.shape != channels or not bool((std_C > 0).all()):
            raise ValueError(f"latent statistics need {list(channels)} means and positive standard deviations")
        self.latents_mean.copy_(mean_C)
        self.latents_std.copy_(std_C)

    def _check_streamed_encoder(self) -> None:
        """Raises `ValueError` where the encoder cannot work chunk by chunk."""

    def _as_video(self, picture_B3HW: Tensor) -> Tensor:
        if picture_B3HW.ndim != 4:
            raise ValueError(f"a picture has the shape [B, 3, H, W], got {list(picture_B3HW.shape)}")
        video = picture_B3HW.unsqueeze(1)
        self._check_video(video)
        return video

    def _check_pictures(self, video_BF3HW: Tensor) -> None:
        ratio = self.spatial_compression_ratio
        if video_BF3HW.ndim != 5 or video_BF3HW.shape[2] != 3:
            raise ValueError(f"a video has the shape [B, F, 3, H, W], got {list(video_BF3HW.shape)}")
        height, width = video_BF3HW.shape[3:]
        if height == 0 or width == 0 or height % ratio or width % ratio:
            raise ValueError(f"height and width must be multiples of {ratio}, got {height} x {width}")

    def _check_video(self, video_BF3HW: Tensor) -> None:
        self._check_pictures(video_BF3HW)
        frames, ratio = video_BF3HW.shape[1], self.temporal_compression_ratio
        if frames % ratio != 1 % ratio or frames == 0:
            raise ValueError(f"a clip has {ratio} k + 1 frames, got {frames}")

    def _check_latents(self, latents_BTHWC: Tensor) -> None:
        channels = self.latents_mean.shape[0]
        if latents_BTHWC.ndim != 5 or latents_BTHWC.shape[4] != channels or 0 in latents_BTHWC.shape:
            raise ValueError(f"latents have the shape [B, T, H, W, {channels}], got {list(latents_BTHWC.shape)}")

    def _check_portrait(self, latent_BTHWC: Tensor) -> None:
        self._check_latents(latent_BTHWC)
        if latent_BTHWC.shape[1] != 1:
            raise ValueError(f"a portrait is one latent frame, got {latent_BTHWC.shape[1]}")

    def _check_fits_state(self, latents_BTHWC: Tensor, state: DecoderState) -> None:
        self._check_latents(latents_BTHWC)
        rows = {tensor.shape[0] for tensor in state.caches + state.noise}
        if rows != {latents_BTHWC.shape[0]}:
            raise ValueError(f"the state has {sorted(rows)} batch rows, the latents {latents_BTHWC.shape[0]}")
