"""Stage servers that keep to the contract without a model, and break it on request.

Latents and pictures are hashes of what came in and of the last `REACH` chunks before it, so that tests can tell whether
the right bytes went the right way, and whether a session that was rebuilt is as it would have been.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import grpc
import numpy as np

from visavis.runtime.boundary import answer
from visavis.runtime.channels import server_options
from visavis.runtime.chunk_order import ChunkPosition
from visavis.runtime.errors import (
    CapacityExhausted,
    Draining,
    InvalidInput,
    LeaseLost,
    NotFound,
    SessionMoved,
    StageUnavailable,
    VisavisError,
    error_from_rpc,
)
from visavis.runtime.lease_keeper import LeaseKeeper
from visavis.runtime.leases import LeaseStore
from visavis.runtime.registry import Registry, StageInstance
from visavis.tensors import tensor_from_numpy
from visavis.v1 import audio_encoder_pb2_grpc, chunk_pb2, decoder_pb2_grpc, generator_pb2, generator_pb2_grpc
from visavis.v1.audio_encoder_pb2 import EncodedChunk, EncodeReady, EncodeResponse
from visavis.v1.chunk_pb2 import ChunkHeader, ModelIdentity, SpeechLatents, StageTiming, VideoLatents
from visavis.v1.decoder_pb2 import DecodedPictures, DecodeReady, DecodeResponse, EncodePortraitResponse
from visavis.v1.generator_pb2 import GeneratedChunk, GenerateReady, GenerateResponse
from visavis.v1.media_pb2 import Frame
from visavis.v1.tensor_pb2 import Tensor

FINGERPRINT = "ab" * 32
SECRET = "secret of the server: /srv/models/weights.bin"
# Chunks before it that an answer depends on.
REACH: Final = 3
# What a state is made of: a digest of each of the last chunks, oldest first.
State = tuple[bytes, ...]


@dataclass
class Faults:
    """What a stage server does wrong, or slowly."""

    chunk_seconds: float = 0.0
    turns: asyncio.Semaphore | None = None
    """What a chunk waits for first; None: nothing."""
    full: bool = False
    dies_at_chunk: int = 0
    dies_at_portrait: bool = False
    hangs_at_chunk: int = 0
    skips_at_chunk: int = 0
    closes_at_chunk: int = 0
    answers_before_fault: int = 0
    """Responses of the faulty chunk that are still written."""
    refuses_transfer: bool = False
    keeps_borders: int = 2
    key_frame_every: int = 1
    """Frames from one key frame to the next; larger than 1 as with H.264."""
    fingerprint: str = FINGERPRINT
    frame_bytes: int = 64

    def at(self, chunk_index: int) -> str:
        """The fault that a chunk meets, or ""."""
        for fault in ("dies", "hangs", "closes"):
            if getattr(self, f"{fault}_at_chunk") == chunk_index:
                return fault
        return ""


class Session:
    """One session of a stage server: where it stands, what waits, what is computed."""

    def __init__(self, session_id: str, config: Any) -> None:
        self.session_id = session_id
        self.config = config
        self.position = ChunkPosition()
        self.state: State = ()
        self.kept: dict[int, State] = {0: ()}
        self.items: deque[Any] = deque()
        self.skip_frames = 0
        self.frames_since_key = 0
        self.arrived = asyncio.Event()
        self.computing: asyncio.Task[None] | None = None
        self.frozen = asyncio.Event()
        self.closed = False
        self.failed: asyncio.Future[VisavisError] = asyncio.get_running_loop().create_future()
        self.token = 0

    def fail(self, error: VisavisError) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    def go_to(self, border: Any, replayed: Sequence[bytes], *, keeps: int) -> None:
        """As the contract says: to the state kept, or to the one that comes of the replay."""
        index = border.chunk_index
        self.items.clear()
        if self.computing is not None:
            self.computing.cancel()
        kept = self.kept.get(index) if keeps else None
        self.state = kept if kept is not None else tuple(replayed)[-REACH:]
        self.kept = {i: state for i, state in self.kept.items() if i < index} | {index: self.state}
        self.position = ChunkPosition.at(border, field="border")
        self.frames_since_key = 0

    def move_on(self, digest: bytes, *, keeps: int) -> None:
        """One more chunk is done."""
        index = max(self.kept, default=0) + 1
        self.state = (*self.state, digest)[-REACH:]
        self.kept[index] = self.state
        for old in [i for i in self.kept if 0 < i < index - keeps]:
            del self.kept[old]


@dataclass
class StageServer:
    """One stage instance; subclasses say what a chunk becomes."""

    stage: ClassVar[str]
    faults: Faults = field(default_factory=Faults)
    slots: int = 4
    instance_id: str = field(default_factory=lambda: os.urandom(4).hex())
    compatibility: str = ""
    headers: list[ChunkHeader] = field(default_factory=list)
    busy: list[tuple[int, float, float]] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    configs: list[Any] = field(default_factory=list)
    rewinds: list[Any] = field(default_factory=list)
    address: str = ""
    server: grpc.aio.Server | None = None
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self.server = grpc.aio.server(options=server_options())
        self.add_to(self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)

    async def register(self, registry: Registry, **changes: Any) -> None:
        values: dict[str, Any] = {
            "stage": self.stage,
            "instance_id": self.instance_id,
            "address": self.address,
            "slots": self.slots,
            "used_slots": len(self.sessions),
            "draining": False,
            "model_name": "tiny",
            "model_fingerprint": FINGERPRINT,
            "random_weights": True,
            "width": 64,
            "height": 64,
            "frame_rate": 25,
            "compatibility": self.compatibility,
        }
        await registry.heartbeat(StageInstance(**{**values, **changes}))

    def add_to(self, server: grpc.aio.Server) -> None:
        raise NotImplementedError

    def ready(self, session: Session) -> Any:
        raise NotImplementedError

    def compute(self, session: Session, item: Any, timing: StageTiming) -> tuple[list[Any], bytes]:
        """The answers to an item, and what the state keeps of it."""
        raise NotImplementedError

    def digest(self, replayed: Any) -> bytes:
        """What the state keeps of a replayed item; as `compute` does."""
        raise NotImplementedError

    def notice(self, **fields: Any) -> Any:
        """A response that answers nothing."""
        raise NotImplementedError

    async def enter(self, stack: AsyncExitStack, session: Session) -> None:
        """Before the session is open: the generator's lease and a peer's state."""

    async def drain(self, registry: Registry) -> None:
        """Tell every session, and take no new one."""
        self.draining.set()
        await self.register(registry, draining=True)

    async def serve(self, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]) -> None:
        await answer(context, self._serve(requests, context, item_of))

    async def _serve(self, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]) -> None:
        first = await anext(requests)
        if first.WhichOneof("request") != "config":
            raise InvalidInput("config comes first")
        if self.draining.is_set():
            raise Draining("going away")
        session_id = first.config.session_id
        older = self.sessions.get(session_id)
        if older is not None:
            assert first.config.HasField("resume"), "a session is opened twice"
            older.fail(SessionMoved("resumed in another stream"))
        if self.faults.full or len(self.sessions) - (older is not None) >= self.slots:
            raise CapacityExhausted("every slot is taken", 1.5)
        session = Session(session_id, first.config)
        self.sessions[session_id] = session
        self.configs.append(first.config)
        try:
            async with AsyncExitStack() as stack:
                await self.enter(stack, session)
                self._resume(session)
                await context.write(self.ready(session))
                await self._relay(session, requests, context, item_of)
        finally:
            if self.sessions.get(session_id) is session:
                del self.sessions[session_id]

    def _resume(self, session: Session) -> None:
        if session.config.HasField("resume"):
            resume = session.config.resume
            rewind = getattr(resume, "rewind", resume)
            if rewind.HasField("border"):
                self._rewind(session, rewind)

    def _rewind(self, session: Session, rewind: Any) -> None:
        digests = [self.digest(item) for item in rewind.replay]
        session.skip_frames = getattr(rewind, "skip_frames", 0)
        session.go_to(rewind.border, digests, keeps=self.faults.keeps_borders)

    async def _relay(
        self, session: Session, requests: AsyncIterator[Any], context: Any, item_of: Callable[[Any], Any]
    ) -> None:
        writing = asyncio.Lock()

        async def write(response: Any) -> None:
            async with writing:
                await context.write(response)

        reading = asyncio.create_task(self._read(session, requests, item_of))
        computing = asyncio.create_task(self._compute_all(session, write))
        noticing = asyncio.create_task(self._notice_draining(write))
        tasks = {reading, computing, noticing}
        try:
            waits: set[asyncio.Future[Any]] = {reading, computing, session.failed}
            while not computing.done():
                done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if session.failed in done:
                    raise session.failed.result()
                for task in done:
                    task.result()
        finally:
            for each in tasks:
                each.cancel()
            if session.computing is not None:
                session.computing.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _notice_draining(self, write: Callable[[Any], Any]) -> None:
        await self.draining.wait()
        await write(self.notice(draining=chunk_pb2.Draining()))

    async def _read(self, session: Session, requests: AsyncIterator[Any], item_of: Callable[[Any], Any]) -> None:
        async for request in requests:
            if request.WhichOneof("request") == "rewind":
                session.position.go_back(request.rewind.border, field="rewind")
                self.rewinds.append(request.rewind)
                self._rewind(session, request.rewind)
            else:
                item = item_of(request)
                session.position = session.position.advance(item.header, field="chunk")
                self.headers.append(item.header)
                session.items.append(item)
            session.arrived.set()
        session.closed = True
        session.arrived.set()

    async def _compute_all(self, session: Session, write: Callable[[Any], Any]) -> None:
        while True:
            while not session.items or session.frozen.is_set():
                if session.closed:
                    return
                session.arrived.clear()
                await session.arrived.wait()
            item = session.items.popleft()
            session.computing = asyncio.create_task(self._answer(session, item, write))
            try:
                await session.computing
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise  # else a rewind dropped it

    async def _answer(self, session: Session, item: Any, write: Callable[[Any], Any]) -> None:
        index = item.header.chunk_index
        began = asyncio.get_running_loop().time()
        if self.faults.turns is not None:
            await self.faults.turns.acquire()
        await asyncio.sleep(self.faults.chunk_seconds)
        self.busy.append((index, began, asyncio.get_running_loop().time()))
        if index == self.faults.skips_at_chunk:
            item.header.chunk_index += 1
        timing = StageTiming()
        timing.queued.FromMicroseconds(100)
        timing.computed.FromMicroseconds(round(self.faults.chunk_seconds * 1e6))
        responses, digest = self.compute(session, item, timing)
        session.move_on(digest, keeps=self.faults.keeps_borders)
        fault = self.faults.at(index)
        for response in responses[: self.faults.answers_before_fault] if fault else responses:
            await write(response)
        await self._break(session, fault)

    async def _break(self, session: Session, fault: str) -> None:
        match fault:
            case "dies":
                raise RuntimeError(SECRET)
            case "hangs":
                self.hanging.set()
                await asyncio.sleep(3600)
            case "closes":
                session.closed = True
                session.items.clear()

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name="tiny", fingerprint=self.faults.fingerprint, random_weights=True)


class AudioEncoderServer(StageServer, audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    stage = "audio_encoder"

    def add_to(self, server: grpc.aio.Server) -> None:
        audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server(self, server)

    async def Encode(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.chunk)

    def ready(self, session: Session) -> EncodeResponse:
        return EncodeResponse(ready=EncodeReady(model=self.identity, replay_chunks=REACH))

    def notice(self, **fields: Any) -> EncodeResponse:
        return EncodeResponse(**fields)

    def digest(self, replayed: Any) -> bytes:
        return hashed(replayed.samples)

    def compute(self, session: Session, item: Any, timing: StageTiming) -> tuple[list[EncodeResponse], bytes]:
        if len(item.samples) != 15_360 * 4 or len(item.lookahead) > 1_280 * 4:
            raise InvalidInput("wrong number of samples")
        latents = hash_tensor(item.samples, item.lookahead, *session.state)
        speech = SpeechLatents(header=item.header, latents=latents)
        return [EncodeResponse(chunk=EncodedChunk(speech=speech, timing=timing))], self.digest(item)


@dataclass
class GeneratorServer(StageServer, generator_pb2_grpc.GeneratorServiceServicer):
    """Holds real leases where `leases` is given."""

    stage = "generator"
    leases: LeaseStore | None = None
    transfers: int = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def Generate(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.speech)

    async def TransferSession(self, request: Any, context: Any) -> None:
        await answer(context, self._transfer(request, context))

    async def enter(self, stack: AsyncExitStack, session: Session) -> None:
        config = session.config
        if config.resume.HasField("peer"):
            await self._fetch(session, config.resume.peer)
        if self.leases is not None:
            keeper = LeaseKeeper(
                self.leases,
                session.session_id,
                self.instance_id,
                session.fail,
                take_over_token=config.take_over_token,
            )
            await stack.enter_async_context(keeper)
            session.token = keeper.lease.token

    def ready(self, session: Session) -> GenerateResponse:
        ready = GenerateReady(
            model=self.identity,
            generator_id=self.instance_id,
            fencing_token=session.token,
            replay_chunks=REACH,
            border=chunk_pb2.ChunkBorder(epoch=session.position.epoch, chunk_index=session.position.chunk_index),
        )
        return GenerateResponse(ready=ready)

    def notice(self, **fields: Any) -> GenerateResponse:
        return GenerateResponse(**fields)

    def digest(self, replayed: Any) -> bytes:
        return hashed(replayed.speech.latents.data, replayed.video.latents.data)

    def compute(self, session: Session, item: Any, timing: StageTiming) -> tuple[list[GenerateResponse], bytes]:
        seed = str(session.config.seed).encode()
        portrait = session.config.portrait_latent.data
        latents = hash_tensor(item.latents.data, seed, portrait, *session.state)
        video = VideoLatents(header=item.header, latents=latents)
        answers = [GenerateResponse(chunk=GeneratedChunk(video=video, timing=timing))]
        return answers, hashed(item.latents.data, latents.data)

    async def _transfer(self, request: Any, context: Any) -> None:
        session = self.sessions.get(request.session_id)
        if session is None:
            raise NotFound("no such session")
        if request.fencing_token != session.token:
            raise LeaseLost("another token")
        if self.faults.refuses_transfer:
            raise StageUnavailable("the transfer broke off")
        session.frozen.set()
        index = max(session.kept)
        border = chunk_pb2.ChunkBorder(epoch=session.position.epoch, chunk_index=index)
        state = generator_pb2.TransferredState(model=self.identity, border=border, parts=1)
        await context.write(generator_pb2.TransferSessionResponse(state=state))
        data = json.dumps([digest.hex() for digest in session.state]).encode()
        await context.write(generator_pb2.TransferSessionResponse(part=generator_pb2.StatePart(name="all", data=data)))
        self.transfers += 1
        session.fail(SessionMoved("its state was taken"))

    async def _fetch(self, session: Session, peer: Any) -> None:
        request = generator_pb2.TransferSessionRequest(session_id=session.session_id, fencing_token=peer.fencing_token)
        async with grpc.aio.insecure_channel(peer.address) as channel:
            call = generator_pb2_grpc.GeneratorServiceStub(channel).TransferSession(request)
            try:
                state, part = [response async for response in call]
            except grpc.aio.AioRpcError as error:
                raise StageUnavailable(error_from_rpc(error).message) from error
        session.go_to(state.state.border, [bytes.fromhex(digest) for digest in json.loads(part.part.data)], keeps=0)


class DecoderServer(StageServer, decoder_pb2_grpc.DecoderServiceServicer):
    stage = "decoder"

    def add_to(self, server: grpc.aio.Server) -> None:
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(self, server)

    async def Decode(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        await self.serve(request_iterator, context, lambda request: request.video)

    async def EncodePortrait(self, request: Any, context: Any) -> EncodePortraitResponse:
        return await answer(context, self._encode_portrait(request.portrait))  # type: ignore[return-value]

    async def _encode_portrait(self, portrait: bytes) -> EncodePortraitResponse:
        if self.faults.full:
            raise CapacityExhausted("too many portraits", 1.5)
        if self.faults.dies_at_portrait:
            raise RuntimeError(SECRET)
        if not portrait.startswith(b"\xff\xd8"):
            raise InvalidInput("the portrait is no JPEG or PNG", "portrait")
        return EncodePortraitResponse(
            portrait_latent=hash_tensor(portrait), model=self.identity, thumbnail=b"thumbnail"
        )

    def ready(self, session: Session) -> DecodeResponse:
        return DecodeResponse(ready=DecodeReady(model=self.identity, width=64, height=64, replay_chunks=REACH))

    def notice(self, **fields: Any) -> DecodeResponse:
        return DecodeResponse(**fields)

    def digest(self, replayed: Any) -> bytes:
        return hashed(replayed.latents.data)

    def compute(self, session: Session, item: Any, timing: StageTiming) -> tuple[list[DecodeResponse], bytes]:
        first, session.skip_frames = session.skip_frames, 0
        if item.header.restart_pictures:
            session.frames_since_key = 0
        known = hashed(item.latents.data, session.config.portrait_latent.data, *session.state)
        frames = []
        for number in range(first, 24):
            key_frame = session.frames_since_key % self.faults.key_frame_every == 0
            frames.append(Frame(data=self._picture(session, known, number), key_frame=key_frame))
            session.frames_since_key += 1
        starts = sorted({first, *(start for start in (10, 20) if start > first)})
        ends = [*starts[1:], 24]
        responses = [
            DecodeResponse(
                pictures=DecodedPictures(
                    header=item.header,
                    frame_offset=start,
                    frames=frames[start - first : end - first],
                    last_in_chunk=end == 24,
                    timing=timing if end == 24 else None,
                )
            )
            for start, end in zip(starts, ends, strict=True)
        ]
        return responses, self.digest(item)

    def _picture(self, session: Session, known: bytes, index: int) -> bytes:
        """Begins with who is seen, then what moves."""
        face = hashed(session.config.portrait_latent.data)[:8]
        return (face + hashed(known, bytes([index]))).ljust(self.faults.frame_bytes, b"\0")


def hashed(*parts: bytes) -> bytes:
    return hashlib.sha256(b"|".join(parts)).digest()


def hash_tensor(*parts: bytes) -> Tensor:
    return tensor_from_numpy(np.frombuffer(hashed(*parts), "<f4").reshape(1, 2, 2, 2))
