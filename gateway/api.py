"""The public service: thin handlers over sessions, avatars and the registry."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from gateway.audio_format import SUPPORTED_ENCODINGS
from gateway.avatar_store import AvatarStore
from gateway.avatars import register_avatar
from gateway.capacity import summarize_capacity
from gateway.placement import GENERATOR, placement_order, served_model
from gateway.sampling import served_presets
from gateway.segments import duration
from gateway.sessions import Sessions
from gateway.stages import Stages
from visavis import __version__
from visavis.contract import CHUNK_SECONDS, FRAME_RATE
from visavis.runtime.boundary import answer
from visavis.runtime.errors import InvalidInput
from visavis.runtime.tracing import traceparent_of
from visavis.v1 import media_pb2, talking_head_pb2_grpc
from visavis.v1.chunk_pb2 import ModelIdentity
from visavis.v1.talking_head_pb2 import (
    DeleteAvatarRequest,
    DeleteAvatarResponse,
    GetAvatarRequest,
    GetAvatarResponse,
    GetCapacityRequest,
    GetCapacityResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    ListAvatarsRequest,
    ListAvatarsResponse,
    RegisterAvatarRequest,
    RegisterAvatarResponse,
    TalkRequest,
)

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000
_VIDEO_CODECS: Final = (media_pb2.VIDEO_CODEC_RAW_RGB, media_pb2.VIDEO_CODEC_JPEG, media_pb2.VIDEO_CODEC_H264)

logger = logging.getLogger(__name__)

ResponseT = TypeVar("ResponseT")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class TalkingHeadServicer(talking_head_pb2_grpc.TalkingHeadServiceServicer):
    """Every handler ends with an answer or a status; nothing else leaves it."""

    def __init__(self, sessions: Sessions, stages: Stages, avatars: AvatarStore) -> None:
        self._sessions = sessions
        self._stages = stages
        self._avatars = avatars

    async def Talk(self, request_iterator: AsyncIterator[TalkRequest], context: Context) -> None:
        await answer(
            context,
            self._sessions.serve(request_iterator, context.write, traceparent_of(context.invocation_metadata())),
        )

    async def RegisterAvatar(self, request: RegisterAvatarRequest, context: Context) -> RegisterAvatarResponse:
        return await _answered(context, self._register(request))

    async def GetAvatar(self, request: GetAvatarRequest, context: Context) -> GetAvatarResponse:
        return await _answered(context, self._get(request.avatar_id))

    async def ListAvatars(self, request: ListAvatarsRequest, context: Context) -> ListAvatarsResponse:
        return await _answered(context, self._list(request))

    async def DeleteAvatar(self, request: DeleteAvatarRequest, context: Context) -> DeleteAvatarResponse:
        return await _answered(context, self._delete(request.avatar_id))

    async def GetCapacity(self, request: GetCapacityRequest, context: Context) -> GetCapacityResponse:
        return await _answered(context, self._capacity())

    async def GetServerInfo(self, request: GetServerInfoRequest, context: Context) -> GetServerInfoResponse:
        return await _answered(context, self._server_info())

    async def _register(self, request: RegisterAvatarRequest) -> RegisterAvatarResponse:
        avatar = await register_avatar(request, self._avatars, self._stages)
        logger.info("avatar registered", extra={"avatar_id": avatar.avatar_id})
        return RegisterAvatarResponse(avatar=avatar)

    async def _get(self, avatar_id: str) -> GetAvatarResponse:
        stored = await self._avatars.load(avatar_id)
        return GetAvatarResponse(avatar=stored.avatar, thumbnail=stored.thumbnail)

    async def _list(self, request: ListAvatarsRequest) -> ListAvatarsResponse:
        if request.page_size > MAX_PAGE_SIZE:
            raise InvalidInput(f"page_size is {request.page_size}; ask for at most {MAX_PAGE_SIZE}", "page_size")
        page = await self._avatars.list_page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)
        return ListAvatarsResponse(avatars=page.avatars, next_page_token=page.next_page_token)

    async def _delete(self, avatar_id: str) -> DeleteAvatarResponse:
        await self._avatars.delete(avatar_id)
        logger.info("avatar deleted", extra={"avatar_id": avatar_id})
        return DeleteAvatarResponse()

    async def _capacity(self) -> GetCapacityResponse:
        slots = self._sessions.slots
        free_slots = 0 if slots.draining else slots.slots - slots.used_slots
        return summarize_capacity(await self._stages.instances(), free_slots)

    async def _server_info(self) -> GetServerInfoResponse:
        info = GetServerInfoResponse(
            version=__version__,
            audio_encodings=SUPPORTED_ENCODINGS,
            video_codecs=_VIDEO_CODECS,
            frame_rate=FRAME_RATE,
            chunk_duration=duration(CHUNK_SECONDS),
        )
        instances = await self._stages.instances()
        decoder = served_model(instances)
        if decoder is not None:  # else it stays open which model will be served
            fingerprint, generators = decoder.model_fingerprint, placement_order(instances[GENERATOR])
            served = (generator for generator in generators if generator.model_fingerprint == fingerprint)
            info.sampling_presets.extend(served_presets(served))
            info.width, info.height = decoder.width, decoder.height
            info.model.CopyFrom(
                ModelIdentity(
                    name=decoder.model_name,
                    fingerprint=decoder.model_fingerprint,
                    random_weights=decoder.random_weights,
                )
            )
        return info


async def _answered(context: Context, work: Awaitable[ResponseT]) -> ResponseT:
    # None means that the client is gone; grpc drops whatever is returned then.
    return await answer(context, work)  # type: ignore[return-value]
