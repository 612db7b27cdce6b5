"""Domain exceptions and the one place where they become gRPC statuses with google.rpc details, and back.

Every status carries an ErrorInfo of domain "visavis" whose reason names the exception. What is not a `VisavisError`
never shows its text to a client: it is logged with an error id and answered as an opaque INTERNAL.
"""

import logging
import secrets
from typing import Any, ClassVar, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "visavis"
# Trailing metadata is limited to 8 KiB in all; the text travels twice (details and status message).
MAX_MESSAGE_CHARACTERS = 1000

logger = logging.getLogger(__name__)


class VisavisError(Exception):
    """Base of what may be told to a client: the message says what is wrong and what to do.

    Pickles through `args` and `__dict__`, so subclasses keep extra attributes optional.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        return str(self.args[0])

    def details(self) -> list[Any]:
        """The google.rpc detail messages beside ErrorInfo."""
        return []

    def metadata(self) -> dict[str, str]:
        """What ErrorInfo carries beside the reason."""
        return {}

    @classmethod
    def from_status(cls, message: str, found: "StatusDetails") -> Self:
        return cls(message)


class InvalidInput(VisavisError):
    """The caller broke a rule of the contract; `field` is the path of the offending field."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_INPUT"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field

    def details(self) -> list[Any]:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=self.field, description=self.message[:MAX_MESSAGE_CHARACTERS]
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]

    @classmethod
    def from_status(cls, message: str, found: "StatusDetails") -> Self:
        return cls(message, found.field)


class NotFound(VisavisError):
    """What the caller names does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class SessionExists(VisavisError):
    """The session is already open on this instance."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "SESSION_EXISTS"


class ModelMismatch(VisavisError):
    """Stages or stored data of different models meet."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "MODEL_MISMATCH"


class LeaseHeld(VisavisError):
    """Another generator holds the session's lease."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "LEASE_HELD"


class LeaseLost(VisavisError):
    """A later claim, or a release, has made this lease stale: what its holder produces is refused."""

    code = grpc.StatusCode.ABORTED
    reason = "LEASE_LOST"


class SessionMoved(LeaseLost):
    """The session goes on in another stream or on another instance, which has its state."""

    reason = "SESSION_MOVED"


class DeadlineMissed(VisavisError):
    """The other side took longer than it may."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_MISSED"


class SessionAborted(VisavisError):
    """The client ended the session without finishing it."""

    code = grpc.StatusCode.CANCELLED
    reason = "SESSION_ABORTED"


class LimitExceeded(VisavisError):
    """A message or a number is over a limit; sending the same again does not help."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "LIMIT_EXCEEDED"


class RetryableError(VisavisError):
    """Base of what may work when tried again after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    def details(self) -> list[Any]:
        delay = Duration()
        delay.FromMilliseconds(max(0, round(self.retry_after_seconds * 1000)))
        return [error_details_pb2.RetryInfo(retry_delay=delay)]

    @classmethod
    def from_status(cls, message: str, found: "StatusDetails") -> Self:
        return cls(message) if found.retry_after_seconds is None else cls(message, found.retry_after_seconds)


class CapacityExhausted(RetryableError):
    """Every slot is taken. Full is an answer, not a queue."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "CAPACITY_EXHAUSTED"


class StageUnavailable(RetryableError):
    """A stage cannot serve now: it starts, hangs, or cannot be reached."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STAGE_UNAVAILABLE"


class StagesUnsettled(StageUnavailable):
    """The stages are there and do not fit together, which passes while they start or are replaced."""

    reason = "STAGES_UNSETTLED"


class WorkerLost(StageUnavailable):
    """The worker process died; its sessions are gone."""

    reason = "WORKER_LOST"


class Draining(RetryableError):
    """The instance shuts down and takes no new sessions; another one will."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "DRAINING"


