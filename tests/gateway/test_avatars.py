"""Avatars and what the server says about itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import grpc
import pytest

from tests.gateway.gateway_harness import CONSENT, PORTRAIT, GatewayUnderTest, one_of_each, running_gateway
from tests.gateway.stage_servers import FINGERPRINT, SECRET
from tests.gateway.strategies import noise_pcm
from tests.gateway.talk_client import MONO_16K, talking
from visavis.runtime.errors import (
    CapacityExhausted,
    InvalidInput,
    NotFound,
    StageUnavailable,
    VisavisError,
    error_from_rpc,
)
from visavis.v1 import generator_pb2, media_pb2, talking_head_pb2
from visavis.v1.talking_head_pb2 import (
    ConsentRecord,
    DeleteAvatarRequest,
    GetAvatarRequest,
    GetCapacityRequest,
    GetServerInfoRequest,
    ListAvatarsRequest,
    RegisterAvatarRequest,
)


async def test_an_avatar_is_kept_with_its_consent(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        avatar_id = await gateway.register_avatar()
        response = await gateway.stub.GetAvatar(GetAvatarRequest(avatar_id=avatar_id))
    avatar = response.avatar
    assert avatar.avatar_id == avatar_id
    assert avatar.display_name == "A"
    assert avatar.consent == CONSENT
    assert avatar.portrait_sha256 == hashlib.sha256(PORTRAIT).hexdigest()
    assert avatar.model.fingerprint == FINGERPRINT
    assert avatar.create_time.seconds > 1_700_000_000
    assert response.thumbnail == b"thumbnail"


async def test_the_portrait_itself_is_not_kept(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        avatar_id = await gateway.register_avatar()
        fields = await gateway.redis.hgetall(f"visavis:{{avatars}}:avatar:{avatar_id}")
    assert set(fields) == {b"avatar", b"latent", b"thumbnail"}
    assert not any(PORTRAIT in value for value in fields.values())


BAD_REGISTRATIONS: dict[str, tuple[Callable[[RegisterAvatarRequest], object], str]] = {
    "no portrait": (lambda r: r.ClearField("portrait"), "portrait"),
    "portrait too large": (lambda r: setattr(r, "portrait", bytes((3 << 20) + 1)), "portrait"),
    "no picture": (lambda r: setattr(r, "portrait", b"just text"), "portrait"),
    "no consent": (lambda r: r.ClearField("consent"), "consent.basis"),
    "no basis": (lambda r: r.consent.ClearField("basis"), "consent.basis"),
    "nobody answers": (lambda r: setattr(r.consent, "granted_by", " "), "consent.granted_by"),
    "nothing agreed": (lambda r: r.consent.ClearField("statement"), "consent.statement"),
    "long name": (lambda r: setattr(r, "display_name", "x" * 201), "display_name"),
    "long giver": (lambda r: setattr(r.consent, "granted_by", "x" * 201), "consent.granted_by"),
    "long statement": (lambda r: setattr(r.consent, "statement", "x" * 10_001), "consent.statement"),
}


@pytest.mark.parametrize("name", BAD_REGISTRATIONS)
async def test_bad_registrations(redis_url: str, name: str) -> None:
    spoil, field = BAD_REGISTRATIONS[name]
    request = RegisterAvatarRequest(portrait=PORTRAIT, consent=CONSENT)
    spoil(request)
    async with running_gateway(redis_url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.stub.RegisterAvatar(request)
        error = error_from_rpc(refused.value)
        assert isinstance(error, InvalidInput)
        assert error.field == field
        assert not (await gateway.stub.ListAvatars(ListAvatarsRequest())).avatars


async def test_a_failing_decoder_leaks_nothing(redis_url: str) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        stages[2].faults.dies_at_portrait = True
        error = await _registration_error(gateway)
        assert isinstance(error, StageUnavailable)
        assert SECRET not in error.message
        stages[2].faults.full = True
        assert isinstance(await _registration_error(gateway), CapacityExhausted)
        await gateway.registry.remove("decoder", stages[2].instance_id)
        assert "decoder" in (await _registration_error(gateway)).message


async def _registration_error(gateway: GatewayUnderTest) -> VisavisError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.register_avatar()
    return error_from_rpc(refused.value)


async def test_avatars_are_listed_page_by_page_oldest_first(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        avatar_ids = [await gateway.register_avatar() for _ in range(5)]
        listed: list[str] = []
        token = ""
        sizes = []
        while True:
            page = await gateway.stub.ListAvatars(ListAvatarsRequest(page_size=2, page_token=token))
            listed += [avatar.avatar_id for avatar in page.avatars]
            sizes.append(len(page.avatars))
            token = page.next_page_token
            if sizes == [2]:  # one that goes meanwhile disturbs no page
                await gateway.stub.DeleteAvatar(DeleteAvatarRequest(avatar_id=avatar_ids[1]))
            if not token:
                break
        assert listed == avatar_ids
        assert sizes == [2, 2, 1]
        everything = await gateway.stub.ListAvatars(ListAvatarsRequest())
        assert [a.avatar_id for a in everything.avatars] == [avatar_ids[0], *avatar_ids[2:]]
        assert everything.next_page_token == ""


@pytest.mark.parametrize(
    "request_", [ListAvatarsRequest(page_size=1_001), ListAvatarsRequest(page_token="no token!")], ids=str
)
async def test_bad_pages(redis_url: str, request_: ListAvatarsRequest) -> None:
    async with running_gateway(redis_url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.stub.ListAvatars(request_)
        assert isinstance(error_from_rpc(refused.value), InvalidInput)


async def test_a_deleted_avatar_is_gone_but_its_sessions_go_on(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        avatar_id = await gateway.register_avatar()
        async with talking(gateway, avatar_id=avatar_id) as stream:
            await gateway.stub.DeleteAvatar(DeleteAvatarRequest(avatar_id=avatar_id))
            for call in (
                gateway.stub.GetAvatar(GetAvatarRequest(avatar_id=avatar_id)),
                gateway.stub.DeleteAvatar(DeleteAvatarRequest(avatar_id=avatar_id)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert isinstance(error_from_rpc(refused.value), NotFound)
            await stream.speak(noise_pcm(MONO_16K, 15_360, 1))
            await stream.end_audio()
            await stream.rest()


async def test_capacity_counts_what_can_start(redis_url: str) -> None:
    stages = one_of_each()
    async with running_gateway(redis_url, stages) as gateway:
        await stages[1].register(gateway.registry, slots=3, used_slots=2)
        capacity = await gateway.stub.GetCapacity(GetCapacityRequest())
        assert (capacity.slots, capacity.used_slots) == (3, 2)
        assert [(s.stage, s.instances, s.slots, s.used_slots) for s in capacity.stages] == [
            ("audio_encoder", 1, 4, 0),
            ("generator", 1, 3, 2),
            ("decoder", 1, 4, 0),
        ]
        await stages[1].register(gateway.registry, draining=True)
        await asyncio.sleep(2 * gateway.settings.service.heartbeat_seconds)
        capacity = await gateway.stub.GetCapacity(GetCapacityRequest())
        assert (capacity.slots, capacity.used_slots) == (0, 0)


async def test_the_server_says_what_it_can(redis_url: str) -> None:
    async with running_gateway(redis_url) as gateway:
        info = await gateway.stub.GetServerInfo(GetServerInfoRequest())
        assert info.version
        assert info.model.fingerprint == FINGERPRINT
        assert (info.width, info.height, info.frame_rate) == (64, 64, 25)
        assert info.chunk_duration.ToMilliseconds() == 960
        assert media_pb2.AUDIO_ENCODING_PCM_F32LE in info.audio_encodings
        assert media_pb2.VIDEO_CODEC_H264 in info.video_codecs
        assert list(info.sampling_presets) == [generator_pb2.SAMPLING_PRESET_STANDARD]


async def test_without_stages_the_server_names_no_model(redis_url: str) -> None:
    async with running_gateway(redis_url, []) as gateway:
        info = await gateway.stub.GetServerInfo(GetServerInfoRequest())
        assert info.version
        assert not info.HasField("model")
        request = RegisterAvatarRequest(
            portrait=PORTRAIT,
            consent=ConsentRecord(
                basis=talking_head_pb2.CONSENT_BASIS_SUBJECT_AGREED, granted_by="a person", statement="yes"
            ),
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.stub.RegisterAvatar(request)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
