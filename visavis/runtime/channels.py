"""gRPC channels and servers with the limits, windows and keepalive that both sides must agree on."""

from typing import TypeAlias

import grpc

from visavis.runtime.settings import TlsSettings
from visavis.runtime.tls import channel_credentials
from visavis.runtime.unreadable_requests import RefuseUnreadableRequests

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# What a stream may hold for a reader that does not read. Left alone, gRPC widens the window with the bandwidth it sees
# and holds 3 to 12 MB (measured on loopback), half a minute of JPEG frames; fixed at 1 MiB it is no slower.
WINDOW_BYTES = 1024 * 1024
# A vanished peer (no FIN, no RST) is noticed after time + timeout.
KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000

Options: TypeAlias = list[tuple[str, int | str]]


def channel_options(*, server_name: str = "") -> Options:
    """Options of every client channel."""
    options: Options = [*_shared_options()]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    return options


def server_options() -> Options:
    """Options of every server: the limits of `channel_options`, and permission for its keepalive pings."""
    return [
        *_shared_options(),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        # Two servers on one port are a mistake; without this the kernel would share it silently.
        ("grpc.so_reuseport", 0),
    ]


def create_server() -> grpc.aio.Server:
    """A server with these options that answers bytes which are no message with INVALID_ARGUMENT."""
    return grpc.aio.server(options=server_options(), interceptors=[RefuseUnreadableRequests()])


def open_channel(address: str, tls: TlsSettings) -> grpc.aio.Channel:
    """A channel to a service, encrypted where the settings say so. Reuse it; close it when done."""
    credentials = channel_credentials(tls)
    options = channel_options(server_name=tls.server_name if credentials is not None else "")
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _shared_options() -> Options:
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
