"""The audio encoder's engine, alone in the worker process: speech in, speech latents out.

A step is one pass over the chunks that are due first, of as many sessions as it pays to take together
(`services.scheduling`). A session that is rebuilt hears its last chunks again before the next one, one in a pass,
due when that next one is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from google.protobuf.message import Message

from services.audio_encoder.samples import read_samples
from services.audio_encoder.settings import AudioEncoderSettings
from services.borders import MAX_KEPT as KEPT_BORDERS
from services.borders import BorderLog, Borders
from services.inbox import Inbox, WaitingChunk, stage_timing
from services.loaded_model import LoadedModel, load_model
from services.pass_times import measure_pass_times
from services.replay import read_replay
from services.scheduling import Candidate, by_urgency, next_pass
from visavis.contract import CHUNK_SAMPLES
from visavis.models.reach import speech_encoder_reach
from visavis.models.speech_encoder import SpeechEncoder, SpeechEncoderState
from visavis.models.tensors import tensor_to_message
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2, chunk_pb2

# For finding out, at the start, how long passes take.
MEASURING_SECONDS: Final = 2.0
# Samples of a chunk and of its lookahead.
Speech = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(slots=True)
class _Session:
    borders: Borders[SpeechEncoderState, Speech]
    inbox: Inbox[Speech] = field(default_factory=Inbox)

    def candidate(self, session_id: str) -> Candidate | None:
        """What the session has to do next, or None."""
        if self.borders.replay:
            return self.inbox.candidate_before(session_id, len(self.borders.replay) + bool(self.inbox.waiting))
        return self.inbox.candidate(session_id)

    def take(self) -> tuple[Speech, WaitingChunk[Speech] | None]:
        """What the session hears next, and the chunk that is answered with it; None for one that it hears again."""
        if self.borders.replay:
            return self.borders.replay.popleft(), None
        waiting = self.inbox.take()
        return waiting.payload, waiting


class AudioEncoderEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order, unless rewound."""

    def __init__(self, settings: AudioEncoderSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, _Session] = {}
        self._border_log = BorderLog()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Loads Whisper and SpeechAE, finds how far back a state reaches, and measures passes over silence."""
        self._loaded: LoadedModel[SpeechEncoder] = load_model(self._settings.model, "speech_encoder")
        # The same for every session; it is never written.
        self._initial_state = self._loaded.module.initial_state()
        self._replay_chunks = speech_encoder_reach(self._loaded.module)
        self._pass_times = measure_pass_times(
            self._encode_silence, self._settings.max_batch, budget_seconds=MEASURING_SECONDS
        )

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

    def border_counts(self) -> dict[str, int]:
        """Implements `RewindingEngine`."""
        return self._border_log.counts

    def has_work(self) -> bool:
        """True while a chunk waits, or one to hear again."""
        return any(session.inbox.waiting or session.borders.replay for session in self._sessions.values())

    def step(self) -> Sequence[SessionOutput]:
        """Encodes the chunks that are due first."""
        start_seconds = time.monotonic()
        candidates = (session.candidate(session_id) for session_id, session in self._sessions.items())
        waiting = by_urgency(filter(None, candidates))
        chosen = next_pass(waiting, self._pass_times, self._settings.max_batch, start_seconds)
        sessions = [self._sessions[one.session_id] for one in chosen]
        taken = [session.take() for session in sessions]
        latents = self._hear([speech for speech, _ in taken], sessions)
        return [
            (one.session_id, _encoded(chunk, latents_TWD, start_seconds))
            for one, (_, chunk), latents_TWD in zip(chosen, taken, latents, strict=True)
            if chunk is not None
        ]

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
        self._border_log.note(session_id, border.chunk_index, way, len(replay), self._replay_chunks)

    @torch.inference_mode()
    def _hear(self, speech: Sequence[Speech], sessions: Sequence[_Session]) -> list[torch.Tensor]:
        if not speech:
            return []
        heard = self._loaded.module.encode_chunks(
            [
                (torch.from_numpy(samples_S), torch.from_numpy(lookahead_S), session.borders.state)
                for (samples_S, lookahead_S), session in zip(speech, sessions, strict=True)
            ]
        )
        for session, (_, state) in zip(sessions, heard, strict=True):
            session.borders.move_on(state)
        return [latents_TWD for latents_TWD, _ in heard]

    def _encode_silence(self, sessions: int) -> None:
        """A pass over chunks of so many sessions; over when the device is done."""
        silence_S = torch.zeros(CHUNK_SAMPLES)
        chunks = [(silence_S, silence_S[:0], self._initial_state)] * sessions
        for latents_TWD, _ in self._loaded.module.encode_chunks(chunks):
            latents_TWD.cpu()


def _encoded(
    chunk: WaitingChunk[Speech], latents_TWD: torch.Tensor, start_seconds: float
) -> audio_encoder_pb2.EncodedChunk:
    # Copying to the host waits for the device, so the clock is read after it.
    latents = tensor_to_message(latents_TWD)
    timing = stage_timing(chunk.arrival_seconds, start_seconds, time.monotonic())
    speech = chunk_pb2.SpeechLatents(header=chunk.header, latents=latents)
    return audio_encoder_pb2.EncodedChunk(speech=speech, timing=timing)
