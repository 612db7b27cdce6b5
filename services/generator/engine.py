"""The generator's engine, alone in the worker process: speech latents in, video latents out.

A step is one forward pass of the chunk that is due first. A session that joins, leaves or becomes urgent is seen
between two passes. The last pass of a chunk makes the context for the next one (cache source "clean"); the chunk's
latents are final before it and leave at once, and that pass runs when nothing more urgent waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from google.protobuf.message import Message

from services.generator.model import GeneratorModel
from services.generator.settings import GeneratorSettings
from services.inbox import Inbox, WaitingChunk, stage_timing
from services.loaded_model import LoadedModel, load_model
from services.scheduling import Candidate, next_chunk
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.generation import ChunkInProgress, GenerationState
from visavis.models.tensors import tensor_to_message
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import chunk_pb2, generator_pb2


@dataclass(frozen=True, slots=True)
class _Started:
    waiting: WaitingChunk[torch.Tensor]
    progress: ChunkInProgress
    start_seconds: float


@dataclass(slots=True)
class _Session:
    state: GenerationState
    inbox: Inbox[torch.Tensor] = field(default_factory=Inbox)
    started: _Started | None = None

    def candidate(self, session_id: str) -> Candidate | None:
        """What the session has to do next, or None."""
        waiting = self.inbox.candidate(session_id)
        if self.started is None:
            return waiting
        chunk = self.started.waiting
        if not self.started.progress.latents_ready:
            return Candidate(session_id, chunk.deadline_seconds, chunk.arrival_seconds, started=True)
        # Its latents are gone already; what is left serves the next chunk, and is due with it.
        deadline_seconds = math.inf if waiting is None else waiting.deadline_seconds
        return Candidate(session_id, deadline_seconds, chunk.arrival_seconds, started=True)


class GeneratorEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, _Session] = {}

    def warm_up(self) -> None:
        """Loads the transformer and generates two chunks."""
        self._loaded: LoadedModel[A2VTransformer] = load_model(self._settings.model, "transformer")
        preset = self._loaded.preset
        self._model = GeneratorModel(
            self._loaded.module, preset.sampling, preset.latent_rows, preset.latent_rows, self._settings.sink_capacity
        )
        self._model.warm_up()

    def describe(self) -> EngineDescription:
        """Says which model runs."""
        return self._loaded.describe()

    def open(self, session_id: str, config: Message) -> Message:
        """Takes a checked GenerateConfig; the ready message lacks the lease. Raises InvalidInput for a wrong latent."""
        assert isinstance(config, generator_pb2.GenerateConfig)
        self._sessions[session_id] = _Session(self._model.begin(config))
        return generator_pb2.GenerateReady(model=self._loaded.identity_message())

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes the next SpeechLatents of a session; raises InvalidInput where they do not fit the model."""
        assert isinstance(item, chunk_pb2.SpeechLatents)
        speech_TWD = self._model.read_speech(item.latents)
        self._sessions[session_id].inbox.put(item.header, speech_TWD, arrival_seconds)

    def close(self, session_id: str) -> None:
        """Forgets a session and what it had not finished."""
        self._sessions.pop(session_id, None)

    def call(self, request: Message) -> Message:
        """The generator answers nothing outside a session."""
        raise InvalidInput(f"the generator has no answer to {type(request).__name__}")

    def has_work(self) -> bool:
        """True while a chunk waits or is unfinished."""
        return any(session.inbox.waiting or session.started for session in self._sessions.values())

    def step(self) -> Sequence[SessionOutput]:
        """Runs one forward pass of the chunk that is due first; returns it when its latents are final."""
        candidates = (session.candidate(session_id) for session_id, session in self._sessions.items())
        chosen = next_chunk(filter(None, candidates))
        if chosen is None:
            return []
        return self._advance(chosen.session_id, self._sessions[chosen.session_id])

    def _advance(self, session_id: str, session: _Session) -> list[SessionOutput]:
        started = session.started = session.started or self._start(session)
        was_ready = started.progress.latents_ready
        self._model.advance(started.progress)
        if started.progress.done:
            _, session.state = started.progress.result()
            session.started = None
        if was_ready or not started.progress.latents_ready:
            return []
        return [(session_id, _generated(started))]

    def _start(self, session: _Session) -> _Started:
        waiting = session.inbox.take()
        start_seconds = time.monotonic()
        return _Started(waiting, self._model.begin_chunk(waiting.payload, session.state), start_seconds)


def _generated(started: _Started) -> generator_pb2.GeneratedChunk:
    # Copying to the host waits for the device, so the clock is read after it.
    latents = tensor_to_message(started.progress.latents_THWC)
    timing = stage_timing(started.waiting.arrival_seconds, started.start_seconds, time.monotonic())
    video = chunk_pb2.VideoLatents(header=started.waiting.header, latents=latents)
    return generator_pb2.GeneratedChunk(video=video, timing=timing)
