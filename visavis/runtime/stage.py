"""The one bidirectional stream handler of the three stages: config, ready, then one answer per item, in order."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from visavis.runtime.boundary import answer, next_request, write
from visavis.runtime.errors import DeadlineMissed, InvalidInput, SessionMoved, VisavisError, as_visavis_error
from visavis.runtime.session_id import check_session_id
from visavis.runtime.session_relay import SessionRelay, WritingContext
from visavis.runtime.session_watch import SessionWatch
from visavis.runtime.slots import SlotPool
from visavis.runtime.stream_rules import StreamRules
from visavis.runtime.telemetry import Metrics
from visavis.runtime.tracing import Span, Tracing, traceparent_of
from visavis.runtime.worker import Worker, WorkerSession

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StageSession:
    """A session of a stage, as hooks see it."""

    session_id: str
    config: Message
    _error: VisavisError | None = None
    _worker_session: WorkerSession | None = None

    def fail(self, error: VisavisError) -> None:
        """Ends the session with `error` after the answers that are there; the engine forgets it (evicted, moved)."""
        self._error = self._error or error
        if self._worker_session is not None:
            self._worker_session.fail(error)
            self._worker_session.close()

    def abandon(self, error: VisavisError) -> None:
        """Ends the session with `error` at once: nothing more is answered; the engine forgets it (lease lost)."""
        self._error = self._error or error
        if self._worker_session is not None:
            self._worker_session.abandon(error)

    def attach(self, worker_session: WorkerSession) -> None:
        self._worker_session = worker_session
        if self._error is not None:
            worker_session.fail(self._error)


CompleteReady: TypeAlias = Callable[[Any], None]
# Entered before the engine opens the session, left after it is closed: the generator's lease. What it yields may fill
# fields of the ready message.
SessionScope: TypeAlias = Callable[[StageSession], AbstractAsyncContextManager[CompleteReady]]


@asynccontextmanager
async def no_scope(session: StageSession) -> AsyncIterator[CompleteReady]:
    """For stages that hold nothing per session outside the engine."""
    yield lambda ready: None


class Stage:
    """Serves the sessions of one stage with one worker."""

    def __init__(
        self,
        worker: Worker,
        slots: SlotPool,
        metrics: Metrics,
        tracing: Tracing,
        *,
        max_in_flight: int,
        config_timeout_seconds: float,
    ) -> None:
        self._worker = worker
        self._slots = slots
        self._metrics = metrics
        self._tracing = tracing
        self._max_in_flight = max_in_flight
        self._config_timeout_seconds = config_timeout_seconds
        self._sessions: dict[str, StageSession] = {}

    async def serve_session(
        self, requests: AsyncIterator[Any], context: Any, rules: StreamRules, scope: SessionScope = no_scope
    ) -> None:
        """The whole handler of a session stream; ends with OK or with a status, never with another exception.

        Takes the config within its deadline, a slot (or refuses at once), enters `scope`, opens the session in the
        engine and answers `ready`. Then at most `max_in_flight` items are in the stage: beyond that it stops reading,
        and HTTP/2 holds the sender back. An item counts until its last answer is written, so a slow reader slows its
        own session. Half-close lets what is pending finish. However it ends, the engine forgets the session and the
        slot is free before `scope` is left.

        A session that is open here already is refused, unless the config says `resume`: then it was left behind by
        somebody who is gone, and its stream ends with SessionMoved; the slot is the session's, so a full stage takes it
        too. When the instance drains, the stream says so once.
        """
        await answer(context, self._serve(requests, context, rules, scope))

    async def call(self, context: Any, request: Message) -> Any:
        """A unary handler: has the engine answer a request that belongs to no session."""
        return await answer(context, self._worker.call(request))

    async def _serve(
        self, requests: AsyncIterator[Any], context: WritingContext, rules: StreamRules, scope: SessionScope
    ) -> None:
        requests = aiter(requests)
        config = await self._read_config(requests, rules)
        if config is None:
            return
        session = StageSession(config.session_id, config)
        span = self._tracing.start(
            f"{self._metrics.stage} session",
            traceparent_of(context.invocation_metadata()),
            attributes={"visavis.session_id": session.session_id},
        )
        report = _SessionReport(self._metrics, span, session.session_id)
        with report, self._slots.claim(session.session_id, session.fail) as slot:
            self._worker.check_serving()
            async with scope(session) as complete_ready:
                self._take_place(session)
                ready, worker_session = await self._worker.open(session.session_id, config)
                try:
                    self._sessions[session.session_id] = session
                    session.attach(worker_session)
                    start = rules.first_position(config, ready)
                    complete_ready(ready)
                    await write(context, rules.response_type(ready=ready))
                    report.began = True
                    logger.info("session begins", extra={"session_id": session.session_id})
                    watch = SessionWatch(self._metrics, self._tracing, span.traceparent)
                    relay = SessionRelay(
                        requests,
                        context,
                        rules,
                        worker_session,
                        watch,
                        self._slots,
                        start=start,
                        max_in_flight=self._max_in_flight,
                    )
                    await relay.run()
                finally:
                    worker_session.close()
                    slot.free()
                    if self._sessions.get(session.session_id) is session:
                        del self._sessions[session.session_id]

    def _take_place(self, session: StageSession) -> None:
        older = self._sessions.get(session.session_id)
        if older is not None and session.config.HasField("resume"):
            older.abandon(SessionMoved("the session was resumed in another stream"))

    async def _read_config(self, requests: AsyncIterator[Any], rules: StreamRules) -> Any:
        try:
            async with asyncio.timeout(self._config_timeout_seconds):
                first = await next_request(requests)
        except TimeoutError:
            raise DeadlineMissed(f"config must come within {self._config_timeout_seconds:g} s") from None
        if first is None:
            return None
        if first.WhichOneof("request") != "config":
            raise InvalidInput("the first message must be config", "request")
        check_session_id(first.config.session_id)
        rules.check_config(first.config)
        return first.config


class _SessionReport:
    """Logs how a session ended, once, counts it by its status, and ends its span."""

    def __init__(self, metrics: Metrics, span: Span, session_id: str) -> None:
        self.began = False
        self._metrics = metrics
        self._span = span
        self._session_id = session_id
        self._started = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            told = as_visavis_error(error, session_id=self._session_id)
            code, reason = told.code.name, told.reason
            self._log(code, reason)
            if told is not error:
                raise told from error
            return
        self._log("OK" if error is None else "CANCELLED", "")

    def _log(self, code: str, reason: str) -> None:
        self._metrics.session_ended(code, reason, began=self.began)
        self._span.end(reason)
        seconds = round(time.monotonic() - self._started, 3)
        fields = {"session_id": self._session_id, "code": code, "reason": reason, "seconds": seconds}
        logger.info("session ends", extra=fields)
