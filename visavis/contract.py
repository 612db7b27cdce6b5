"""Numbers of the contract that more than one part needs; protos/visavis/v1 says the same in words (a test compares)."""

from __future__ import annotations

from typing import Final

FRAME_RATE: Final = 25
# The models' sample rate; the client chooses its own between the two limits.
SAMPLE_RATE_HZ: Final = 16_000
MIN_CLIENT_SAMPLE_RATE_HZ: Final = 8_000
MAX_CLIENT_SAMPLE_RATE_HZ: Final = 96_000

CHUNK_LATENT_FRAMES: Final = 3
CHUNK_FRAMES: Final = 24
CHUNK_SAMPLES: Final = 15_360
CHUNK_SECONDS: Final = 0.96
LOOKAHEAD_SAMPLES: Final = 1_280

# Set explicitly on both sides of every channel. The largest regular message is one raw 512 x 512 frame of 0.75 MiB; the
# rest is for portraits and for latents of larger models.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_AUDIO_BYTES: Final = 1024 * 1024
MAX_PORTRAIT_BYTES: Final = 3 * 1024 * 1024
MAX_PORTRAIT_PIXELS: Final = 32_000_000
