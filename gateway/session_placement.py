"""Where one session's stages are served, and where else they could be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.open_stage import OpenStage
from gateway.placement import GENERATOR, fitting_instances, place_session, spoken_by
from gateway.sampling import SamplingWish, sampling_of
from gateway.stage_dialect import Metadata, RequestT, ResponseT, StageDialect
from gateway.stages import Stages
from visavis.runtime.registry import StageInstance


class SessionPlacement:
    """Instances of one model that understand each other; made by `find`. `sampling`: of all its generators."""

    def __init__(
        self,
        stages: Stages,
        session_id: str,
        fingerprint: str,
        candidates: Mapping[str, Sequence[StageInstance]],
        open_seconds: float,
        metadata: Metadata,
    ) -> None:
        self.fingerprint = fingerprint
        self.log_fields = {"session_id": session_id}
        self._stages = stages
        self._candidates = candidates
        self._spoken = spoken_by(candidates)
        self.sampling = sampling_of(candidates[GENERATOR][0])
        self._open_seconds = open_seconds
        self._metadata = metadata

    @classmethod
    async def find(
        cls,
        stages: Stages,
        session_id: str,
        fingerprint: str,
        sampling: SamplingWish,
        open_seconds: float,
        metadata: Metadata,
    ) -> SessionPlacement:
        """Errors: of `place_session`; `StateStoreUnavailable`."""
        instances = await stages.instances()
        candidates = place_session(instances, fingerprint, gateway_id=stages.gateway_id, sampling=sampling)
        return cls(stages, session_id, fingerprint, candidates, open_seconds, metadata)

    async def open(
        self, dialect: StageDialect[RequestT, ResponseT], request: RequestT
    ) -> OpenStage[RequestT, ResponseT]:
        """The first stream to a stage. Errors: as `Stages.open`."""
        candidates = self._candidates[dialect.stage]
        return await self._stages.open(dialect, candidates, request, self._metadata, self._open_seconds)

    async def reopen(
        self,
        dialect: StageDialect[RequestT, ResponseT],
        request: RequestT,
        lost: StageInstance,
        open_seconds: float,
        *,
        others_only: bool,
    ) -> OpenStage[RequestT, ResponseT]:
        """A stream to another instance than `lost`; to that one again only as a last resort, unless `others_only`.

        Errors: as `Stages.open`; `StateStoreUnavailable`.
        """
        found = await self._stages.stage_instances(dialect.stage)
        fitting = fitting_instances(found, self.fingerprint, self._spoken, self.sampling, self._stages.gateway_id)
        candidates = [instance for instance in fitting if instance.instance_id != lost.instance_id]
        if not others_only:
            candidates += [instance for instance in fitting if instance.instance_id == lost.instance_id]
        return await self._stages.open(dialect, candidates, request, self._metadata, open_seconds)
