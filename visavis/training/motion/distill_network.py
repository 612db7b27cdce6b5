"""The network that is distilled: the student with an adapter, which alone is learnt.

B streams, I chunks of a stream, T latent frames of a chunk, H W latent rows and columns, C latent channels
"""

from __future__ import annotations

from torch import Tensor

from visavis.models.a2v_dit import TIMESTEP_SCALE, A2VTransformer
from visavis.models.adapter import add_adapter
from visavis.models.sequence import forward_sequence
from visavis.models.speech_ae import SpeechAE
from visavis.training.motion.distill_stream import Stream
from visavis.training.motion.network import MotionNetwork


class FastNetwork(MotionNetwork):
    """One branch; it hears through the student's SpeechAE, which stays as it is."""

    def __init__(self, transformer: A2VTransformer, speech_ae: SpeechAE, rank: int) -> None:
        """Changes `transformer`."""
        super().__init__(transformer, speech_ae)
        add_adapter(transformer, rank)

    def forward(self, noisy_BITHWC: Tensor, levels_BI: Tensor, stream: Stream) -> Tensor:
        """The velocities of all chunks of the streams, contexts made from the finished ones: `[B, I, T, H, W, C]`."""
        return forward_sequence(
            self.transformer,
            stream.portrait_BHWC,
            noisy_BITHWC,
            levels_BI * TIMESTEP_SCALE,
            stream.speech_BITWA,
            clean_latents_BITHWC=stream.made_BITHWC,
        )
