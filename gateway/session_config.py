"""A client's session config, checked and completed with the server's defaults; pure but for the drawn seed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.audio_format import PcmFormat, parse_audio_format
from gateway.settings import SessionSettings
from gateway.timeline import TimelineRules
from visavis.runtime.errors import InvalidInput
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import SessionConfig


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What a session will be."""

    audio_format: PcmFormat
    rules: TimelineRules
    seed: int


def plan_session(config: SessionConfig, settings: SessionSettings) -> SessionPlan:
    """Check what concerns the gateway; codec and sampling are for the stages. Errors: `InvalidInput`."""
    if not config.avatar_id:
        raise InvalidInput("config.avatar_id is empty; register an avatar first", "config.avatar_id")
    rules = TimelineRules(
        live_when_idle=_lives(config, settings),
        fill_when_starved=_fills(config, settings),
        window_chunks=settings.window_chunks,
        speech_buffer_seconds=settings.speech_buffer_seconds,
        idle_lead_seconds=settings.idle_lead_seconds,
        idle_start_seconds=settings.idle_start_seconds,
        starvation_grace_seconds=settings.starvation_grace_seconds,
    )
    seed = config.seed if config.HasField("seed") else secrets.randbits(64)
    return SessionPlan(parse_audio_format(config.audio_format), rules, seed)


def _lives(config: SessionConfig, settings: SessionSettings) -> bool:
    match config.idle_behavior:
        case talking_head_pb2.IDLE_BEHAVIOR_UNSPECIFIED:
            return settings.live_when_idle
        case talking_head_pb2.IDLE_BEHAVIOR_LIVE:
            return True
        case talking_head_pb2.IDLE_BEHAVIOR_PAUSE:
            return False
    raise InvalidInput("config.idle_behavior is unknown; use LIVE or PAUSE", "config.idle_behavior")


def _fills(config: SessionConfig, settings: SessionSettings) -> bool:
    match config.starvation_policy:
        case talking_head_pb2.STARVATION_POLICY_UNSPECIFIED:
            return settings.fill_when_starved
        case talking_head_pb2.STARVATION_POLICY_WAIT:
            return False
        case talking_head_pb2.STARVATION_POLICY_FILL:
            return True
    raise InvalidInput("config.starvation_policy is unknown; use WAIT or FILL", "config.starvation_policy")
