"""A data set small enough for tests of trainings: soft blobs that open and shut a dark mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visavis.training.data.clips import Clip, clip_to_files
from visavis.training.data.shards import write_shard
from visavis.training.data.visemes import Phoneme

FRAMES, SIZE = 17, 64


def made_up_clip(index: int) -> Clip:
    random = np.random.default_rng(index)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    colour = random.uniform(60, 220, size=3)
    opened = 0.04 + 0.06 * (1 + np.sin(np.arange(FRAMES) + random.uniform(0, 6))) / 2
    centre = random.uniform(0.4, 0.6, size=2)
    mouth = ((x - centre[0]) / 0.15) ** 2 + ((y - centre[1]) / opened[:, None, None]) ** 2
    dark = np.clip(2 - mouth, 0, 1)
    frames = colour * (0.5 + 0.5 * y[..., None]) * (1 - 0.8 * dark[..., None])
    regions = [[*centre, 0.2, 0.15], [0.3, 0.2, 0.1, 0.05], [0.7, 0.2, 0.1, 0.05]]
    return Clip(
        key=f"{index:08d}",
        frames_FHW3=frames.astype(np.uint8),
        samples_S=np.zeros(640 * (FRAMES - 1), dtype=np.float32),
        actions=("jawOpen",),
        curves_FA=opened[:, None].astype(np.float32),
        head_F6=np.zeros((FRAMES, 6), dtype=np.float32),
        ellipses_FE4=np.tile(np.array(regions, dtype=np.float32), (FRAMES, 1, 1)),
        phonemes=(Phoneme("", 0.0, 0.64),),
        record={"plan": {"identity": index}},
    )


def make_dataset(folder: Path) -> Path:
    """Two shards for training and one for tests, three clips each."""
    for number, name in enumerate(("train/train-00000", "train/train-00001", "test/test-00000")):
        path = folder / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, [clip_to_files(made_up_clip(3 * number + index)) for index in range(3)])
    return folder
