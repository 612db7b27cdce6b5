"""The audio encoder's engine, alone in the worker process: speech in, speech latents out.

A step is one chunk of the session that is due first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from google.protobuf.message import Message

from services.audio_encoder.samples import read_samples
from services.inbox import Inbox, stage_timing
from services.loaded_model import LoadedModel, load_model
from services.model_settings import ModelSettings
from services.scheduling import next_chunk
from visavis.contract import CHUNK_SAMPLES, LOOKAHEAD_SAMPLES
from visavis.models.speech_encoder import SpeechEncoder, SpeechEncoderState
from visavis.models.tensors import tensor_to_message
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2, chunk_pb2

# Samples of a chunk and of its lookahead.
Speech = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(slots=True)
class _Session:
    state: SpeechEncoderState
    inbox: Inbox[Speech] = field(default_factory=Inbox)


class AudioEncoderEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, _Session] = {}

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Loads Whisper and SpeechAE and encodes two chunks of silence."""
        self._loaded: LoadedModel[SpeechEncoder] = load_model(self._settings, "speech_encoder")
        # The same for every session; it is never written.
        self._initial_state = self._loaded.module.initial_state()
        state = self._initial_state
        for _ in range(2):
            _, state = self._loaded.module.encode_chunk(
                torch.zeros(CHUNK_SAMPLES), torch.zeros(LOOKAHEAD_SAMPLES), state
            )

    def describe(self) -> EngineDescription:
        """Says which model runs."""
        return self._loaded.describe()

    def open(self, session_id: str, config: Message) -> Message:
        """Takes an EncodeConfig and returns EncodeReady."""
        assert isinstance(config, audio_encoder_pb2.EncodeConfig)
        self._sessions[session_id] = _Session(self._initial_state)
        return audio_encoder_pb2.EncodeReady(model=self._loaded.identity_message())

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes the next SpeechChunk of a session; raises InvalidInput for wrong or impossible samples."""
        assert isinstance(item, audio_encoder_pb2.SpeechChunk)
        self._sessions[session_id].inbox.put(item.header, read_samples(item), arrival_seconds)

    def close(self, session_id: str) -> None:
        """Forgets a session and its waiting chunks."""
        self._sessions.pop(session_id, None)

    def call(self, request: Message) -> Message:
        """The audio encoder answers nothing outside a session."""
        raise InvalidInput(f"the audio encoder has no answer to {type(request).__name__}")

    def has_work(self) -> bool:
        """True while a chunk waits."""
        return any(session.inbox.waiting for session in self._sessions.values())

    def step(self) -> Sequence[SessionOutput]:
        """Encodes the chunk that is due first."""
        candidates = (session.inbox.candidate(session_id) for session_id, session in self._sessions.items())
        chosen = next_chunk(filter(None, candidates))
        return [] if chosen is None else [(chosen.session_id, self._encode(self._sessions[chosen.session_id]))]

    @torch.inference_mode()
    def _encode(self, session: _Session) -> audio_encoder_pb2.EncodedChunk:
        chunk = session.inbox.take()
        start_seconds = time.monotonic()
        samples_S, lookahead_S = (torch.from_numpy(part) for part in chunk.payload)
        latents_TWD, session.state = self._loaded.module.encode_chunk(samples_S, lookahead_S, session.state)
        latents = tensor_to_message(latents_TWD)
        timing = stage_timing(chunk.arrival_seconds, start_seconds, time.monotonic())
        speech = chunk_pb2.SpeechLatents(header=chunk.header, latents=latents)
        return audio_encoder_pb2.EncodedChunk(speech=speech, timing=timing)
