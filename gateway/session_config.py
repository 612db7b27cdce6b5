"""A client's session config, checked and completed with the server's defaults; pure but for the drawn seed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.audio_format import PcmFormat, parse_audio_format
from gateway.sampling import check_sampling
from gateway.settings import SessionSettings
from gateway.timeline_rules import TimelineRules
from visavis.contract import CHUNK_SECONDS
from visavis.runtime.errors import InvalidInput
from visavis.v1 import talking_head_pb2
from visavis.v1.talking_head_pb2 import SessionConfig


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What a session will be."""

    audio_format: PcmFormat
    rules: TimelineRules
    seed: int
    drops: bool
    """Whether a client that reads too slowly loses chunks."""


def plan_session(config: SessionConfig, settings: SessionSettings) -> SessionPlan:
    """Check what concerns the gateway; the codec is for the decoder. Errors: `InvalidInput`."""
    if not config.avatar_id:
        raise InvalidInput("config.avatar_id is empty; register an avatar first", "config.avatar_id")
    check_sampling(config.sampling)
    lives = _lives(config, settings)
    drops = _drops(config, settings, lives=lives)
    rules = TimelineRules(
        live_when_idle=lives,
        fill_when_starved=_fills(config, settings),
        window_chunks=settings.window_chunks,
        speech_buffer_bytes=settings.speech_buffer_bytes,
        idle_lead_seconds=settings.idle_lead_seconds,
        idle_start_seconds=settings.idle_start_seconds,
        starvation_grace_seconds=settings.starvation_grace_seconds,
        # A reader is slow when it falls behind real time, so nothing runs far ahead of that.
        speech_lead_seconds=settings.window_chunks * CHUNK_SECONDS if drops else None,
    )
    seed = config.seed if config.HasField("seed") else secrets.randbits(64)
    return SessionPlan(parse_audio_format(config.audio_format), rules, seed, drops)


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


def _drops(config: SessionConfig, settings: SessionSettings, *, lives: bool) -> bool:
    match config.slow_reader_policy:
        case talking_head_pb2.SLOW_READER_POLICY_UNSPECIFIED:
            return settings.slow_reader_drops and lives
        case talking_head_pb2.SLOW_READER_POLICY_WAIT:
            return False
        case talking_head_pb2.SLOW_READER_POLICY_DROP:
            if lives:
                return True
            raise InvalidInput("config.slow_reader_policy DROP needs IDLE_BEHAVIOR_LIVE", "config.slow_reader_policy")
    raise InvalidInput("config.slow_reader_policy is unknown; use WAIT or DROP", "config.slow_reader_policy")
