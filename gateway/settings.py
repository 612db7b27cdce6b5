"""Settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.runtime.settings import Environment, ServiceSettings, read_service_settings


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What the server decides about every session."""

    live_when_idle: bool
    """IDLE_BEHAVIOR_UNSPECIFIED means LIVE."""
    fill_when_starved: bool
    """STARVATION_POLICY_UNSPECIFIED means FILL."""
    window_chunks: int
    """Chunks of one session in the pipeline at once, counted until their frames are written to the client."""
    speech_buffer_bytes: int
    """Speech of one session, in its format, that is kept before the gateway stops reading from the client."""
    idle_lead_seconds: float
    """How long before its playout an idle chunk is started."""
    idle_start_seconds: float
    """How long a new session waits for speech before its first idle chunk."""
    starvation_grace_seconds: float
    """Speech has run dry when a chunk is due and nothing arrived for this long."""
    idle_limit_seconds: float
    """A client that sends nothing for this long, and has not ended its audio, is told that its session ends."""
    lifetime_seconds: float
    """Of a session, resumptions included."""
    slow_reader_drops: bool
    """SLOW_READER_POLICY_UNSPECIFIED means DROP, where the face lives when idle."""
    slow_reader_seconds: float
    """How long after its playout was due a chunk may still wait for the client, under DROP."""
    history_chunks: int
    """Chunks kept behind the last one written: what rebuilds a stage, and how far an interruption can go back."""
    checkpoint_chunks: int
    """Chunks from one checkpoint in Redis to the next; 0: only when the client is lost or the gateway drains."""
    checkpoint_seconds: float
    """At the latest after this long a checkpoint's expiry begins anew."""
    resume_window_seconds: float
    """How long a session whose stream broke can be resumed."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """How the gateway treats the stages."""

    open_timeout_seconds: float
    """Of opening one stream at one instance."""
    stall_seconds: float
    """A stage that owes a message for this long is lost."""
    recovery_seconds: float
    """How long other instances are tried for a session whose stage was lost, before the client is told."""
    recovery_open_seconds: float
    """Of opening one stream then, and of moving a session's state."""
    portrait_timeout_seconds: float
    """Of encoding a portrait."""
    max_tries: int
    """Instances of a stage that are tried for one session."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything the gateway is told at its start."""

    service: ServiceSettings
    session: SessionSettings
    stages: StageSettings


def read_gateway_settings(environment: Environment) -> GatewaySettings:
    """Reads VISAVIS_*; raises SettingsError that names the variable."""
    return GatewaySettings(
        service=read_service_settings(environment, default_port=50050, default_slots=1000),
        session=SessionSettings(
            live_when_idle=environment.choice("IDLE_BEHAVIOR", "live", ("live", "pause")) == "live",
            fill_when_starved=environment.choice("STARVATION_POLICY", "wait", ("wait", "fill")) == "fill",
            window_chunks=environment.integer("WINDOW_CHUNKS", 3, minimum=1, maximum=16),
            speech_buffer_bytes=environment.integer("SPEECH_BUFFER_BYTES", 8 << 20, minimum=1 << 16),
            idle_lead_seconds=environment.seconds("IDLE_LEAD_SECONDS", 0.96),
            idle_start_seconds=environment.seconds("IDLE_START_SECONDS", 0.5),
            starvation_grace_seconds=environment.seconds("STARVATION_GRACE_SECONDS", 0.2),
            idle_limit_seconds=environment.seconds("IDLE_LIMIT_SECONDS", 600.0, minimum=0.05),
            lifetime_seconds=environment.seconds("SESSION_LIFETIME_SECONDS", 86_400.0, minimum=0.05),
            slow_reader_drops=environment.choice("SLOW_READER_POLICY", "wait", ("wait", "drop")) == "drop",
            slow_reader_seconds=environment.seconds("SLOW_READER_SECONDS", 1.92),
            history_chunks=environment.integer("HISTORY_CHUNKS", 12, minimum=1, maximum=64),
            checkpoint_chunks=environment.integer("CHECKPOINT_CHUNKS", 4, maximum=64),
            checkpoint_seconds=environment.seconds("CHECKPOINT_SECONDS", 10.0, minimum=0.05),
            resume_window_seconds=environment.seconds("RESUME_WINDOW_SECONDS", 30.0, minimum=0.1),
        ),
        stages=StageSettings(
            open_timeout_seconds=environment.seconds("STAGE_OPEN_TIMEOUT_SECONDS", 30.0, minimum=0.05),
            stall_seconds=environment.seconds("STAGE_STALL_SECONDS", 10.0, minimum=0.05),
            recovery_seconds=environment.seconds("RECOVERY_SECONDS", 15.0),
            recovery_open_seconds=environment.seconds("RECOVERY_OPEN_SECONDS", 5.0, minimum=0.05),
            portrait_timeout_seconds=environment.seconds("PORTRAIT_TIMEOUT_SECONDS", 60.0, minimum=0.05),
            max_tries=environment.integer("STAGE_MAX_TRIES", 8, minimum=1, maximum=1000),
        ),
    )
