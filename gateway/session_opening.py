"""What a session begins with, new or resumed, before its stages are open."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.avatar_store import StoredAvatar
from gateway.history import SessionHistory
from gateway.pipeline import PipelineStart
from gateway.resume_rights import HeldRight
from gateway.resumption import Resumption
from gateway.sampling import SamplingWish
from gateway.session_config import SessionPlan
from gateway.stage_dialect import Border
from gateway.timeline_rules import TimelineStart
from visavis.v1.decoder_pb2 import DecodeConfig
from visavis.v1.generator_pb2 import GenerateConfig
from visavis.v1.talking_head_pb2 import SessionConfig


@dataclass(frozen=True, slots=True)
class SessionOpening:
    """Everything that is known of a session when its stages are to be opened."""

    right: HeldRight
    config: SessionConfig
    plan: SessionPlan
    avatar: StoredAvatar
    started_unix_seconds: float
    start: TimelineStart
    history: SessionHistory
    resumption: Resumption | None
    """None for a new session."""
    replay_chunks: dict[str, int]
    sampling: SamplingWish

    @classmethod
    def new(
        cls, right: HeldRight, config: SessionConfig, plan: SessionPlan, avatar: StoredAvatar, history_chunks: int
    ) -> SessionOpening:
        """A session from its beginning."""
        history = SessionHistory(history_chunks)
        wish = SamplingWish(config.sampling, pinned="")
        return cls(right, config, plan, avatar, time.time(), TimelineStart(), history, None, {}, wish)

    @property
    def session_id(self) -> str:
        return self.right.token.session_id

    @property
    def fingerprint(self) -> str:
        """Of the model that the avatar was made for."""
        return self.avatar.avatar.model.fingerprint

    def pipeline_start(self, sampling: str) -> PipelineStart:
        """Where the stages begin; `sampling`: of the generators where the session is placed."""
        generate = GenerateConfig(
            session_id=self.session_id,
            avatar_id=self.config.avatar_id,
            portrait_latent=self.avatar.portrait_latent,
            seed=self.plan.seed,
            sampling=self.config.sampling,
            pinned_sampling=sampling,
        )
        decode = DecodeConfig(
            session_id=self.session_id,
            portrait_latent=self.avatar.portrait_latent,
            video_format=self.config.video_format,
            seed=self.plan.seed,
        )
        return PipelineStart(
            generate=generate,
            decode=decode,
            border=Border(self.start.epoch, self.start.chunk_index),
            resumed=self.resumption is not None,
            skip_frames=0 if self.resumption is None else self.resumption.skip_frames,
            replay_chunks=self.replay_chunks,
        )
