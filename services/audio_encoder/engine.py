"""The audio encoder's engine, alone in the worker process: speech in, speech latents out.

A step is one chunk of the session that is due first. A session that is rebuilt hears its last chunks again before the
next one, each a step of its own, due when that next one is.
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
from services.borders import MAX_KEPT as KEPT_BORDERS
from services.borders import Borders, log_way
from services.inbox import Inbox, stage_timing
from services.loaded_model import LoadedModel, load_model
from services.model_settings import ModelSettings
from services.replay import read_replay
from services.scheduling import Candidate, next_chunk
from visavis.models.reach import speech_encoder_reach
from visavis.models.speech_encoder import SpeechEncoder, SpeechEncoderState
from visavis.models.tensors import tensor_to_message
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2, chunk_pb2

# Samples of a chunk and of its lookahead.
Speech = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(slots=True)
class _Session:
    borders: Borders[SpeechEncoderState, Speech]
    inbox: Inbox[Speech] = field(default_factory=Inbox)

    def candidate(self, session_id: str) -> Candidate | None:
        """What the session has to do next, or None."""
        if self.borders.replay:
            return Candidate(session_id, self.inbox.next_deadline_seconds, 0.0, started=True)
        return self.inbox.candidate(session_id)


class AudioEncoderEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order, unless rewound."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, _Session] = {}

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Loads Whisper and SpeechAE, encodes a few chunks of silence and finds how far back a state reaches."""
        self._loaded: LoadedModel[SpeechEncoder] = load_model(self._settings, "speech_encoder")
        # The same for every session; it is never written.
        self._initial_state = self._loaded.module.initial_state()
        self._replay_chunks = speech_encoder_reach(self._loaded.module)

    def describe(self) -> EngineDescription:
        """Says which model runs."""
        return self._loaded.describe()

    def open(self, session_id: str, config: Message) -> Message:
        """Takes an EncodeConfig and returns EncodeReady; raises InvalidInput for a `resume` that cannot be."""
        assert isinstance(config, audio_encoder_pb2.EncodeConfig)
        self._sessions[session_id] = _Session(Borders(self._initial_state, KEPT_BORDERS))
        if config.HasField("resume"):
            self._go_to(session_id, config.resume, "config.resume")
        return audio_encoder_pb2.EncodeReady(model=self._loaded.identity_message(), replay_chunks=self._replay_chunks)

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes the next SpeechChunk of a session; raises InvalidInput for wrong or impossible samples."""
        assert isinstance(item, audio_encoder_pb2.SpeechChunk)
        self._sessions[session_id].inbox.put(item.header, read_samples(item), arrival_seconds)

    def rewind(self, session_id: str, rewind: Message) -> None:
        """Takes an EncodeRewind; raises InvalidInput for a replay that cannot be."""
        assert isinstance(rewind, audio_encoder_pb2.EncodeRewind)
        self._go_to(session_id, rewind, "rewind")

    def close(self, session_id: str) -> None:
        """Forgets a session and its waiting chunks."""
        self._sessions.pop(session_id, None)

    def call(self, request: Message) -> Message:
        """The audio encoder answers nothing outside a session."""
        raise InvalidInput(f"the audio encoder has no answer to {type(request).__name__}")

    def has_work(self) -> bool:
        """True while a chunk waits, or one to hear again."""
        return any(session.inbox.waiting or session.borders.replay for session in self._sessions.values())

    def step(self) -> Sequence[SessionOutput]:
        """Encodes the chunk that is due first."""
        candidates = (session.candidate(session_id) for session_id, session in self._sessions.items())
        chosen = next_chunk(filter(None, candidates))
        if chosen is None:
            return []
        session = self._sessions[chosen.session_id]
        if session.borders.replay:
            self._hear(session.borders.replay.popleft(), session)
            return []
        return [(chosen.session_id, self._encode(session))]

    def _go_to(self, session_id: str, rewind: audio_encoder_pb2.EncodeRewind, field: str) -> None:
        border = rewind.border
        replay = read_replay(
            rewind.replay,
            border,
            most=self._replay_chunks,
            header_of=lambda chunk: chunk.header,
            read=read_samples,
            field=f"{field}.replay",
        )
        session = self._sessions[session_id]
        session.inbox.clear()
        way = session.borders.go_to(border.chunk_index, replay)
        log_way(session_id, border.chunk_index, way, len(replay), self._replay_chunks)

    @torch.inference_mode()
    def _hear(self, speech: Speech, session: _Session) -> torch.Tensor:
        samples_S, lookahead_S = (torch.from_numpy(part) for part in speech)
        latents_TWD, state = self._loaded.module.encode_chunk(samples_S, lookahead_S, session.borders.state)
        session.borders.move_on(state)
        return latents_TWD

    def _encode(self, session: _Session) -> audio_encoder_pb2.EncodedChunk:
        chunk = session.inbox.take()
        start_seconds = time.monotonic()
        latents = tensor_to_message(self._hear(chunk.payload, session))
        timing = stage_timing(chunk.arrival_seconds, start_seconds, time.monotonic())
        speech = chunk_pb2.SpeechLatents(header=chunk.header, latents=latents)
        return audio_encoder_pb2.EncodedChunk(speech=speech, timing=timing)
