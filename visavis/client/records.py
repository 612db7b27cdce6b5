"""What the server knows and tells: avatars with their consent, its model, its capacity."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from visavis.v1 import chunk_pb2, talking_head_pb2


@dataclass(frozen=True, slots=True)
class Consent:
    """Who allowed a face to be animated; kept with the avatar.

    granted_by: who answers for the consent, a name or an account.
    statement: what was agreed to, in words or as a reference.
    """

    basis: talking_head_pb2.ConsentBasis.ValueType
    granted_by: str
    statement: str

    @classmethod
    def subject_agreed(cls, granted_by: str, statement: str) -> Self:
        """The person in the portrait agreed."""
        return cls(talking_head_pb2.CONSENT_BASIS_SUBJECT_AGREED, granted_by, statement)

    @classmethod
    def synthetic_person(cls, granted_by: str, statement: str) -> Self:
        """The portrait shows no real person."""
        return cls(talking_head_pb2.CONSENT_BASIS_SYNTHETIC_PERSON, granted_by, statement)

    def to_message(self) -> talking_head_pb2.ConsentRecord:
        """The record as the contract says it."""
        return talking_head_pb2.ConsentRecord(basis=self.basis, granted_by=self.granted_by, statement=self.statement)


@dataclass(frozen=True, slots=True)
class Model:
    """The weights that the server runs. With `random_weights` its pictures are noise.

    sampling: of a session, "standard", or "fast" with its adapter's hash; empty elsewhere.
    """

    name: str
    fingerprint: str
    random_weights: bool
    sampling: str = ""

    @classmethod
    def from_message(cls, message: chunk_pb2.ModelIdentity) -> Self:
        """Reads the contract's form."""
        return cls(message.name, message.fingerprint, message.random_weights, message.sampling)


@dataclass(frozen=True, slots=True)
class Avatar:
    """A registered portrait.

    portrait_sha256: hexadecimal, of the portrait as uploaded.
    """

    avatar_id: str
    display_name: str
    consent: Consent
    created: datetime
    portrait_sha256: str
    model: Model

    @classmethod
    def from_message(cls, message: talking_head_pb2.Avatar) -> Self:
        """Reads the contract's form."""
        record = message.consent
        return cls(
            avatar_id=message.avatar_id,
            display_name=message.display_name,
            consent=Consent(record.basis, record.granted_by, record.statement),
            created=message.create_time.ToDatetime(tzinfo=UTC),
            portrait_sha256=message.portrait_sha256,
            model=Model.from_message(message.model),
        )


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What the server says when a session starts. `seed` repeats the session's pictures with the same audio.

    resume_token: the right to go on after a break; empty where the server does not resume. resume_window_seconds: how
    long it keeps a session whose client is gone.
    """

    session_id: str
    seed: int
    width: int
    height: int
    frame_rate: int
    model: Model
    resume_token: str
    resume_window_seconds: float

    @classmethod
    def from_message(cls, message: talking_head_pb2.SessionStarted) -> Self:
        """Reads the contract's form."""
        return cls(
            session_id=message.session_id,
            seed=message.seed,
            width=message.width,
            height=message.height,
            frame_rate=message.frame_rate,
            model=Model.from_message(message.model),
            resume_token=message.resume_token,
            resume_window_seconds=message.resume_window.ToNanoseconds() / 1e9,
        )


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is and makes: pictures of `width` x `height`, in chunks of `chunk_seconds`."""

    version: str
    model: Model
    width: int
    height: int
    frame_rate: int
    chunk_seconds: float

    @classmethod
    def from_message(cls, message: talking_head_pb2.GetServerInfoResponse) -> Self:
        """Reads the contract's form."""
        return cls(
            version=message.version,
            model=Model.from_message(message.model),
            width=message.width,
            height=message.height,
            frame_rate=message.frame_rate,
            chunk_seconds=message.chunk_duration.seconds + message.chunk_duration.nanos / 1e9,
        )


@dataclass(frozen=True, slots=True)
class StageCapacity:
    """Slots of the instances of one stage ("audio_encoder", "generator" or "decoder")."""

    stage: str
    instances: int
    slots: int
    used_slots: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many sessions can run, and how many do. A hint: the answer to `talk` is the authority."""

    slots: int
    used_slots: int
    stages: tuple[StageCapacity, ...]

    @classmethod
    def from_message(cls, message: talking_head_pb2.GetCapacityResponse) -> Self:
        """Reads the contract's form."""
        stages = tuple(
            StageCapacity(stage.stage, stage.instances, stage.slots, stage.used_slots) for stage in message.stages
        )
        return cls(message.slots, message.used_slots, stages)
