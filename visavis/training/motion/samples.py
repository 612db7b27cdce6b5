"""What a training shows of itself: held-out people beside what the network makes of their portrait and speech.

Legend: F frames, T latent frames, H W rows and columns, C channels, S samples at 16 kHz
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from visavis.contract import CHUNK_LATENT_FRAMES
from visavis.models.pipeline import to_pixels
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.training.data.clips import Clip, read_shard
from visavis.training.data.contact_sheet import write_video
from visavis.training.motion.clips import MotionClip, MotionClips

SHOWN_PEOPLE: Final = 3
_MOMENTS: Final = 8
_SAMPLES_A_FRAME: Final = 640

Pixels = npt.NDArray[np.uint8]
# A clip's portrait and speech -> video latents [T, H, W, C] of its chunks, normalised, without the portrait's.
Generate = Callable[[MotionClip], Tensor]


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """A held-out clip as it was rendered, and as the network gets it."""

    original: Clip
    clip: MotionClip


def shown_people(shard: Path, held_out: MotionClips) -> list[ShownPerson]:
    """The first people of a shard who speak."""
    speaking = (clip for clip in read_shard(shard) if np.abs(clip.samples_S).max() > 0)
    return [ShownPerson(clip, held_out.find(clip.key)) for clip in islice(speaking, SHOWN_PEOPLE)]


@torch.no_grad()
def draw_samples(people: Sequence[ShownPerson], generate: Generate, vae: VideoAutoencoder, sheet: Path) -> None:
    """Draws `sheet` (PNG: each person's original above what the network makes) and an MP4 with sound beside it."""
    rows, films, sounds = [], [], []
    for person in people:
        made_FHW3 = decode(generate(person.clip), person.clip.picture.latents_THWC[:1], vae)
        original_FHW3 = person.original.frames_FHW3[1 : 1 + len(made_FHW3)]
        chosen = np.linspace(0, len(made_FHW3) - 1, _MOMENTS).round().astype(int)
        rows += [np.hstack(list(pictures[chosen])) for pictures in (original_FHW3, made_FHW3)]
        films.append(np.concatenate([original_FHW3, made_FHW3], axis=2))
        sounds.append(person.original.samples_S[: _SAMPLES_A_FRAME * len(made_FHW3)])
    Image.fromarray(np.vstack(rows)).save(sheet)
    write_video(np.concatenate(films), np.concatenate(sounds), sheet.with_suffix(".mp4"))


def decode(latents_THWC: Tensor, portrait_THWC: Tensor, vae: VideoAutoencoder) -> Pixels:
    """Pictures [8 T, H, W, 3] of a stream's chunks, decoded one after the other as the decoder does."""
    portrait = portrait_THWC.to(vae.device, vae.dtype)[None]
    state = vae.initial_decoder_state(portrait, seed=0)
    pictures = []
    for latents in latents_THWC.to(vae.device, vae.dtype).split(CHUNK_LATENT_FRAMES):
        chunk_BF3HW, state = vae.decode_chunk(latents[None], state)
        pictures.append(to_pixels(chunk_BF3HW[0]))
    return np.concatenate(pictures)
