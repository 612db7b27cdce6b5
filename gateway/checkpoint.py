"""What another gateway needs to go on with a session, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.input_position import InputPosition
from gateway.kept_chunk import KeptChunk
from visavis.v1.audio_encoder_pb2 import SpeechChunk
from visavis.v1.generator_pb2 import ReplayedChunk
from visavis.v1.talking_head_pb2 import SessionConfig

STATE = "session"
CONFIG = "config"
# Fields of the state; a gateway of another version resumes only what it can read.
_VERSION = 1


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
    replay_chunks: Mapping[str, int]
    """By stage, how many chunks it wants replayed."""
    chunks: tuple[KeptChunk, ...]
    """The last ones, oldest first; all complete."""
    left: bool = False
    """Whether the gateway that wrote it has let go of the session: it is the last one."""


def checkpoint_state(checkpoint: Checkpoint) -> bytes:
    """Everything but the config and the chunks themselves."""
    state = {
        "version": _VERSION,
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
    """The chunks that a state speaks of, ascending. Errors: `ValueError` for one of another version."""
    read = json.loads(state)
    if read.get("version") != _VERSION:
        raise ValueError(f"a checkpoint of version {read.get('version')}")
    return sorted(int(index) for index in read["chunks"])


def was_left(state: bytes) -> bool:
    """Whether a state is the last one of the gateway that wrote it."""
    return bool(json.loads(state).get("left"))


def read_checkpoint(state: bytes, config: bytes, values: Mapping[str, bytes | None]) -> Checkpoint:
    """Puts a checkpoint together; chunks that are missing are left out, with those before a gap."""
    read = json.loads(state)
    chunks: list[KeptChunk] = []
    for index in chunk_indices(state):
        heard, made = (values.get(name) for name in chunk_names(index))
        if heard is None or made is None:
            chunks.clear()
        else:
            chunks.append(_read_chunk(heard, made, _position(read["chunks"][str(index)])))
    return Checkpoint(
        config=SessionConfig.FromString(config),
        epoch=read["epoch"],
        epoch_border=read["epoch_border"],
        epoch_position=_position(read["epoch_position"]),
        last_written=read["last_written"],
        chunks_written=read["chunks_written"],
        frames_written=read["frames_written"],
        started_unix_seconds=read["started_unix_seconds"],
        gateway_id=read["gateway_id"],
        generator_id=read["generator_id"],
        replay_chunks=read["replay_chunks"],
        chunks=tuple(chunks),
        left=read["left"],
    )


def _read_chunk(heard: bytes, made: bytes, position: InputPosition) -> KeptChunk:
    speech, replayed = SpeechChunk.FromString(heard), ReplayedChunk.FromString(made)
    return KeptChunk(
        epoch=speech.header.epoch,
        utterance_id=speech.header.utterance_id,
        chunk_index=speech.header.chunk_index,
        idle=speech.header.idle,
        position=position,
        samples=speech.samples,
        lookahead=speech.lookahead,
        speech=replayed.speech.latents,
        video=replayed.video.latents,
    )


def _pair(position: InputPosition) -> tuple[int, int]:
    return position.samples, position.utterances


def _position(pair: list[int]) -> InputPosition:
    return InputPosition(*pair)
