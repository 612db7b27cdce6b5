"""What `visavis bench transport` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visavis.bench.percentiles import Percentiles
from visavis.bench.surroundings import Surroundings

Way = Literal["raw", "grpc_bytes", "grpc"]
SCHEMA = "visavis.transport/1"


@dataclass(frozen=True, slots=True)
class WayFigures:
    """One message over one way, there and back.

    round_trip_seconds: one message at a time. messages_per_second: with several on their way.
    cpu_seconds_per_message: of client and server together, one message at a time.
    """

    round_trip_seconds: Percentiles
    messages_per_second: float
    cpu_seconds_per_message: float


@dataclass(frozen=True, slots=True)
class MessageFigures:
    """One message.

    raw: over a TCP connection. grpc_bytes: over gRPC, unread. grpc: over gRPC, through protobuf, as services do.
    """

    name: str
    message_type: str
    message_bytes: int
    raw: WayFigures
    grpc_bytes: WayFigures
    grpc: WayFigures


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """All messages of one chunk between client, gateway and stages, from the figures above.

    messages: how many hops of messages. grpc_seconds, raw_seconds: half a round trip each (p50), added up.
    cpu_seconds: of gRPC and protobuf in all processes. chunk_share: grpc_seconds over the length of a chunk.
    """

    name: str
    messages: int
    payload_bytes: int
    grpc_seconds: float
    raw_seconds: float
    cpu_seconds: float
    chunk_share: float


@dataclass(frozen=True, slots=True)
class TransportResult:
    """One benchmark."""

    schema: str
    surroundings: Surroundings
    seconds: float
    window: int
    messages: tuple[MessageFigures, ...]
    chunks: tuple[ChunkCost, ...]
