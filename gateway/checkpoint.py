"""What another gateway needs to go on with a session, and how it is written down.

A rolling update has gateways of two versions side by side, and sessions go from either to the other. Hence:

- A new field of the state has a default, and who does not know it passes over it; the version stays. That is the rule,
  and the same holds for the messages beside the state.
- The version is that of the oldest gateways which can read a state. It grows only where these would make something
  wrong of it. They refuse it then (`CheckpointUnreadable`), and the client goes on to a gateway that can.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from gateway.input_position import InputPosition
from gateway.kept_chunk import KeptChunk
from gateway.sampling import STANDARD
from gateway.stored_fields import StoredFields
from visavis.contract import CHUNK_FRAMES, CHUNK_SAMPLES
from visavis.runtime.errors import CheckpointUnreadable
from visavis.v1.audio_encoder_pb2 import SpeechChunk
from visavis.v1.generator_pb2 import ReplayedChunk
from visavis.v1.talking_head_pb2 import SessionConfig

STATE = "session"
CONFIG = "config"
VERSION: Final = 2
# For gateways that know one way of sampling only: they would go on with any other session at any generator.
_OF_STANDARD_SAMPLING: Final = 1
# More than any history; a state that speaks of more is none of ours.
_MOST_CHUNKS: Final = 1024
_SAMPLES_BYTES: Final = 4 * CHUNK_SAMPLES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A session at the end of the last chunk that its client got."""

    config: SessionConfig
    """As the client sent it, with the seed."""
    epoch: int
    epoch_border: int
    """The chunk behind which the epoch began."""
    epoch_position: InputPosition
    """The input used there."""
    last_written: int
    chunks_written: int
    frames_written: int
    started_unix_seconds: float
    gateway_id: str
    generator_id: str
    sampling: str
    """How that generator samples: one that does it in another way cannot go on."""
    replay_chunks: Mapping[str, int]
    """By stage, how many chunks it wants replayed."""
    chunks: tuple[KeptChunk, ...]
    """The last ones, oldest first; all complete."""
    left: bool = False
    """Whether the gateway that wrote it has let go of the session: it is the last one."""


def checkpoint_state(checkpoint: Checkpoint) -> bytes:
    """Everything but the config and the chunks themselves."""
    state = {
        "version": _OF_STANDARD_SAMPLING if checkpoint.sampling == STANDARD else VERSION,
        "avatar_id": checkpoint.config.avatar_id,
        "epoch": checkpoint.epoch,
        "epoch_border": checkpoint.epoch_border,
        "epoch_position": _pair(checkpoint.epoch_position),
        "last_written": checkpoint.last_written,
        "chunks_written": checkpoint.chunks_written,
        "frames_written": checkpoint.frames_written,
        "started_unix_seconds": checkpoint.started_unix_seconds,
        "gateway_id": checkpoint.gateway_id,
        "generator_id": checkpoint.generator_id,
        "sampling": checkpoint.sampling,
        "replay_chunks": dict(checkpoint.replay_chunks),
        "left": checkpoint.left,
        "chunks": {chunk.chunk_index: _pair(chunk.position) for chunk in checkpoint.chunks},
    }
    return json.dumps(state).encode()


def chunk_names(chunk_index: int) -> tuple[str, str]:
    """The names of a chunk's two values: what was heard, what was made of it."""
    return f"heard:{chunk_index}", f"made:{chunk_index}"


def chunk_values(chunk: KeptChunk) -> dict[str, bytes]:
    """A chunk's values by their names."""
    heard, made = chunk_names(chunk.chunk_index)
    header = chunk.header()
    return {heard: chunk.heard(header).SerializeToString(), made: chunk.replayed(header).SerializeToString()}


def chunk_indices(state: bytes) -> list[int]:
    """The chunks that a state speaks of, ascending. Errors: as `read_checkpoint`."""
    return sorted(_chunk_positions(_fields_of(state)))


def was_left(state: bytes) -> bool:
    """Whether a state is the last one of the gateway that wrote it; or cannot be read, so that nothing comes of it."""
    try:
        return StoredFields.parse(state).flag("left", default=False)
    except ValueError:
        return True


def read_checkpoint(state: bytes, config: bytes, values: Mapping[str, bytes | None]) -> Checkpoint:
    """Puts a checkpoint together; chunks that are missing or broken are left out, with those before a gap.

    Errors: `ValueError` for what is no checkpoint; `CheckpointUnreadable` for one that only a newer gateway can read.
    """
    read = _fields_of(state)
    chunks: list[KeptChunk] = []
    for index, position in sorted(_chunk_positions(read).items()):
        heard, made = (values.get(name) for name in chunk_names(index))
        chunk = None if heard is None or made is None else _read_chunk(index, heard, made, InputPosition(*position))
        if chunk is None or (chunks and chunks[-1].chunk_index != index - 1):
            chunks.clear()
        if chunk is not None:
            chunks.append(chunk)
    last_written = read.integer("last_written")
    return Checkpoint(
        config=_read_config(config),
        epoch=read.integer("epoch", minimum=1),
        epoch_border=read.integer("epoch_border"),
        epoch_position=InputPosition(*read.pair("epoch_position")),
        last_written=last_written,
        chunks_written=read.integer("chunks_written", last_written),
        frames_written=read.integer("frames_written", CHUNK_FRAMES * last_written),
        started_unix_seconds=read.seconds("started_unix_seconds", time.time()),
        gateway_id=read.text("gateway_id", ""),
        generator_id=read.text("generator_id", ""),
        sampling=read.text("sampling", STANDARD),
        replay_chunks=read.integers("replay_chunks"),
        chunks=tuple(chunks),
        left=read.flag("left", default=False),
    )


def _fields_of(state: bytes) -> StoredFields:
    read = StoredFields.parse(state)
    if read.integer("version", minimum=1) > VERSION:
        raise CheckpointUnreadable("the session was served by a newer gateway than this one; another can resume it")
    return read


def _chunk_positions(read: StoredFields) -> dict[int, tuple[int, int]]:
    positions = read.pairs("chunks")
    if len(positions) > _MOST_CHUNKS:
        raise ValueError(f"{len(positions)} chunks")
    return positions


def _read_config(config: bytes) -> SessionConfig:
    try:
        return SessionConfig.FromString(config)
    except DecodeError as error:
        raise ValueError("the config is no message") from error


def _read_chunk(index: int, heard: bytes, made: bytes, position: InputPosition) -> KeptChunk | None:
    """None for values that no chunk can have; what only the model can judge, the stages do."""
    try:
        speech, replayed = SpeechChunk.FromString(heard), ReplayedChunk.FromString(made)
    except DecodeError:
        return None
    complete = replayed.speech.HasField("latents") and replayed.video.HasField("latents")
    if speech.header.chunk_index != index or len(speech.samples) != _SAMPLES_BYTES or not complete:
        return None
    return KeptChunk(
        epoch=speech.header.epoch,
        utterance_id=speech.header.utterance_id,
        chunk_index=index,
        idle=speech.header.idle,
        position=position,
        samples=speech.samples,
        lookahead=speech.lookahead,
        speech=replayed.speech.latents,
        video=replayed.video.latents,
    )


def _pair(position: InputPosition) -> tuple[int, int]:
    return position.samples, position.utterances
