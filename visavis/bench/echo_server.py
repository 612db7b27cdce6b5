"""Servers that send back what they get: `python -m visavis.bench.echo_server grpc|raw`. Prints its port, runs until its
standard input closes.

grpc: `/echo/bytes` passes messages on as they are, `/echo/<full name>` reads each into its protobuf class and writes it
again, as a service does. raw: four bytes of length, then the message, on a TCP connection.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message, message_factory

from visavis.bench import chunk_messages  # noqa: F401  # registers the messages that it imports
from visavis.bench.raw_messages import RawConnection
from visavis.runtime.channels import server_options


def message_class(full_name: str) -> type[message.Message]:
    """The generated class of a message."""
    descriptor = descriptor_pool.Default().FindMessageTypeByName(full_name)
    found: type[message.Message] = message_factory.GetMessageClass(descriptor)
    return found


class _EchoHandler(grpc.GenericRpcHandler):
    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        _, service, name = call.method.split("/")
        if service != "echo":
            return None
        read: Callable[[bytes], Any] = bytes
        write: Callable[[Any], bytes] = bytes
        if name != "bytes":
            read, write = message_class(name).FromString, message_class(name).SerializeToString
        return grpc.stream_stream_rpc_method_handler(_echo, read, write)


async def _echo(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
    async for request in requests:
        await context.write(request)


async def _echo_raw(connection: socket.socket) -> None:
    raw = RawConnection(connection)
    with connection, contextlib.suppress(ConnectionError):
        while True:
            await raw.send(await raw.receive())


async def _serve_grpc() -> None:
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers([_EchoHandler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await _input_closed()
    await server.stop(0)


async def _serve_raw() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        print(listening.getsockname()[1], flush=True)
        accepting = asyncio.create_task(_accept(listening))
        await _input_closed()
        accepting.cancel()


async def _accept(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listening)
            group.create_task(_echo_raw(connection))


async def _input_closed() -> None:
    await asyncio.to_thread(sys.stdin.read)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.echo_server", description=__doc__)
    parser.add_argument("kind", choices=("grpc", "raw"))
    kind = parser.parse_args(arguments).kind
    asyncio.run(_serve_grpc() if kind == "grpc" else _serve_raw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
