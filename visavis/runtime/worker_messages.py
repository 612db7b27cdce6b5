"""What the service process and its worker say to each other: pickled tuples over a socket pair.

`key` numbers the sessions of one worker and never repeats, so what is still under way for a closed session cannot be
taken for an answer to a new session of the same id. Protobuf messages pickle by their serialised form.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from google.protobuf.message import Message

from visavis.runtime.engine import EngineDescription
from visavis.runtime.errors import VisavisError


class OpenSession(NamedTuple):
    key: int
    session_id: str
    config: Message


class SubmitItem(NamedTuple):
    key: int
    item: Message
    # On time.monotonic(), when the item reached the service.
    arrival_seconds: float


class RewindSession(NamedTuple):
    key: int
    rewind: Message


class CloseSession(NamedTuple):
    key: int


class CallEngine(NamedTuple):
    key: int
    request: Message


class StopWorker(NamedTuple):
    pass


class WorkerWarm(NamedTuple):
    description: EngineDescription


class Answered(NamedTuple):
    """The ready message of OpenSession, the response of CallEngine, or why there is none."""

    key: int
    answer: Message | VisavisError


class Produced(NamedTuple):
    """One output of a session; an error ends the session."""

    key: int
    output: Message | VisavisError
    # RewindSession commands the engine had taken when it made this: what it made before the last one is dropped.
    rewinds: int


class Beat(NamedTuple):
    """The sign of life of a worker, sent by a thread that does not compute."""

    # How long the command or step that runs now has been running; 0 while the worker waits for work.
    active_seconds: float
    # Since the start, all steps and commands.
    busy_seconds: float
    alive_seconds: float
    queue_depth: int
    # What a CachingEngine keeps, by kind.
    cache_bytes: Mapping[str, int]
    # How sessions got to borders, where a RewindingEngine counts it.
    border_counts: Mapping[str, int]


Command: TypeAlias = OpenSession | SubmitItem | RewindSession | CloseSession | CallEngine | StopWorker
Event: TypeAlias = WorkerWarm | Answered | Produced | Beat
