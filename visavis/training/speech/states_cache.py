"""Whisper's states of many recordings on disk, so that training reads what would take longest to compute.

FOLDER/WHISPER/NAME-IDENTITY.safetensors: a batch of recordings; WHISPER is of the encoder's weights, IDENTITY of the
recordings. So states of other weights or recordings are never taken for these, and nothing grows stale.

N recordings, C chunks, P = 56 positions a chunk, L hidden states, D width, F = 1 + 24 C frames
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from visavis.models.speech_features import CHUNK_FRAMES, CHUNK_SAMPLES, clip_features_from_states, clip_states
from visavis.models.whisper import WhisperFeatures
from visavis.training.speech.recordings import Recording, RecordingBatch
from visavis.training.whole_file import save_whole

# Changes with the meaning of the files.
_FORMAT = 1


class StatesCacheError(RuntimeError):
    """States cannot be cached or read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class CachedClip:
    """The states of one recording: entry 0 is the silence before it, entry i its chunk i."""

    key: str
    voice: str
    # [1 + C, 56, L, D] float16
    states_NPLD: Tensor
    # [F]
    jaw_F: Tensor

    def features(self) -> Tensor:
        """What a live session's SpeechAE sees: [24 C + 1, 10, L D] float32."""
        return clip_features_from_states(self.states_NPLD.float())


def whisper_fingerprint(whisper: WhisperFeatures) -> str:
    """SHA-256 (hex) over the encoder's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(whisper.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def cache_states(batch: RecordingBatch, folder: Path, whisper: WhisperFeatures) -> Path:
    """The file with the batch's states, computed unless it is there already.

    Written beside its place and moved there when whole. All recordings of a batch have the same length, a whole
    number of chunks. Raises StatesCacheError when they have not, or the disk refuses.
    """
    path = folder / whisper_fingerprint(whisper)[:16] / f"{batch.name}-{batch.identity[:16]}.safetensors"
    if path.is_file():
        return path
    recordings = list(batch.recordings())
    tensors = _tensors(recordings, whisper)
    about = {"format": str(_FORMAT), "clips": json.dumps([[item.key, item.voice] for item in recordings])}
    try:
        save_whole(path, tensors, about)
    except (OSError, SafetensorError) as error:
        raise StatesCacheError(f"cannot cache speech states in {folder}: {error}") from error
    return path


def _tensors(recordings: Iterable[Recording], whisper: WhisperFeatures) -> dict[str, Tensor]:
    states, jaws = [], []
    silence_PLD = None
    for recording in recordings:
        if recording.samples_S.shape[0] % CHUNK_SAMPLES:
            raise StatesCacheError(f"clip {recording.key} has {recording.samples_S.shape[0]} samples, no whole chunks")
        states_NPLD = clip_states(torch.from_numpy(recording.samples_S), whisper).half().cpu()
        silence_PLD = states_NPLD[0]
        states.append(states_NPLD[1:])
        jaws.append(torch.from_numpy(recording.jaw_F))
    if silence_PLD is None or len({part.shape for part in states}) != 1:
        raise StatesCacheError("recordings that are cached together must be of one length, and one at least")
    if any(jaw_F.shape[0] != CHUNK_FRAMES * states[0].shape[0] + 1 for jaw_F in jaws):
        raise StatesCacheError("each recording needs a jaw value for every frame")
    return {"silence": silence_PLD.contiguous(), "states": torch.stack(states), "jaw": torch.stack(jaws).float()}


class CachedStates:
    """The clips of several cache files; a clip is read from disk when it is asked for. Use as a context manager."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Raises StatesCacheError for a file that cannot be read, and for none."""
        self._files = ExitStack()
        self._rows: list[tuple[Any, int, str, str]] = []
        for path in paths:
            try:
                file = self._files.enter_context(safe_open(path, framework="pt"))
                about = file.metadata()
                readable = about["format"] == str(_FORMAT)
                clips = json.loads(about["clips"])
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise StatesCacheError(f"{path} is broken ({error}): remove it, it will be made again") from error
            if not readable:
                raise StatesCacheError(f"{path} is of another version of visavis: remove it, it will be made again")
            self._rows += [(file, row, key, voice) for row, (key, voice) in enumerate(clips)]
        if not self._rows:
            raise StatesCacheError("no speech states are cached here")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> CachedClip:
        file, row, key, voice = self._rows[index]
        states_NPLD = torch.cat([file.get_tensor("silence")[None], file.get_slice("states")[row]])
        return CachedClip(key, voice, states_NPLD, file.get_slice("jaw")[row])

    @property
    def keys(self) -> list[str]:
        """Of all clips, in order."""
        return [key for _, _, key, _ in self._rows]

    def spread(self, wanted: int) -> list[CachedClip]:
        """Up to `wanted` clips, evenly over all."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), wanted)).round().astype(int)
        return [self[index] for index in chosen.tolist()]

    def __iter__(self) -> Iterator[CachedClip]:
        return (self[index] for index in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
