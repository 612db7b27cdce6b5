"""A clip as training reads it.

Legend: F frames (121), H W picture, S samples (640 for each frame but the first), A actions, E ellipses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.training.data.clip_files import (
    ARRAYS,
    RECORD,
    SPEECH,
    VIDEO,
    ClipFileError,
    decode_arrays,
    decode_record,
    decode_speech,
    decode_video,
    encode_arrays,
    encode_record,
    encode_speech,
    encode_video,
)
from visavis.training.data.regions import REGIONS, draw_mask
from visavis.training.data.shards import ClipFiles, ShardError, read_members
from visavis.training.data.visemes import Phoneme


@dataclass(frozen=True, slots=True)
class Clip:
    """121 frames at 25 per second with their speech, rendered or from footage.

    Frame 0 is the portrait at -40 ms and has no sound; frame n covers samples [640 (n-1), 640 n). A rendered portrait's
    mouth is shut. Of footage, nobody knows actions, head and phonemes.
    """

    key: str
    # [F, H, W, 3], sRGB
    frames_FHW3: npt.NDArray[np.uint8]
    # [S], mono, 16 kHz, -1 to 1
    samples_S: npt.NDArray[np.float32]
    # ARKit names of the columns of `curves_FA` (0 to 1); none for footage
    actions: tuple[str, ...]
    curves_FA: npt.NDArray[np.float32]
    # yaw, pitch, roll in radians, shift right, back, up in metres: [F, 6]; None for footage
    head_F6: npt.NDArray[np.float32] | None
    # mouth, left eye, right eye; centre x and y, half width and height, as shares of the picture: [F, 3, 4]
    ellipses_FE4: npt.NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]
    # how the clip was made; record["plan"] has "split", "identity" and "voice", of footage as well
    record: Mapping[str, Any]

    def mask(self, region: str, rows: int, columns: int) -> npt.NDArray[np.float32]:
        """The share of each cell in "mouth" or "eyes": [F, rows, columns] from 0 to 1, at any resolution.

        Raises ValueError for another region.
        """
        if region not in ("mouth", "eyes"):
            raise ValueError(f"no region {region!r}: choose mouth or eyes")
        chosen = [row for row, name in enumerate(REGIONS) if (name == "mouth") == (region == "mouth")]
        return draw_mask(self.ellipses_FE4[:, chosen], rows, columns)


def read_shard(path: Path) -> Iterator[Clip]:
    """The clips of a shard in order. Raises ShardError for a broken one."""
    for key, members in read_members(path):
        try:
            yield clip_from_files(key, members)
        except (ClipFileError, KeyError) as error:
            raise ShardError(
                f"the shard {path.name} is broken at clip {key}: {error}; remove it and render again"
            ) from error


def clip_from_files(key: str, members: Mapping[str, bytes]) -> Clip:
    """Decodes one clip. Raises ClipFileError."""
    arrays = decode_arrays(members[ARRAYS])
    record = decode_record(members[RECORD])
    return Clip(
        key=key,
        frames_FHW3=decode_video(members[VIDEO]),
        samples_S=decode_speech(members[SPEECH]),
        actions=tuple(record["actions"]),
        curves_FA=arrays["curves"],
        head_F6=arrays.get("head"),
        ellipses_FE4=arrays["ellipses"],
        phonemes=tuple(Phoneme(symbol, start, end) for symbol, start, end in record["phonemes"]),
        record=record,
    )


def clip_to_files(clip: Clip) -> ClipFiles:
    """Encodes one clip; the record takes up the names of the actions and the phonemes."""
    head = {} if clip.head_F6 is None else {"head": clip.head_F6}
    members = {
        VIDEO: encode_video(clip.frames_FHW3),
        SPEECH: encode_speech(clip.samples_S),
        ARRAYS: encode_arrays({"curves": clip.curves_FA, **head, "ellipses": clip.ellipses_FE4}),
    }
    phonemes = [[sound.symbol, round(sound.start, 4), round(sound.end, 4)] for sound in clip.phonemes]
    record = {**clip.record, "actions": clip.actions, "phonemes": phonemes}
    return clip.key, {**members, RECORD: encode_record(record, members)}
