"""Statuses become typed errors with what the server added."""

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from tests.client.fake_server import rich_status
from visavis.client import errors
from visavis.client.status_details import METADATA_KEY, NO_DETAILS, read_status_details


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.CapacityExhausted),
        (grpc.StatusCode.UNAVAILABLE, errors.ServerUnavailable),
        (grpc.StatusCode.CANCELLED, errors.ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.FailedPrecondition),
        (grpc.StatusCode.UNAUTHENTICATED, errors.PermissionDenied),
        (grpc.StatusCode.INTERNAL, errors.ServerError),
        (grpc.StatusCode.UNKNOWN, errors.ServerError),
    ],
)
def test_every_code_has_its_error(code: grpc.StatusCode, kind: type[errors.ClientError]) -> None:
    error = errors.error_from_status(code, "text", NO_DETAILS)
    assert type(error) is kind
    assert (error.code, str(error)) == (code, "text")


def test_a_message_over_the_limit_is_not_a_full_server() -> None:
    text = "Received message larger than max (5242885 vs. 4194304)"
    error = errors.error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, text, NO_DETAILS)
    assert isinstance(error, errors.MessageTooLarge)


def test_details_are_read_from_the_metadata() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="audio.pcm", description="odd length")
    status = rich_status(
        grpc.StatusCode.UNAVAILABLE,
        "later",
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2)),
        error_details_pb2.ErrorInfo(reason="DRAINING", domain="visavis"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    details = read_status_details(status.trailing_metadata)
    assert details.retry_after_seconds == 2.0
    assert details.reason == "DRAINING"
    assert details.violations == (("audio.pcm", "odd length"),)


@pytest.mark.parametrize("metadata", [None, (), (("other", "x"),), ((METADATA_KEY, b"\xff\xff"),)])
def test_missing_or_broken_details_are_no_details(metadata: tuple[tuple[str, str | bytes], ...] | None) -> None:
    assert read_status_details(metadata) == NO_DETAILS
