"""The decoder's engine, alone in the worker process: video latents in, encoded pictures out.

A step is one pass of torch over the chunks that are due first, of as many sessions as it pays to take together
(`services.scheduling`); pictures are encoded beside it in a few threads, so that the next chunks are decoded while the
last ones are encoded. A session that is rebuilt decodes its last chunks again before the next one, one in a pass,
due when that next one is; their pictures are thrown away.
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

from services.borders import BorderLog, Borders, kept_borders
from services.decoder.encoding_pool import EncodingPool
from services.decoder.model import DecoderModel
from services.decoder.pictures import PictureEncoder, jpeg_bytes, open_picture_encoder
from services.decoder.portrait import read_portrait
from services.decoder.segments import split_chunk
from services.decoder.settings import DecoderSettings
from services.inbox import Inbox, WaitingChunk, stage_timing
from services.loaded_model import LoadedModel, load_model
from services.replay import read_replay
from services.scheduling import Candidate, by_urgency, next_pass
from visavis.contract import CHUNK_FRAMES
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.video_stream import DecoderState
from visavis.runtime.engine import EngineDescription, SessionOutput
from visavis.runtime.errors import InvalidInput, as_visavis_error
from visavis.v1 import chunk_pb2, decoder_pb2

# With nothing to decode, a step waits this long for the encoders: their end wakes it at once, a new command after it.
ENCODER_WAIT_SECONDS: Final = 0.005
THUMBNAIL_QUALITY: Final = 90
# For finding out, at the start, how long passes take.
MEASURING_SECONDS: Final = 3.0

Answer = list[decoder_pb2.DecodedPictures]


@dataclass(frozen=True, slots=True)
class EncodingJob:
    """The pictures of one chunk on their way to the client's codec."""

    encoder: PictureEncoder
    pictures_Fhw3: npt.NDArray[np.uint8]
    skip_frames: int
    # Whether the first picture must not depend on one before.
    restart: bool
    chunk: WaitingChunk[torch.Tensor]
    start_seconds: float

    def run(self) -> Answer:
        """Encodes all but the skipped pictures; in an encoding thread."""
        frames = self.encoder.encode(self.pictures_Fhw3[self.skip_frames :], self.restart)
        timing = stage_timing(self.chunk.arrival_seconds, self.start_seconds, time.monotonic())
        return split_chunk(self.chunk.header, frames, timing, first_frame=self.skip_frames)


@dataclass(slots=True)
class _Session:
    borders: Borders[DecoderState, torch.Tensor]
    encoder: PictureEncoder
    # Of the chunk decoded last.
    epoch: int = 0
    # Frames of the next chunk that the client has already.
    skip_frames: int = 0
    inbox: Inbox[torch.Tensor] = field(default_factory=Inbox)

    def candidate(self, session_id: str) -> Candidate | None:
        """What the session has to decode next, or None."""
        if self.borders.replay:
            return self.inbox.candidate_before(session_id, len(self.borders.replay) + bool(self.inbox.waiting))
        return self.inbox.candidate(session_id)

    def take(self) -> tuple[torch.Tensor, WaitingChunk[torch.Tensor] | None]:
        """What is decoded next, and the chunk that is answered with it; None for one that is decoded again."""
        if self.borders.replay:
            return self.borders.replay.popleft(), None
        waiting = self.inbox.take()
        return waiting.payload, waiting

    def encoding_job(
        self, pictures_Fhw3: npt.NDArray[np.uint8], chunk: WaitingChunk[torch.Tensor], start_seconds: float
    ) -> EncodingJob:
        """What is left to do for the chunk that was just decoded; it is the last one now."""
        # Frames of an older epoch may have been dropped on their way to the client.
        restart = chunk.header.restart_pictures or chunk.header.epoch > self.epoch
        job = EncodingJob(self.encoder, pictures_Fhw3, self.skip_frames, restart, chunk, start_seconds)
        self.epoch, self.skip_frames = chunk.header.epoch, 0
        return job


