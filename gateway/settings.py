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
    speech_buffer_seconds: float
    """Speech that is kept before the gateway stops reading from the client."""
    idle_lead_seconds: float
    """How long before its playout an idle chunk is started."""
    idle_start_seconds: float
    """How long a new session waits for speech before its first idle chunk."""
    starvation_grace_seconds: float
    """Speech has run dry when a chunk is due and nothing arrived for this long."""
    idle_limit_seconds: float
    """A client that sends nothing for this long, and has not ended its audio, is dropped."""
    record_seconds: float
    """How often the session's record in Redis is refreshed; it expires after three times as long."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """How the gateway treats the stages."""

    open_timeout_seconds: float
    """Of opening one stream at one instance."""
    answer_timeout_seconds: float
    """Of each message that a stage owes."""
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
            speech_buffer_seconds=environment.seconds("SPEECH_BUFFER_SECONDS", 30.0, minimum=2.0),
            idle_lead_seconds=environment.seconds("IDLE_LEAD_SECONDS", 0.96),
            idle_start_seconds=environment.seconds("IDLE_START_SECONDS", 0.5),
            starvation_grace_seconds=environment.seconds("STARVATION_GRACE_SECONDS", 0.2),
            idle_limit_seconds=environment.seconds("IDLE_LIMIT_SECONDS", 600.0, minimum=0.05),
            record_seconds=environment.seconds("SESSION_RECORD_SECONDS", 10.0, minimum=0.05),
        ),
        stages=StageSettings(
            open_timeout_seconds=environment.seconds("STAGE_OPEN_TIMEOUT_SECONDS", 30.0, minimum=0.05),
            answer_timeout_seconds=environment.seconds("STAGE_ANSWER_TIMEOUT_SECONDS", 30.0, minimum=0.05),
            portrait_timeout_seconds=environment.seconds("PORTRAIT_TIMEOUT_SECONDS", 60.0, minimum=0.05),
            max_tries=environment.integer("STAGE_MAX_TRIES", 8, minimum=1, maximum=1000),
        ),
    )
