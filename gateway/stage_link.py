"""One session's way to one stage, which outlives the instances that serve it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol

from gateway.chunk_record import ChunkRecord
from gateway.history import SessionHistory
from gateway.metrics import GatewayMetrics, MoveKind
from gateway.open_stage import OpenStage
from gateway.session_placement import SessionPlacement
from gateway.settings import StageSettings
from gateway.stage_dialect import Border, RequestT, ResponseT, Rewind, StageDialect
from visavis.runtime.errors import LeaseLost, StageUnavailable, VisavisError
from visavis.runtime.registry import StageInstance

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
# Instances that one chunk may cost: it may be the chunk that they cannot bear.
_MAX_LOSSES_PER_CHUNK = 4

logger = logging.getLogger(__name__)


class SessionRights(Protocol):
    """Says whether this gateway may still serve the session."""

    async def take_over_token(self) -> int:
        """The token up to which a generator may take the session's lease over; 0: only a free one.

        Errors: `LeaseLost` when the session was resumed in another stream; `StateStoreUnavailable`.
        """
        ...


class StageLink(Generic[RequestT, ResponseT]):
    """Chunks go in by `submit`; `run` hands each answer to `deliver`, in order, while it lasts.

    What is not answered is kept. When the stream breaks or owes an answer for too long, another instance is opened at
    the last answered border and gets the rest again; when the instance drains, the session is moved before it goes. The
    caller bounds how much is inside. `submit`, `rewind` and `finish` take effect at once and never wait.
    """

    def __init__(
        self,
        dialect: StageDialect[RequestT, ResponseT],
        placement: SessionPlacement,
        history: SessionHistory,
        rights: SessionRights,
        settings: StageSettings,
        metrics: GatewayMetrics,
        deliver: Callable[[ChunkRecord, ResponseT], Awaitable[None]],
        *,
        border: Border,
        skip_frames: int = 0,
        replay_chunks: int = 0,
    ) -> None:
        """border: where the session begins. For a resumed one skip_frames: of the chunk behind it, which the client has
        already; replay_chunks: as the stage said before."""
        self._dialect = dialect
        self._placement = placement
        self._history = history
        self._rights = rights
        self._settings = settings
        self._metrics = metrics
        self._deliver = deliver
        self._border = border
        self._skip_frames = skip_frames
        self._first_replay_chunks = replay_chunks
        self._owed: deque[ChunkRecord] = deque()
        self._sent = 0
        self._writing = False
        # The epoch that the open stream knows of; a rewind tells it of a newer one.
        self._told_epoch = border.epoch
        self._paused = False
        self._leaving = False
        self._finishing = asyncio.Event()
        self._draining = asyncio.Event()
        self._drains_since = 0.0
        self._work = asyncio.Event()
        self._quiet = asyncio.Event()
        self._losses = 0
        self._recovers_until: float | None = None
        self._open: OpenStage[RequestT, ResponseT] | None = None

    @property
    def open_stage(self) -> OpenStage[RequestT, ResponseT]:
        """The instance that serves the session now, or did so last."""
        assert self._open is not None, "opened before it is used"
        return self._open

    async def open(self) -> None:
        """Open a new session. Errors: of the stage, as `SessionPlacement.open`."""
        self._open = await self._placement.open(self._dialect, self._dialect.start())

    async def open_resumed(self) -> None:
        """Open a session that other instances have served. Errors: as `open`, and `LeaseLost`."""
        token = await self._rights.take_over_token()
        self._open = await self._placement.open(self._dialect, self._dialect.resume(self._rewind_here(), token))

    def submit(self, record: ChunkRecord) -> None:
        """The next chunk."""
        self._owed.append(record)
        self._work.set()

    def rewind(self, border: Border) -> None:
        """Drop what is not answered and go back, in a new epoch."""
        self._owed.clear()
        self._sent = 0
        self._skip_frames = 0
        self._border = border
        if self._open is not None:
            self._open.stream.rewound()
        self._work.set()

    def finish(self) -> None:
        """Everything is answered and nothing follows: `run` returns when the stage has ended the session."""
        self._finishing.set()

    def close(self) -> None:
        """End the session in the stage at once."""
        if self._open is not None:
            self._open.close()

    async def run(self) -> None:
        """Serve until `finish`.

        Errors: `StageUnavailable` when no instance could be had in time; `LeaseLost` when the session was resumed in
        another stream.
        """
        while not self._finishing.is_set():
            try:
                await self._serve(self.open_stage)
            except VisavisError as failure:
                self.close()
                await self._recover(failure)

    # One stream

    async def _serve(self, serving: OpenStage[RequestT, ResponseT]) -> None:
        """Until it is finished, or the session has moved. Errors: what ended the stream."""
        self._sent = 0
        self._draining.clear()
        self._work.set()
        reading = asyncio.create_task(self._read(serving))
        tasks = [reading, asyncio.create_task(self._write(serving)), asyncio.create_task(self._finish(serving))]
        try:
            await self._move_when_asked(serving, reading)
        finally:
            self._paused = self._writing = self._leaving = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            serving.close()

    async def _finish(self, serving: OpenStage[RequestT, ResponseT]) -> None:
        await self._finishing.wait()
        await serving.stream.finish()

    async def _write(self, serving: OpenStage[RequestT, ResponseT]) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while not self._paused and (self._must_rewind or self._sent < len(self._owed)):
                self._writing = True
                request, owes_answer = self._next_request()
                alive = await serving.stream.send(request, owes_answer=owes_answer)
                self._writing = False
                self._quiet.set()
                if not alive:
                    return

    def _next_request(self) -> tuple[RequestT, bool]:
        if self._must_rewind:
            self._told_epoch = self._border.epoch
            return self._dialect.rewind(self._rewind_here()), False
        record = self._owed[self._sent]
        self._sent += 1
        return self._dialect.item(record, time.monotonic()), True

    async def _read(self, serving: OpenStage[RequestT, ResponseT]) -> None:
        while (response := await serving.stream.receive()) is not None:
            if response.WhichOneof("response") == "draining":
                self._drains_since = time.monotonic()
                self._draining.set()
            else:
                await self._take(serving, response)

    async def _take(self, serving: OpenStage[RequestT, ResponseT], response: ResponseT) -> None:
        header = self._dialect.header(response)
        if header.epoch < self._border.epoch:
            return  # it was on its way when the session went back
        if not self._sent or header.chunk_index != self._owed[0].chunk.chunk_index:
            raise StageUnavailable(f"chunk {header.chunk_index} came, which is not owed")
        record = self._owed[0]
        try:
            complete = self._dialect.take(response, record)
        except ValueError as error:
            raise StageUnavailable(str(error)) from None
        self._losses, self._recovers_until = 0, None
        if complete:
            self._owed.popleft()
            self._sent -= 1
            self._skip_frames = 0
            self._border = Border(self._border.epoch, record.chunk.chunk_index)
            serving.stream.answered()
            self._quiet.set()
        await self._deliver(record, response)

    @property
    def _must_rewind(self) -> bool:
        return self._told_epoch < self._border.epoch

    def _rewind_here(self) -> Rewind:
        """To the last border that was answered."""
        skip_frames = self._owed[0].frames_decoded if self._owed else self._skip_frames
        replay = self._history.replay(self._border.chunk_index, self.replay_chunks)
        return Rewind(self._border, replay, skip_frames)

    @property
    def replay_chunks(self) -> int:
        """Chunks that a rebuilt state of this stage should have heard."""
        return self._open.ready.replay_chunks if self._open is not None else self._first_replay_chunks

    # Another instance

    async def _move_when_asked(self, serving: OpenStage[RequestT, ResponseT], reading: asyncio.Task[None]) -> None:
        """Until the stream ends or a draining instance has been left. Errors: what ended the stream."""
        pause_seconds = 0.0
        while True:
            moving = asyncio.create_task(self._move(serving, pause_seconds))
            try:
                await asyncio.wait({reading, moving}, return_when=asyncio.FIRST_COMPLETED)
                if self._leaving:
                    # The old instance ends the stream when its state is taken: the new one decides what that meant.
                    await asyncio.wait({moving})
            finally:
                moving.cancel()
                await asyncio.wait({moving})
            if not moving.cancelled():
                moving.result()
            if self._open is not serving:
                return None
            self._paused = self._leaving = False
            self._work.set()
            if reading.done():
                return reading.result()
            pause_seconds = min(max(2 * pause_seconds, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)

    async def _move(self, serving: OpenStage[RequestT, ResponseT], pause_seconds: float) -> None:
        """Once the instance drains and everything sent is answered: one try to leave it."""
        await self._draining.wait()
        await asyncio.sleep(pause_seconds)
        self._paused = True
        while (self._sent or self._writing) and not self._finishing.is_set():
            self._quiet.clear()
            await self._quiet.wait()
        if self._finishing.is_set():
            return
        self._leaving = True
        began = time.monotonic()
        moved = await self._move_exactly(serving)
        kind: MoveKind = "exact"
        if moved is None:
            kind = "rebuilt"
            try:
                moved = await self._reopen(serving.instance, others_only=True)
            except VisavisError as error:
                # Served on: the next try may find a place.
                self._log("the session could not be moved", error)
                return
        self._metrics.moved("hand_over", self._dialect.stage, kind, time.monotonic() - began)
        self._open = moved

    async def _move_exactly(self, serving: OpenStage[RequestT, ResponseT]) -> OpenStage[RequestT, ResponseT] | None:
        request = self._dialect.move(serving.instance.address, getattr(serving.ready, "fencing_token", 0))
        if request is None:
            return None
        try:
            moved = await self._open_at_another(request, serving.instance, others_only=True)
        except VisavisError as error:
            self._log("the exact state could not be moved", error)
            return None
        if self._must_rewind or moved.ready.border.chunk_index == self._border.chunk_index:
            return moved
        moved.close()
        return None

    async def _recover(self, failure: VisavisError) -> None:
        """Open the session elsewhere, trying until `recovery_seconds` have passed without any answer."""
        if self._finishing.is_set():
            return
        self._log("stage failed", failure)
        began = time.monotonic()
        if self._draining.is_set():
            self._metrics.moved("hand_over", self._dialect.stage, "failed", began - self._drains_since)
        if self._recovers_until is None:
            self._recovers_until = began + self._settings.recovery_seconds
        self._losses += 1
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._finishing.is_set():
            try:
                if self._losses > _MAX_LOSSES_PER_CHUNK:
                    raise failure
                self._open = await self._reopen(self.open_stage.instance, others_only=False)
            except LeaseLost as error:
                if error is not failure:
                    raise
            except VisavisError as error:
                failure = error
            else:
                self._metrics.moved("recovery", self._dialect.stage, "rebuilt", time.monotonic() - began)
                return
            if self._losses > _MAX_LOSSES_PER_CHUNK or time.monotonic() + pause_seconds > self._recovers_until:
                self._metrics.moved("recovery", self._dialect.stage, "failed", time.monotonic() - began)
                self._log("stage given up", failure)
                raise StageUnavailable(f"the stage {self._dialect.stage} failed; resume the session")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._finishing.wait()
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _reopen(self, lost: StageInstance, *, others_only: bool) -> OpenStage[RequestT, ResponseT]:
        token = await self._rights.take_over_token()
        rewind = self._rewind_here()
        request = self._dialect.resume(rewind, token)
        opened = await self._open_at_another(request, lost, others_only=others_only)
        self._told_epoch = rewind.border.epoch
        return opened

    async def _open_at_another(
        self, request: RequestT, lost: StageInstance, *, others_only: bool
    ) -> OpenStage[RequestT, ResponseT]:
        seconds = self._settings.recovery_open_seconds
        return await self._placement.reopen(self._dialect, request, lost, seconds, others_only=others_only)

    def _log(self, event: str, cause: VisavisError) -> None:
        fields = {"failed_stage": self._dialect.stage, "reason": cause.reason, "cause": cause.message}
        logger.warning(event, extra={**fields, **self._placement.log_fields})
