"""Reads the google.rpc details of a failed call, with nothing but protobuf installed.

The messages below are wire-compatible excerpts of google/rpc/status.proto and google/rpc/error_details.proto, declared
here so that the SDK needs no further package.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError

METADATA_KEY = "grpc-status-details-bin"

_PACKAGE = "visavis.client.wire"
_STRING, _MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What a server added to a status.

    retry_after_seconds: from RetryInfo; None when the server gave none.
    reason: from ErrorInfo, such as "LEASE_HELD"; empty when the server gave none.
    violations: from BadRequest, one (field, description) each.
    """

    retry_after_seconds: float | None
    reason: str
    violations: tuple[tuple[str, str], ...]


NO_DETAILS = StatusDetails(retry_after_seconds=None, reason="", violations=())


def read_status_details(metadata: Iterable[tuple[str, str | bytes]] | None) -> StatusDetails:
    """Finds and reads the details in a call's trailing metadata; anything unreadable counts as no details."""
    for key, value in metadata or ():
        if key == METADATA_KEY and isinstance(value, bytes):
            try:
                return _read(value)
            except DecodeError:
                return NO_DETAILS
    return NO_DETAILS


def _read(wire: bytes) -> StatusDetails:
    retry_after_seconds: float | None = None
    reason = ""
    violations: list[tuple[str, str]] = []
    for detail in _parse("Status", wire).details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.RetryInfo":
            delay: duration_pb2.Duration = _parse("RetryInfo", detail.value).retry_delay
            retry_after_seconds = delay.seconds + delay.nanos / 1e9
        elif kind == "google.rpc.ErrorInfo":
            reason = _parse("ErrorInfo", detail.value).reason
        elif kind == "google.rpc.BadRequest":
            found = _parse("BadRequest", detail.value).field_violations
            violations.extend((violation.field, violation.description) for violation in found)
    return StatusDetails(retry_after_seconds, reason, tuple(violations))


def _parse(name: str, wire: bytes) -> Any:
    message = _CLASSES[name]()
    message.ParseFromString(wire)
    return message


def _message_classes() -> dict[str, type[Any]]:
    pool = descriptor_pool.DescriptorPool()
    for dependency in (any_pb2, duration_pb2):
        pool.AddSerializedFile(dependency.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="visavis/client/wire.proto", package=_PACKAGE, syntax="proto3", dependency=_DEPENDENCIES
    )
    _declare(file, "Status", ("details", 3, _MESSAGE, ".google.protobuf.Any", True))
    _declare(file, "RetryInfo", ("retry_delay", 1, _MESSAGE, ".google.protobuf.Duration", False))
    _declare(file, "ErrorInfo", ("reason", 1, _STRING, "", False))
    _declare(file, "BadRequest", ("field_violations", 1, _MESSAGE, f".{_PACKAGE}.FieldViolation", True))
    _declare(file, "FieldViolation", ("field", 1, _STRING, "", False), ("description", 2, _STRING, "", False))
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}"))
        for message in file.message_type
    }


def _declare(
    file: descriptor_pb2.FileDescriptorProto,
    name: str,
    *fields: tuple[str, int, "descriptor_pb2.FieldDescriptorProto.Type.ValueType", str, bool],
) -> None:
    message = file.message_type.add(name=name)
    for field_name, number, kind, type_name, repeated in fields:
        field = message.field.add(name=field_name, number=number, type=kind)
        label = descriptor_pb2.FieldDescriptorProto
        field.label = label.LABEL_REPEATED if repeated else label.LABEL_OPTIONAL
        if type_name:
            field.type_name = type_name


_DEPENDENCIES = ["google/protobuf/any.proto", "google/protobuf/duration.proto"]
_CLASSES = _message_classes()
