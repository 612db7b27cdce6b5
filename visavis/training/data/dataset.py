"""`visavis data render`: a folder of shards, rendered by several processes, resumed where it stopped.

DIR/dataset.json                 what the folder holds: seed, engines, size, assets
DIR/train/train-00000.tar ...    shards of the training split
DIR/test/test-00000.tar ...      shards of the test split: other people, other voices
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from visavis.openmp import wait_asleep
from visavis.training.data.clip_plan import Split, split_of
from visavis.training.data.clips import clip_to_files
from visavis.training.data.dataset_folder import DatasetError, add_shard, claim_folder
from visavis.training.data.rasteriser import compile_kernels
from visavis.training.data.shards import ClipFiles, shard_is_whole
from visavis.training.data.studio import FORMAT, ClipSettings, Studio
from visavis.training.data.take import SpeaksSentences
from visavis.training.data.wardrobe import Wardrobe, open_wardrobe

CLIPS_PER_SHARD = 48
_SPLITS: tuple[Split, ...] = ("train", "test")
# Clips in flight for each worker: enough to keep it busy, few enough to hold in memory.
_AHEAD = 2
_PR_SET_PDEATHSIG = 1

SpeakerFactory = Callable[[], AbstractContextManager[SpeaksSentences]]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the data set and the clips it holds."""

    path: Path
    split: Split
    clips: tuple[int, ...]

    @property
    def keys(self) -> list[str]:
        return [f"{index:08d}" for index in self.clips]


@dataclass(frozen=True, slots=True)
class Progress:
    """After a shard: how far the data set is, and how fast this run renders."""

    shard: Shard
    already_there: bool
    shards_done: int
    shards: int
    # of this run; 0 when nothing was rendered
    frames_per_second: float


def shards_of(folder: Path, clips: int) -> list[Shard]:
    """The shards that hold clips 0 to `clips` - 1, in the order in which they are rendered."""
    shards = [shard for split in _SPLITS for shard in _shards_of_split(folder, clips, split)]
    return sorted(shards, key=lambda shard: shard.clips[0])


def _shards_of_split(folder: Path, clips: int, split: Split) -> Iterator[Shard]:
    of_split = iter([index for index in range(clips) if split_of(index) == split])
    for number in count():
        chosen = tuple(islice(of_split, CLIPS_PER_SHARD))
        if not chosen:
            return
        yield Shard(folder / split / f"{split}-{number:05d}.tar", split, chosen)


def render_dataset(
    assets: Path, folder: Path, clips: int, settings: ClipSettings, workers: int, speakers: SpeakerFactory
) -> Generator[Progress]:
    """Renders what is missing, shard by shard; more clips than before add to the folder.

    Raises DatasetError when the folder holds another data set or the disk is full (finished shards stay), AssetError
    and VoiceError when parts are missing.
    """
    shards = shards_of(folder, clips)
    claim_folder(folder, _made_from(settings, open_wardrobe(assets)))
    started, frames = time.monotonic(), 0
    with ExitStack() as stack:
        render: Callable[[Sequence[int]], Iterator[ClipFiles]] | None = None
        for done, shard in enumerate(shards, start=1):
            there = shard_is_whole(shard.path, shard.keys)
            if not there:
                if render is None:
                    render = stack.enter_context(_Crew(assets, settings, workers, speakers)).render
                    started = time.monotonic()
                add_shard(shard.path, render(shard.clips))
                frames += len(shard.clips) * settings.frames
            speed = frames / (time.monotonic() - started) if frames else 0.0
            yield Progress(shard, there, done, len(shards), speed)


class _Crew:
    """Renders clips in order, in this process or in several others. Use as a context manager."""

    def __init__(self, assets: Path, settings: ClipSettings, workers: int, speakers: SpeakerFactory) -> None:
        self._start = (assets, settings, speakers)
        self._workers = workers
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._workers == 1:
            self._stack.enter_context(_working(*self._start))
        else:
            self._pool = self._stack.enter_context(_pool(self._workers, self._start))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def render(self, clips: Sequence[int]) -> Iterator[ClipFiles]:
        """The clips' files. At most two clips a worker are under way or wait to be taken."""
        if self._workers == 1:
            yield from map(_render_clip, clips)
            return
        waiting: deque[Future[ClipFiles]] = deque()
        try:
            for clip in clips:
                waiting.append(self._pool.submit(_render_clip, clip))
                if len(waiting) >= self._workers * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DatasetError("a rendering process died (out of memory?): run again with fewer --workers") from error


# Of this process: a pool's tasks find their studio nowhere else.
_studio: Studio | None = None


@contextmanager
def _working(assets: Path, settings: ClipSettings, speakers: SpeakerFactory) -> Iterator[None]:
    global _studio
    torch.set_num_threads(1)
    with speakers() as speaker:
        _studio = Studio(assets, settings, speaker)
        try:
            yield
        finally:
            _studio = None


def _render_clip(clip: int) -> ClipFiles:
    assert _studio is not None
    return clip_to_files(_studio.render(clip))


@contextmanager
def _pool(workers: int, start: tuple[Path, ClipSettings, SpeakerFactory]) -> Iterator[ProcessPoolExecutor]:
    # one core each: nothing below may start threads of its own, or wait by spinning
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ.update(one)
    wait_asleep()
    compile_kernels()  # once, not in every process
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(), *start))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int, assets: Path, settings: ClipSettings, speakers: SpeakerFactory) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent died before its worker started")
    stack = ExitStack()
    stack.enter_context(_working(assets, settings, speakers))
    atexit.register(stack.close)


def _made_from(settings: ClipSettings, wardrobe: Wardrobe) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(settings), "engines": list(settings.engines), "assets": _fingerprint(wardrobe)}


def _fingerprint(wardrobe: Wardrobe) -> str:
    """Of the asset folder's choices: another set of hair or skins would draw other people."""
    choices = [wardrobe.skins, wardrobe.hair, wardrobe.eyebrows, wardrobe.eyelashes, wardrobe.eyes]
    return hashlib.sha256(json.dumps(choices).encode()).hexdigest()[:16]
