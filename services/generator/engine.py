"""The generator's engine, alone in the worker process: speech latents in, video latents out.

A step is one forward pass over the chunks that are due first, as many as it pays to take together
(`services.scheduling`), each at its own time of the schedule. A session that joins, leaves or becomes urgent is seen
between two passes. The last pass of a chunk makes the context for the next one (cache source "clean"); the chunk's
latents are final before it and leave at once, and that pass runs when nothing more urgent waits. A session that is
rebuilt makes the contexts of its last chunks again, one pass each, due when its next chunk is.

A state travels as a session of its own beside the session that it belongs to:

- `leaving_id`, opened with TransferSessionRequest: the session begins no further chunk; when the one in progress is
  done, its state comes out as TransferSessionResponse messages. Closed before the session is, the session goes on.
- `arriving_id`, opened with TransferredState: takes StatePart items. The session that is then opened with
  `resume.peer` goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from google.protobuf.message import Message

from services.admission import free_memory_bytes, sessions_in_memory, sessions_in_real_time, slots_to_offer
from services.borders import BorderLog, Borders, Way, kept_borders
from services.generator.config import check_sampling
from services.generator.model import GeneratorModel
from services.generator.session import Leaving, Replayed, Session, Started
from services.generator.settings import GeneratorSettings
from services.generator.state_transfer import ArrivingState, leaving_state
from services.generator.transfer_ids import arriving_id, leaving_id
from services.inbox import stage_timing
from services.loaded_model import LoadedModel, load_model
from services.replay import read_replay
from services.scheduling import by_urgency, keep_places, next_pass
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.tensors import tensor_to_message
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput, ModelMismatch, NotFound, StageUnavailable
from visavis.v1 import chunk_pb2, generator_pb2

# For finding out, at the start, how long passes take.
MEASURING_SECONDS: Final = 4.0
# Parts of a leaving state in one step: 16 MB take about as long as a forward pass.
PARTS_PER_STEP: Final = 16


class GeneratorEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order, unless rewound."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, Session] = {}
        self._border_log = BorderLog()
        # By arriving id; and by leaving id the session whose state leaves.
        self._arriving: dict[str, ArrivingState] = {}
        self._leaving: dict[str, str] = {}
        # Of the last pass: whose rows stood where.
        self._places: list[str] = []
        # What ends transfers, for the next step.
        self._broken: list[SessionOutput] = []

    def warm_up(self) -> None:
        """Loads the transformer, generates two chunks, and measures."""
        self._loaded: LoadedModel[A2VTransformer] = load_model(
            self._settings.model, "transformer", self._settings.sampling
        )
        preset = self._loaded.preset
        self._model = GeneratorModel(
            self._loaded.module,
            preset.sampling,
            preset.latent_rows,
            preset.latent_rows,
            sink_capacity=self._settings.sink_capacity,
            execution=self._settings.execution,
            max_batch=self._settings.max_batch,
        )
        self._model.warm_up()
        self._kept = kept_borders(self._settings.kept_borders, self._model.context_bytes)
        self._measure()

    def describe(self) -> EngineDescription:
        """Says which model runs, how many sessions are taken, and how many of them the device keeps in real time."""
        return replace(self._loaded.describe(), slots=self._slots, real_time_sessions=self._real_time_sessions)

    def _measure(self) -> None:
        admission, model, together = self._settings.admission, self._model, self._settings.max_batch
        # The model is warm: what its graphs take is no longer free.
        session_bytes = model.session_bytes + (self._kept + 1) * model.context_bytes
        free_bytes = admission.memory_bytes or free_memory_bytes(model.device)
        sinks_bytes = self._settings.sink_capacity * model.avatar_bytes
        in_memory = sessions_in_memory(session_bytes, sinks_bytes, free_bytes, admission.headroom)
        self._pass_times, begin_seconds = model.measure(max(1, min(together, in_memory)), MEASURING_SECONDS)
        self._real_time_sessions = sessions_in_real_time(
            self._pass_times, model.passes, begin_seconds, admission.headroom, together
        )
        self._slots = slots_to_offer(admission, self._real_time_sessions, in_memory)

    def open(self, session_id: str, config: Message) -> Message:
        """Takes a checked GenerateConfig; the ready message lacks the lease. Raises InvalidInput for a wrong latent,
        ModelMismatch for a session that is sampled in another way.

        Also takes TransferSessionRequest and TransferredState, for a state that leaves or arrives; these are answered
        by themselves.
        """
        match config:
            case generator_pb2.TransferSessionRequest():
                return self._begin_leaving(session_id, config)
            case generator_pb2.TransferredState():
                return self._begin_arriving(session_id, config)
        assert isinstance(config, generator_pb2.GenerateConfig)
        check_sampling(config, self._loaded.identity.sampling)
        session = Session(Borders(self._model.begin(config), self._kept), config.seed)
        self._sessions[session_id] = session
        if config.resume.HasField("rewind"):
            self._go_to(session_id, config.resume.rewind, "config.resume.rewind")
        elif config.resume.HasField("peer"):
            self._settle_in(session_id, session)
        return generator_pb2.GenerateReady(
            model=self._loaded.identity_message(),
            replay_chunks=self._model.replay_chunks,
            border=chunk_pb2.ChunkBorder(epoch=session.epoch, chunk_index=session.border_index),
        )

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes the next SpeechLatents of a session, or StatePart of a state; raises InvalidInput if it is wrong."""
        if isinstance(item, generator_pb2.StatePart):
            self._arriving[session_id].add(item)
            return
        assert isinstance(item, chunk_pb2.SpeechLatents)
        speech_TWD = self._model.read_speech(item.latents)
        self._sessions[session_id].inbox.put(item.header, speech_TWD, arrival_seconds)

    def rewind(self, session_id: str, rewind: Message) -> None:
        """Takes a GenerateRewind; raises InvalidInput for a replay that cannot be. A state that leaves stays."""
        assert isinstance(rewind, generator_pb2.GenerateRewind)
        self._end_leaving(session_id, self._sessions[session_id])
        self._go_to(session_id, rewind, "rewind")

    def close(self, session_id: str) -> None:
        """Forgets a session and what it had not finished; or a transfer, and a session that is still there goes on."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._end_leaving(session_id, session)
        self._arriving.pop(session_id, None)
        owner = self._sessions.get(self._leaving.pop(session_id, ""))
        if owner is not None:
            owner.leaving = None

    def call(self, request: Message) -> Message:
        """The generator answers nothing outside a session."""
        raise InvalidInput(f"the generator has no answer to {type(request).__name__}")

    def cache_bytes(self) -> dict[str, int]:
        """Implements `CachingEngine`: keys and values on the device, of sessions' borders and of kept avatars."""
        states = (state for session in self._sessions.values() for state in session.borders.states)
        contexts = sum(state.context is not None for state in states)
        return {"context": contexts * self._model.context_bytes, "sink": self._model.sink_bytes}

    def border_counts(self) -> dict[str, int]:
        """Implements `RewindingEngine`."""
        return self._border_log.counts

    def has_work(self) -> bool:
        """True while a chunk waits or is unfinished, or a state has to leave."""
        return bool(self._broken) or any(
            session.candidate(session_id) is not None for session_id, session in self._sessions.items()
        )

    def step(self) -> Sequence[SessionOutput]:
        """Does what is due first: one forward pass (chunks are returned once their latents are final), or parts."""
        broken, self._broken = self._broken, []
        candidates = (session.candidate(session_id) for session_id, session in self._sessions.items())
        waiting = by_urgency(filter(None, candidates))
        if not waiting:
            return broken
        most_urgent = waiting[0].session_id
        if self._sessions[most_urgent].state_leaves:
            return broken + self._send_parts(most_urgent, self._sessions[most_urgent])
        computing = [one for one in waiting if not self._sessions[one.session_id].state_leaves]
        chosen = next_pass(computing, self._pass_times, self._settings.max_batch, time.monotonic())
        self._places = keep_places(self._places, [one.session_id for one in chosen])
        return broken + self._advance(self._places)

    def _advance(self, session_ids: Sequence[str]) -> list[SessionOutput]:
        batch = [(session_id, self._sessions[session_id]) for session_id in session_ids]
        chunks: list[tuple[str, Started, bool]] = []
        for session_id, session in batch:
            started = session.started = session.started or self._start(session)
            chunks.append((session_id, started, started.progress.latents_ready))
        self._model.advance([started.progress for _, started, _ in chunks])
        for _, session in batch:
            session.settle()
        return [
            (session_id, _generated(started))
            for session_id, started, was_ready in chunks
            if started.progress.latents_ready and not was_ready
        ]

    def _start(self, session: Session) -> Started:
        # A state that was kept or rebuilt says which context there is, the border says which chunk comes.
        state = replace(session.borders.state, chunk_index=session.borders.chunk_index + 1)
        if session.borders.replay:
            replayed = session.borders.replay.popleft()
            progress = self._model.begin_replay(replayed.speech_TWD, replayed.video_THWC, state)
            return Started(None, progress, time.monotonic())
        waiting = session.inbox.take()
        session.epoch = waiting.header.epoch
        start_seconds = time.monotonic()
        return Started(waiting, self._model.begin_chunk(waiting.payload, state), start_seconds)

    def _go_to(self, session_id: str, rewind: generator_pb2.GenerateRewind, field: str) -> None:
        border, session = rewind.border, self._sessions[session_id]
        replay = read_replay(
            rewind.replay,
            border,
            most=self._model.replay_chunks,
            header_of=lambda chunk: chunk.speech.header,
            read=self._read_replayed,
            field=f"{field}.replay",
        )
        session.inbox.clear()
        session.epoch = border.epoch
        way: Way = "kept"
        if not session.finishes_border(border.chunk_index):
            session.started = None
            way = session.borders.go_to(border.chunk_index, replay)
        self._border_log.note(session_id, border.chunk_index, way, len(replay), self._model.replay_chunks)

    def _read_replayed(self, chunk: generator_pb2.ReplayedChunk, field: str) -> Replayed:
        if chunk.video.header.chunk_index != chunk.speech.header.chunk_index:
            raise InvalidInput("speech and video are of different chunks", f"{field}.video.header.chunk_index")
        speech_TWD = self._model.read_speech(chunk.speech.latents, f"{field}.speech.latents")
        return Replayed(speech_TWD, self._model.read_video(chunk.video.latents, f"{field}.video.latents"))

    def _begin_leaving(self, transfer_id: str, request: generator_pb2.TransferSessionRequest) -> Message:
        session = self._sessions.get(request.session_id)
        if session is None:
            raise NotFound(f"session {request.session_id} is not here")
        self._leaving[transfer_id] = request.session_id
        session.leaving = Leaving(time.monotonic())
        return request

    def _send_parts(self, session_id: str, session: Session) -> list[SessionOutput]:
        leaving = session.leaving
        assert leaving is not None
        if leaving.messages is None:
            border = chunk_pb2.ChunkBorder(epoch=session.epoch, chunk_index=session.borders.chunk_index)
            model, context = self._loaded.identity_message(), session.borders.state.context
            leaving.messages = leaving_state(model, border, session.seed, context)
        messages = list(islice(leaving.messages, PARTS_PER_STEP))
        leaving.complete = len(messages) < PARTS_PER_STEP
        return [(leaving_id(session_id), message) for message in messages]

    def _end_leaving(self, session_id: str, session: Session) -> None:
        """The session is not what it was when its state began to leave; one that is out entirely may be used."""
        transfer_id, leaving, session.leaving = leaving_id(session_id), session.leaving, None
        if self._leaving.pop(transfer_id, None) is not None and leaving is not None and not leaving.complete:
            self._broken.append((transfer_id, StageUnavailable("the session did not stay as it was")))

    def _begin_arriving(self, transfer_id: str, state: generator_pb2.TransferredState) -> Message:
        # A generator of before there was another way of sampling says nothing of it.
        identity, sampling = self._loaded.identity, state.model.sampling or "standard"
        if (state.model.fingerprint, sampling) != (identity.fingerprint, identity.sampling):
            raise ModelMismatch(f"the state is of {state.model.name} {sampling}, which is not what runs here")
        self._arriving[transfer_id] = ArrivingState(state, self._model.context_shape, self._model.dtype)
        return state

    def _settle_in(self, session_id: str, session: Session) -> None:
        arriving = self._arriving.pop(arriving_id(session_id), None)
        if arriving is None or not arriving.complete or arriving.state.seed != session.seed:
            raise StageUnavailable("the session's state has not come from its peer")
        border = arriving.state.border
        state = replace(session.borders.state, context=arriving.context(self._model.device))
        session.epoch = border.epoch
        session.borders.jump_to(border.chunk_index, state)


def _generated(started: Started) -> generator_pb2.GeneratedChunk:
    assert started.waiting is not None
    # Copying to the host waits for the device, so the clock is read after it.
    latents = tensor_to_message(started.progress.latents_THWC)
    timing = stage_timing(started.waiting.arrival_seconds, started.start_seconds, time.monotonic())
    video = chunk_pb2.VideoLatents(header=started.waiting.header, latents=latents)
    return generator_pb2.GeneratedChunk(video=video, timing=timing)
