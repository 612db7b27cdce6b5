"""Pictures and a video for looking at a data set.

Legend: F frames, H W picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.training.data.clips import Clip, clip_from_files, read_shard
from visavis.training.data.performance import FRAME_RATE
from visavis.training.data.shards import ShardError, read_members
from visavis.training.data.voices import SAMPLE_RATE_HZ


def clips_of(folder: Path, people: int) -> Iterator[Clip]:
    """Clips of different people, from all shards in turn. Raises ShardError when there is none, or for a broken one."""
    shards = sorted(folder.rglob("*.tar"))
    if not shards:
        raise ShardError(f"no shards in {folder}: is it a folder that `visavis data render` wrote?")
    seen: set[int | str] = set()
    for shard in shards:
        for clip in islice(read_shard(shard), people):
            identity = clip.record["plan"]["identity"]
            if identity not in seen:
                seen.add(identity)
                yield clip


def find_clip(folder: Path, name: str) -> Clip:
    """The clip of this key (for a rendered one its number is enough). Raises ShardError when it is not there."""
    for shard in sorted(folder.rglob("*.tar")):
        for key, files in read_members(shard):
            if key == name or key == name.zfill(len(key)):
                return clip_from_files(key, files)
    raise ShardError(f"no clip {name} in {folder}")


def draw_contact_sheet(folder: Path, destination: Path, people: int, moments: int, cell: int = 160) -> None:
    """A PNG or JPEG with a row of moments for each of up to `people` people: mouth shut first, then ever wider open.

    Raises ShardError as `clips_of`.
    """
    rows = [_row(clip, moments, cell) for clip in islice(clips_of(folder, people), people)]
    columns = 2 if len(rows) > 6 else 1
    height = -(-len(rows) // columns)
    blank = np.zeros_like(rows[0])
    rows += [blank] * (height * columns - len(rows))
    sheet = np.hstack([np.vstack(rows[start : start + height]) for start in range(0, height * columns, height)])
    destination.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(destination, quality=88)


def write_sample_video(clip: Clip, destination: Path) -> None:
    """One clip as an MP4 that any player shows, without the portrait frame before the speech."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_video(clip.frames_FHW3[1:], clip.samples_S, destination)


def write_video(pictures_FHW3: npt.NDArray[np.uint8], samples_S: npt.NDArray[np.float32], destination: Path) -> None:
    """Pictures and their 16 kHz sound as an MP4 (H.264 4:2:0, AAC), marked as synthetic."""
    with av.open(destination, "w", format="mp4") as container:
        container.metadata["comment"] = "synthetic media"
        video: Any = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "16"})
        video.height, video.width = pictures_FHW3.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE_HZ)
        audio.layout = "mono"
        for number, pixels in enumerate(pictures_FHW3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(samples_S[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux([*video.encode(), *audio.encode()])


def _row(clip: Clip, moments: int, cell: int) -> npt.NDArray[np.uint8]:
    """The portrait, then frames from the most closed to the widest open mouth."""
    mouth_height_F = clip.ellipses_FE4[:, 0, 3]
    order = np.argsort(mouth_height_F[1:], kind="stable") + 1
    chosen = order[np.linspace(0, len(order) - 1, moments - 1).astype(int)]
    pictures = [clip.frames_FHW3[0], *clip.frames_FHW3[chosen]]
    small = [
        np.asarray(Image.fromarray(picture).resize((cell, cell), Image.Resampling.LANCZOS)) for picture in pictures
    ]
    return np.hstack(small)
