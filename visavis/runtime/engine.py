"""What a stage must implement to be served: the engine, which lives alone in the worker process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from google.protobuf.message import Message

from visavis.runtime.errors import VisavisError

SessionOutput: TypeAlias = tuple[str, Message | VisavisError]


@dataclass(frozen=True, slots=True)
class EngineDescription:
    """What a warm engine says about itself; it goes into heartbeats, so that the gateway can place sessions."""

    model_name: str
    model_fingerprint: str
    random_weights: bool
    # Sessions the engine can hold at the same time; 0 leaves the number to the settings.
    slots: int
    # Of the pictures, in pixels and frames a second; 0 where a stage does not know.
    width: int
    height: int
    frame_rate: int
    # Opaque; stages that serve one session must say the same, e.g. "latents:3x8x8x128:float32". Empty: fits all.
    compatibility: str
    # Sessions that the device was measured to keep in real time, 0 included; None where that was not measured.
    real_time_sessions: int | None = None
    # Of a generator (`ModelIdentity.sampling`): a session stays with generators that sample in the same way.
    sampling: str = ""


class Engine(Protocol):
    """One stage's computation. Every method is called from one thread of the worker process, never concurrently.

    Messages are the inner messages of the contract: `open` takes EncodeConfig and returns EncodeReady (not
    EncodeRequest and EncodeResponse), `submit` takes SpeechChunk, SpeechLatents or VideoLatents, `rewind` takes
    EncodeRewind, GenerateRewind or DecodeRewind, `step` returns EncodedChunk, GeneratedChunk or DecodedPictures.

    A state that leaves for another instance, or arrives from one, is a session of its own beside the session it belongs
    to, under an id that no session can have (the generator's `open` tells which).

    A `VisavisError` raised by `open`, `submit`, `rewind` or `call`, or returned by `step`, ends that session or call
    only. Any other exception of `open`, `submit`, `rewind` and `call` does the same and reaches the client as an opaque
    INTERNAL. An exception that escapes `step` or `close` ends the worker: its state can no longer be trusted.
    """

    def warm_up(self) -> None:
        """Loads the model and runs once at real shapes. No other method is called before."""
        ...

    def describe(self) -> EngineDescription:
        """Says which model runs and how many sessions fit. Called once, after `warm_up`."""
        ...

    def open(self, session_id: str, config: Message) -> Message:
        """Makes room for a session and returns the `ready` message. Session ids are unique among open sessions.

        Where the config says `resume`, the session goes on at that border; what must be computed for it again is left
        to `step`.
        """
        ...

    def submit(self, session_id: str, item: Message, arrival_seconds: float) -> None:
        """Takes one chunk of an open session; must not compute.

        `arrival_seconds`: when it reached the service, on `time.monotonic()`, which all processes of a machine share.
        The worker takes commands between two steps only, so its own clock would miss up to a step of waiting.
        """
        ...

    def rewind(self, session_id: str, rewind: Message) -> None:
        """Goes to a border of an open session; must not compute.

        From now on nothing of what was submitted before is answered. What must be computed again is left to `step`.
        """
        ...

    def close(self, session_id: str) -> None:
        """Forgets a session and its unfinished chunks; unknown sessions are fine. Also called after a failed `open`."""
        ...

    def call(self, request: Message) -> Message:
        """Answers a request that belongs to no session (EncodePortrait)."""
        ...

    def has_work(self) -> bool:
        """Whether `step` would do something now. While False the worker sleeps until the next command."""
        ...

    def step(self) -> Sequence[SessionOutput]:
        """Does one bounded piece of work (a denoising step, a chunk) and returns what became ready, in order.

        A `VisavisError` as output ends its session. Nothing may be returned for a closed session.
        """
        ...


@runtime_checkable
class CachingEngine(Protocol):
    """An engine that keeps something for its sessions on the device, and says how much."""

    def cache_bytes(self) -> Mapping[str, int]:
        """Bytes by kind; the kinds are always the same. Asked after every step, so it must be quick."""
        ...


@runtime_checkable
class RewindingEngine(Protocol):
    """An engine that counts how its sessions got to the borders that they went to."""

    def border_counts(self) -> Mapping[str, int]:
        """Since the start, by the way they got there; the ways are always the same. Asked like `cache_bytes`."""
        ...
