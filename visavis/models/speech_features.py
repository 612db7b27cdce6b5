"""Windowed speech features of 25 frames a second from Whisper's hidden states (paper, section A.2).

A chunk is heard through a window of 3 s of past, the chunk itself and 80 ms of future. Its features are a function of
these 64,640 samples alone, offline and live. Whisper attends in both directions, so a frame hears the whole window of
its chunk; what comes later than 80 ms after the chunk changes nothing.

B batch, S samples at 16 kHz, P positions (50 a second), L hidden states, D width, F frames, W window, X = L D channels
"""

import torch
from torch.nn import functional

from visavis.models.whisper import SAMPLES_PER_POSITION, WhisperFeatures

FRAME_SAMPLES = 640
CHUNK_FRAMES = 24
CHUNK_SAMPLES = CHUNK_FRAMES * FRAME_SAMPLES
PAST_SAMPLES = 48_000
LOOKAHEAD_SAMPLES = 1_280
CHUNK_WINDOW_SAMPLES = PAST_SAMPLES + CHUNK_SAMPLES + LOOKAHEAD_SAMPLES

FRAME_STATES = FRAME_SAMPLES // SAMPLES_PER_POSITION
MARGIN_STATES = LOOKAHEAD_SAMPLES // SAMPLES_PER_POSITION
# Per frame: 4 states before it, its own 2, 4 after it. The last 4 of the chunk's last frame are the lookahead.
WINDOW_STATES = MARGIN_STATES + FRAME_STATES + MARGIN_STATES
CHUNK_STATES = CHUNK_FRAMES * FRAME_STATES + 2 * MARGIN_STATES

# A video latent frame is 8 frames; a clip has 8k + 1.
_LATENT_FRAME_SAMPLES = 8 * FRAME_SAMPLES


def chunk_states(window_BS: torch.Tensor, whisper: WhisperFeatures) -> torch.Tensor:
    """Whisper's hidden states that the features of one chunk need: [B, 64,640] float32 -> [B, 56, L, D].

    They cover the chunk and 80 ms on either side, and are less than a quarter of the features' size: cache these.
    Raises ValueError for any other window length.
    """
    if window_BS.ndim != 2 or window_BS.shape[1] != CHUNK_WINDOW_SAMPLES:
        raise ValueError(f"window must be [B, {CHUNK_WINDOW_SAMPLES}], not {list(window_BS.shape)}")
    states_BPLD: torch.Tensor = whisper(window_BS)
    return states_BPLD[:, -CHUNK_STATES:]


def features_from_states(states_BPLD: torch.Tensor) -> torch.Tensor:
    """Gives each of a chunk's 24 frames its window of 10 states: [B, 56, L, D] -> [B, 24, 10, L * D].

    Raises ValueError for any other number of states.
    """
    if states_BPLD.ndim != 4 or states_BPLD.shape[1] != CHUNK_STATES:
        raise ValueError(f"states must be [B, {CHUNK_STATES}, L, D], not {list(states_BPLD.shape)}")
    windows_BFXW = states_BPLD.flatten(2).unfold(1, WINDOW_STATES, FRAME_STATES)
    return windows_BFXW.transpose(2, 3)


def chunk_features(window_BS: torch.Tensor, whisper: WhisperFeatures) -> torch.Tensor:
    """The features of one chunk, [B, 24, 10, L * D], from its window of 64,640 samples."""
    return features_from_states(chunk_states(window_BS, whisper))


def first_frame_features(batch_size: int, whisper: WhisperFeatures) -> torch.Tensor:
    """The features of frame 0, [B, 1, 10, L * D]: the last frame of a window of silence (design.md, section 3)."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    silence_1S = torch.zeros(1, CHUNK_WINDOW_SAMPLES, device=whisper.device)
    return chunk_features(silence_1S, whisper)[:, -1:].expand(batch_size, -1, -1, -1)


@torch.no_grad()
def clip_states(samples_S: torch.Tensor, whisper: WhisperFeatures, batch_chunks: int = 16) -> torch.Tensor:
    """The hidden states of a whole clip, chunk by chunk as a live session computes them: [S] -> [1 + N, 56, L, D].

    Entry 0 is the silence before the clip, entry i is chunk i; the last chunk is filled up with silence. Windows are
    computed `batch_chunks` at a time. Raises ValueError for a clip that is empty or not one-dimensional float32.
    """
    if samples_S.ndim != 1 or samples_S.numel() == 0 or samples_S.dtype != torch.float32:
        raise ValueError(f"samples must be a non-empty float32 [S], not {samples_S.dtype} {list(samples_S.shape)}")
    if batch_chunks < 1:
        raise ValueError(f"batch_chunks must be at least 1, not {batch_chunks}")
    windows_NS = clip_windows(samples_S.to(whisper.device))
    return torch.cat([chunk_states(part_BS, whisper) for part_BS in torch.split(windows_NS, batch_chunks)])


def clip_windows(samples_S: torch.Tensor) -> torch.Tensor:
    """Cuts a clip into the windows of its chunks: [S] -> [1 + N, 64,640]; window 0 is silence throughout."""
    chunks = -(-samples_S.shape[0] // CHUNK_SAMPLES)
    after = chunks * CHUNK_SAMPLES - samples_S.shape[0] + LOOKAHEAD_SAMPLES
    windows_NS = functional.pad(samples_S, (PAST_SAMPLES, after)).unfold(0, CHUNK_WINDOW_SAMPLES, CHUNK_SAMPLES)
    return functional.pad(windows_NS, (0, 0, 1, 0))


def clip_features_from_states(states_NPLD: torch.Tensor) -> torch.Tensor:
    """Joins what `clip_states` gave: [1 + N, 56, L, D] -> [24 N + 1, 10, L * D]."""
    return features_from_states(states_NPLD).flatten(0, 1)[CHUNK_FRAMES - 1 :]


def clip_features(samples_S: torch.Tensor, whisper: WhisperFeatures, batch_chunks: int = 16) -> torch.Tensor:
    """The features of a whole clip, [S] -> [8k + 1, 10, L * D] with the smallest k that covers it (k = S / 5120 up).

    Frame 0 is the silence before the clip. Exactly what the live session sees; for training.
    """
    latent_frames = -(-samples_S.shape[0] // _LATENT_FRAME_SAMPLES)
    return clip_features_from_states(clip_states(samples_S, whisper, batch_chunks))[: 8 * latent_frames + 1]