class DecoderEngine:
    """Implements `visavis.runtime.engine.Engine`. Every chunk is answered, each session's in order, unless rewound."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, _Session] = {}
        self._border_log = BorderLog()
        # Raw pictures of a chunk are large (19 MB at 512 x 512), so few may wait for an encoder: those of one pass.
        capacity = max(2 * settings.encoding_threads, settings.max_batch)
        self._pool = EncodingPool[Answer](settings.encoding_threads, capacity)

    def warm_up(self) -> None:
        """Loads the VAE and runs portrait encoding, priming and decoding once."""
        self._loaded: LoadedModel[VideoAutoencoder] = load_model(self._settings.model, "vae")
        self._model = DecoderModel(self._loaded.module, self._loaded.preset.picture_size)
        self._model.warm_up()
        self._kept = kept_borders(self._settings.kept_borders, self._model.state_bytes)
        self._pass_times = self._model.measure(self._settings.max_batch, MEASURING_SECONDS)

    def describe(self) -> EngineDescription:
        """Says which model runs."""
        return self._loaded.describe()

    def open(self, session_id: str, config: Message) -> Message:
        """Takes a checked DecodeConfig and returns DecodeReady; raises InvalidInput for a latent that does not fit."""
        assert isinstance(config, decoder_pb2.DecodeConfig)
        size = self._model.picture_size
        state = self._model.initial_state(config.portrait_latent, config.seed)
        encoder = open_picture_encoder(config.video_format, size, size)
        self._sessions[session_id] = _Session(Borders(state, self._kept), encoder)
        self._pool.open(session_id)
        if config.HasField("resume"):
            self._go_to(session_id, config.resume, "config.resume")
        return decoder_pb2.DecodeReady(
            model=self._loaded.identity_message(), width=size, height=size, replay_chunks=self._model.replay_chunks
        )

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes the next VideoLatents of a session; raises InvalidInput where they do not fit the model."""
        assert isinstance(item, chunk_pb2.VideoLatents)
        latents_THWC = self._model.read_latents(item.latents)
        self._sessions[session_id].inbox.put(item.header, latents_THWC, arrival_seconds)

    def rewind(self, session_id: str, rewind: Message) -> None:
        """Takes a DecodeRewind; raises InvalidInput for a replay or a number of frames that cannot be."""
        assert isinstance(rewind, decoder_pb2.DecodeRewind)
        self._go_to(session_id, rewind, "rewind")

    def close(self, session_id: str) -> None:
        """Forgets a session; its unfinished pictures are never returned."""
        self._sessions.pop(session_id, None)
        self._pool.close(session_id)

    def call(self, request: Message) -> Message:
        """Answers EncodePortraitRequest; raises InvalidInput."""
        assert isinstance(request, decoder_pb2.EncodePortraitRequest)
        portrait = read_portrait(request.portrait, self._model.picture_size)
        return decoder_pb2.EncodePortraitResponse(
            portrait_latent=self._model.encode_portrait(portrait),
            model=self._loaded.identity_message(),
            thumbnail=jpeg_bytes(portrait, THUMBNAIL_QUALITY),
        )

    def border_counts(self) -> dict[str, int]:
        """Implements `RewindingEngine`."""
        return self._border_log.counts

    def has_work(self) -> bool:
        """True while a chunk waits, or one to decode again, or pictures are being encoded."""
        return not self._pool.is_idle or any(
            session.inbox.waiting or session.borders.replay for session in self._sessions.values()
        )

    def step(self) -> Sequence[SessionOutput]:
        """Decodes the chunk that is due first, or waits a little for the encoders; returns what they have finished."""
        session_ids = self._choose()
        if not session_ids:
            return self._encoded(ENCODER_WAIT_SECONDS)
        self._decode(session_ids)
        return self._encoded(0.0)

    def _choose(self) -> list[str]:
        """Whose chunks are decoded next: never more than have room in the pool, and only what fits into one batch."""
        most = min(self._settings.max_batch, self._pool.room)
        candidates = (session.candidate(session_id) for session_id, session in self._sessions.items())
        waiting = by_urgency(filter(None, candidates))
        if not waiting or not most:
            return []
        first = self._sessions[waiting[0].session_id].borders.state
        fitting = [one for one in waiting if first.can_join(self._sessions[one.session_id].borders.state)]
        return [one.session_id for one in next_pass(fitting, self._pass_times, most, time.monotonic())]

    def _go_to(self, session_id: str, rewind: decoder_pb2.DecodeRewind, field: str) -> None:
        border = rewind.border
        if rewind.skip_frames >= CHUNK_FRAMES:
            raise InvalidInput(f"a chunk has {CHUNK_FRAMES} frames; not all can be skipped", f"{field}.skip_frames")
        replay = read_replay(
            rewind.replay,
            border,
            most=self._model.replay_chunks,
            header_of=lambda video: video.header,
            read=lambda video, name: self._model.read_latents(video.latents, f"{name}.latents"),
            field=f"{field}.replay",
        )
        session = self._sessions[session_id]
        session.inbox.clear()
        self._pool.drop(session_id)
        # Whatever comes next begins with a key frame.
        session.epoch, session.skip_frames = 0, rewind.skip_frames
        way = session.borders.go_to(border.chunk_index, replay)
        self._border_log.note(session_id, border.chunk_index, way, len(replay), self._model.replay_chunks)

    def _decode(self, session_ids: Sequence[str]) -> None:
        start_seconds = time.monotonic()
        sessions = [self._sessions[session_id] for session_id in session_ids]
        taken = [session.take() for session in sessions]
        decoded = self._model.decode_chunks(
            [latents_THWC for latents_THWC, _ in taken], [session.borders.state for session in sessions]
        )
        for session_id, session, (_, chunk), (pictures_Fhw3, state) in zip(
            session_ids, sessions, taken, decoded, strict=True
        ):
            session.borders.move_on(state)
            if chunk is not None:
                self._pool.submit(session_id, session.encoding_job(pictures_Fhw3, chunk, start_seconds).run)

    def _encoded(self, timeout_seconds: float) -> list[SessionOutput]:
        outputs: list[SessionOutput] = []
        failed: set[str] = set()
        for session_id, future in self._pool.collect(timeout_seconds):
            if session_id in failed:
                continue
            error = future.exception()
            if error is None:
                outputs += ((session_id, message) for message in future.result())
            else:
                # An encoder belongs to one session: its failure ends that one, not the worker.
                failed.add(session_id)
                outputs.append((session_id, as_visavis_error(error, session_id=session_id)))
        return outputs
