"""A data set with sound: blobs whose dark mouths open with the loudness of a made-up voice. 49 frames, two chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models.speech_signals import voiced_signal
from visavis.training.data.clips import Clip, clip_to_files
from visavis.training.data.shards import write_shard
from visavis.training.data.visemes import Phoneme

FRAMES, SIZE = 49, 64


def made_up_talker(index: int, frames: int = FRAMES) -> Clip:
    random = np.random.default_rng(index)
    samples = voiced_signal(640 * (frames - 1), seed=index).numpy()
    loudness = np.concatenate([[0.0], np.abs(samples).reshape(-1, 640).mean(axis=1)])
    jaw = loudness / loudness.max()
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    centre = random.uniform(0.4, 0.6, size=2)
    height = 0.02 + 0.1 * jaw
    mouth = ((x - centre[0]) / 0.15) ** 2 + ((y - centre[1]) / height[:, None, None]) ** 2
    dark = np.clip(2 - mouth, 0, 1)
    pictures = random.uniform(60, 220, size=3) * (0.5 + 0.5 * y[..., None]) * (1 - 0.8 * dark[..., None])
    ellipses = np.zeros((frames, 3, 4), dtype=np.float32)
    ellipses[:, 0, :3] = (*centre, 0.2)
    ellipses[:, 0, 3] = height + 0.03
    ellipses[:, 1], ellipses[:, 2] = (0.3, 0.2, 0.1, 0.05), (0.7, 0.2, 0.1, 0.05)
    return Clip(
        key=f"{index:08d}",
        frames_FHW3=pictures.astype(np.uint8),
        samples_S=samples,
        actions=("jawOpen",),
        curves_FA=jaw[:, None].astype(np.float32),
        head_F6=np.zeros((frames, 6), dtype=np.float32),
        ellipses_FE4=ellipses,
        phonemes=(Phoneme("", 0.0, (frames - 1) / 25),),
        record={"plan": {"identity": index, "voice": f"voice-{index % 2}"}},
    )


def make_talkers(folder: Path, frames: int = FRAMES) -> Path:
    """Two shards of five clips for training, one of three for tests."""
    first = 0
    for name, clips in (("train/train-00000", 5), ("train/train-00001", 5), ("test/test-00000", 3)):
        path = folder / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, [clip_to_files(made_up_talker(index, frames)) for index in range(first, first + clips)])
        first += clips
    return folder
