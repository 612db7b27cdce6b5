"""The errors that the SDK raises, and how a gRPC status becomes one of them."""

import grpc
import grpc.aio

from visavis.client.status_details import StatusDetails, read_status_details


class ClientError(Exception):
    """Base of everything the SDK raises about a call.

    code: the gRPC status, None when the error did not come from the server.
    reason: a stable word for programs, such as "LEASE_HELD"; empty when the server gave none.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class InvalidInput(ClientError):
    """The server refused what was sent: a broken rule, an impossible format, a bad picture, NaN.

    violations: (field, description) pairs.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, code=code, reason=reason)
        self.violations = violations


class MessageTooLarge(InvalidInput):
    """One message was over the server's limit."""


class NotFound(ClientError):
    """No such avatar."""


class RetryLater(ClientError):
    """Base of what may pass. `retry_after_seconds` is the server's advice, None when it gave none."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, reason=reason)
        self.retry_after_seconds = retry_after_seconds


class CapacityExhausted(RetryLater):
    """Every slot is taken."""


class ServerUnavailable(RetryLater):
    """The server, one of its stages or Redis cannot be reached, or it is draining or has just ended. Worth a retry."""


class DeadlineExceeded(ClientError):
    """The call took longer than its limit."""


class PermissionDenied(ClientError):
    """The server does not know the caller, or does not let it do this."""


class FailedPrecondition(ClientError):
    """The server's state does not allow this: models differ, or a lease is held elsewhere."""


class ServerError(ClientError):
    """The server failed. Its message carries an error id for its operator."""


class SessionClosed(ClientError):
    """The session has ended or was aborted, so nothing more can be sent on it."""


_BY_CODE: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: FailedPrecondition,
    grpc.StatusCode.CANCELLED: SessionClosed,
}
_INVALID = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


def error_from_rpc(failure: grpc.aio.AioRpcError) -> ClientError:
    """The typed error of a failed call."""
    return error_from_status(failure.code(), failure.details() or "", read_status_details(failure.trailing_metadata()))


def error_from_status(code: grpc.StatusCode, message: str, details: StatusDetails) -> ClientError:
    """The typed error of a status: by its code, and for RESOURCE_EXHAUSTED by what ran out."""
    text = message or code.name
    if code in _INVALID:
        return InvalidInput(text, code=code, reason=details.reason, violations=details.violations)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if details.reason == "LIMIT_EXCEEDED" or (not details.reason and "larger than max" in message):
            return MessageTooLarge(text, code=code, reason=details.reason)
        return CapacityExhausted(
            text, code=code, reason=details.reason, retry_after_seconds=details.retry_after_seconds
        )
    # A server that is about to end answers new calls so, without a reason; whoever is told one was meant.
    cut_off = code is grpc.StatusCode.CANCELLED and not details.reason
    if code is grpc.StatusCode.UNAVAILABLE or cut_off:
        return ServerUnavailable(
            text, code=code, reason=details.reason, retry_after_seconds=details.retry_after_seconds
        )
    return _BY_CODE.get(code, ServerError)(text, code=code, reason=details.reason)