class StateStoreUnavailable(RetryableError):
    """Redis cannot be reached or does not answer in time."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STATE_STORE_UNAVAILABLE"


class CheckpointUnreadable(RetryableError):
    """The session can be resumed, but not here: its checkpoint needs a newer gateway."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "CHECKPOINT_UNREADABLE"


class InternalError(VisavisError):
    """Something broke that is not the caller's business; the log has the details under `error_id`."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(error_id)
        self.error_id = error_id

    @property
    def message(self) -> str:
        return f"internal error {self.error_id}: give this id to the operator, the server's log explains it"

    def metadata(self) -> dict[str, str]:
        return {"error_id": self.error_id}

    @classmethod
    def from_status(cls, message: str, found: "StatusDetails") -> Self:
        return cls(found.metadata.get("error_id", "unknown"))


_BY_REASON: dict[str, type[VisavisError]] = {
    error.reason: error
    for error in (
        InvalidInput,
        NotFound,
        SessionExists,
        ModelMismatch,
        LeaseHeld,
        LeaseLost,
        SessionMoved,
        DeadlineMissed,
        SessionAborted,
        LimitExceeded,
        CapacityExhausted,
        StageUnavailable,
        StagesUnsettled,
        WorkerLost,
        Draining,
        StateStoreUnavailable,
        CheckpointUnreadable,
        InternalError,
    )
}

# For statuses that gRPC itself produced (a dead connection, a deadline, a message over the limit).
_BY_CODE: dict[grpc.StatusCode, type[VisavisError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: SessionExists,
    grpc.StatusCode.FAILED_PRECONDITION: ModelMismatch,
    grpc.StatusCode.ABORTED: LeaseLost,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineMissed,
    # A server that is about to end answers new calls so; whoever cancels a call of their own asks no more of it.
    grpc.StatusCode.CANCELLED: StageUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.UNAVAILABLE: StageUnavailable,
}


class StatusDetails:
    """The google.rpc details of a status, unpacked; what is missing stays empty."""

    def __init__(self, status: status_pb2.Status | None) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.field = ""
        self.retry_after_seconds: float | None = None
        for detail in status.details if status is not None else ():
            self._read(detail)

    def _read(self, detail: Any) -> None:
        info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            self.reason, self.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            self.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Unpack(bad) and bad.field_violations:
            self.field = bad.field_violations[0].field


def as_visavis_error(error: BaseException, **log_fields: object) -> VisavisError:
    """The error to tell a client: a `VisavisError` as it is, anything else logged and made opaque.

    `log_fields` (session_id, ...) go into the log entry.
    """
    if isinstance(error, VisavisError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return as_visavis_error(_first_of(error), **log_fields)
    error_id = secrets.token_hex(6)
    logger.error("internal error", exc_info=error, extra={"error_id": error_id, **log_fields})
    return InternalError(error_id)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    known = group.subgroup(VisavisError)
    return (known or group).exceptions[0]


def status_from_error(error: VisavisError) -> status_pb2.Status:
    """The google.rpc.Status of a domain error."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message[:MAX_MESSAGE_CHARACTERS])
    info = error_details_pb2.ErrorInfo(domain=ERROR_DOMAIN, reason=error.reason, metadata=error.metadata())
    for detail in (info, *error.details()):
        status.details.add().Pack(detail)
    return status


def error_from_rpc(error: grpc.aio.AioRpcError) -> VisavisError:
    """The domain error that a received gRPC error stands for.

    Statuses with visavis' own details come back as the exception that was raised on the other side. Those that gRPC
    produced are mapped by their code; what fits nothing is logged and becomes an opaque `InternalError`.
    """
    status = _status_of(error)
    found = StatusDetails(status)
    kind = _BY_REASON.get(found.reason) or _BY_CODE.get(error.code())
    if kind is None:
        return as_visavis_error(error)
    return kind.from_status(error.details() or error.code().name, found)


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has the three methods it reads
    except ValueError:  # code or message differ from the status inside: a proxy rewrote it
        return None
