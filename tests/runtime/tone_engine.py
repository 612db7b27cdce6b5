"""A small real engine for the runtime's tests: answers every speech chunk with its samples, doubled.

It speaks the audio encoder's contract. What a chunk's `lookahead` says makes it misbehave, so that tests can inject
faults through the front door.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from google.protobuf.message import Message

from visavis.runtime import worker_process
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import CapacityExhausted, InvalidInput
from visavis.v1 import audio_encoder_pb2, chunk_pb2, decoder_pb2, tensor_pb2

CRASH_SUBMIT = b"crash in submit"
CRASH_STEP = b"crash in step"
KILL = b"kill the worker"
HANG = b"hang"
REFUSE = b"refuse"
CRASH_OPEN = "crash-in-open"
SECRET = "the secret path /srv/models/secret.bin"


@dataclass(frozen=True)
class Gate:
    """Closed until somebody opens it, in whichever process; a path where there is no file yet."""

    path: Path

    def open(self) -> None:
        self.path.touch()

    def wait(self) -> None:
        while not self.path.exists():
            time.sleep(0.005)


@dataclass(frozen=True)
class ToneSettings:
    """gated: "warm up", "open", "step" or "call", which waits for the gate."""

    slots: int = 4
    gate: Gate | None = None
    gated: str = ""
    step_seconds: float = 0.0
    warm_up_seconds: float = 0.0
    call_patience_seconds: float = worker_process.CALL_PATIENCE_SECONDS
    fails_to_start: bool = False
    replay_chunks: int = 2


class ToneEngine:
    def __init__(self, settings: ToneSettings) -> None:
        self._settings = settings
        self._open: set[str] = set()
        self._pending: deque[tuple[str, audio_encoder_pb2.SpeechChunk]] = deque()

    def warm_up(self) -> None:
        time.sleep(self._settings.warm_up_seconds)
        self._pass_gate("warm up")
        if self._settings.fails_to_start:
            raise RuntimeError(SECRET)

    def describe(self) -> EngineDescription:
        return EngineDescription(
            model_name="tone",
            model_fingerprint="f" * 64,
            random_weights=True,
            slots=self._settings.slots,
            width=64,
            height=48,
            frame_rate=25,
            compatibility="tone:1",
        )

    def open(self, session_id: str, config: Message) -> Message:
        self._pass_gate("open")
        if session_id.startswith(CRASH_OPEN):
            raise RuntimeError(SECRET)
        if len(self._open) >= self._settings.slots:
            raise CapacityExhausted("the engine is full")
        self._open.add(session_id)
        return audio_encoder_pb2.EncodeReady(model=chunk_pb2.ModelIdentity(name="tone"))

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        chunk = cast(audio_encoder_pb2.SpeechChunk, item)
        if chunk.lookahead == CRASH_SUBMIT:
            raise RuntimeError(SECRET)
        self._pending.append((session_id, chunk))

    def rewind(self, session_id: str, rewind: Message) -> None:
        replay = cast(audio_encoder_pb2.EncodeRewind, rewind).replay
        if len(replay) > self._settings.replay_chunks:
            raise InvalidInput("too many", "rewind.replay")
        self._drop(session_id)

    def close(self, session_id: str) -> None:
        self._open.discard(session_id)
        self._drop(session_id)

    def _drop(self, session_id: str) -> None:
        self._pending = deque(entry for entry in self._pending if entry[0] != session_id)

    def call(self, request: Message) -> Message:
        portrait = cast(decoder_pb2.EncodePortraitRequest, request).portrait
        self._pass_gate("call")
        if portrait == b"crash":
            raise RuntimeError(SECRET)
        if portrait == b"slow":
            time.sleep(0.5)
        if portrait == b"environment":
            return decoder_pb2.EncodePortraitResponse(thumbnail=_environment())
        return decoder_pb2.EncodePortraitResponse(thumbnail=portrait[::-1])

    def has_work(self) -> bool:
        return bool(self._pending)

    def step(self) -> Sequence[SessionOutput]:
        session_id, chunk = self._pending.popleft()
        time.sleep(self._settings.step_seconds)
        self._pass_gate("step")
        match chunk.lookahead:
            case b"crash in step":
                raise RuntimeError(SECRET)
            case b"kill the worker":
                os._exit(9)
            case b"hang":
                time.sleep(3600)
            case b"refuse":
                return [(session_id, InvalidInput("the engine does not like it", "chunk.samples"))]
        return [(session_id, _answer(chunk))]

    def _pass_gate(self, name: str) -> None:
        if self._settings.gate is not None and name == self._settings.gated:
            self._settings.gate.wait()


def _answer(chunk: audio_encoder_pb2.SpeechChunk) -> audio_encoder_pb2.EncodedChunk:
    doubled = np.frombuffer(chunk.samples, "<f4") * np.float32(2)
    answer = audio_encoder_pb2.EncodedChunk()
    answer.speech.header.CopyFrom(chunk.header)
    answer.speech.latents.data_type = tensor_pb2.DATA_TYPE_FLOAT32
    answer.speech.latents.shape.append(doubled.size)
    answer.speech.latents.data = doubled.tobytes()
    answer.timing.computed.FromMilliseconds(3)
    return answer


def _environment() -> bytes:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    values = [os.environ.get(name, "") for name in names]
    return " ".join([*values, ",".join(map(str, sorted(os.sched_getaffinity(0))))]).encode()


def create_engine(settings: ToneSettings) -> ToneEngine:
    worker_process.CALL_PATIENCE_SECONDS = settings.call_patience_seconds
    return ToneEngine(settings)
