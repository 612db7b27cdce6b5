"""Every command that clients send to a Redis while something runs, as MONITOR tells them."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.exceptions import ConnectionError as RedisConnectionError

_LINE: Final = re.compile(rb"(\d+\.\d+) \[(\d+) ([^\]]*)\] (.*)", re.DOTALL)
_WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_CONTROLS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
# What a script does inside the server comes from here and was not sent by anybody.
_INSIDE: Final = b"lua"
# Beyond this only counts are kept; a replay needs no more.
MAX_KEPT: Final = 200_000


@dataclass(frozen=True, slots=True)
class SentCommand:
    """One command: when the server got it (`time.monotonic` of this machine), and its words."""

    moment: float
    words: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """In capital letters."""
        return self.words[0].decode().upper()


def parse_monitor_line(line: bytes, wall_offset: float = 0.0) -> SentCommand | None:
    """Reads a line of MONITOR; None for a command of a script, and for anything else.

    wall_offset: is added to the server's time of day.
    """
    found = _LINE.fullmatch(line)
    if found is None or found[3] == _INSIDE:
        return None
    words = tuple(_ESCAPE.sub(_unescape, word) for word in _WORD.findall(found[4]))
    return SentCommand(float(found[1]) + wall_offset, words) if words else None


def counts_between(commands: Sequence[SentCommand], begin: float, end: float) -> Counter[str]:
    """How often each command was sent in [begin, end)."""
    return Counter(command.name for command in commands if begin <= command.moment < end)


class RedisMonitor:
    """For `with`; `commands` are those since it was entered. The server of this machine only: clocks are compared."""

    def __init__(self, url: str) -> None:
        self.commands: list[SentCommand] = []
        # The next command may come at any time.
        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._connection: Any = self._client.connection_pool.get_connection()
        self._wall_offset = time.monotonic() - time.time()
        self._thread = threading.Thread(target=self._read, name="visavis-monitor", daemon=True)
        self._end = secrets.token_hex(8).encode()

    def __enter__(self) -> Self:
        self._connection.send_command("MONITOR")
        self._connection.read_response()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.echo(self._end)  # the reader ends there, with all that was sent before
        self._thread.join()
        self._connection.disconnect()
        self._client.close()

    def _read(self) -> None:
        while len(self.commands) < MAX_KEPT:
            try:
                line = self._connection.read_response(disable_decoding=True)
            except (RedisConnectionError, OSError):
                return
            command = parse_monitor_line(line, self._wall_offset) if isinstance(line, bytes) else None
            if command is None:
                continue
            if command.words[-1] == self._end:
                return
            self.commands.append(command)


def _unescape(found: re.Match[bytes]) -> bytes:
    code = found[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16)])
    return _CONTROLS.get(code, code)
