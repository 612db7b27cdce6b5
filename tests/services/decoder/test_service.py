import asyncio
import io
import math
from collections.abc import AsyncIterator, Callable, Iterator

import grpc
import numpy as np
import pytest
from PIL import Image

from services.decoder.engine import DecoderEngine
from tests.patience import PATIENCE_SECONDS
from tests.services.decoder.h264_reader import decoded_h264
from tests.services.decoder.messages import H264, JPEG, RAW, SIZE, config, raw_pictures, video
from tests.services.decoder.patterns import halved, psnr_db
from tests.services.engine_driver import random_tensor
from tests.services.service_process import ServiceProcess, StageStream, service_process
from tests.services.tiny_settings import decoder_settings
from visavis.models.tensors import tensor_from_message
from visavis.runtime.embedded_redis import EmbeddedRedis
from visavis.runtime.errors import CapacityExhausted, InvalidInput, VisavisError, error_from_rpc
from visavis.runtime.redis_connection import connect_redis
from visavis.runtime.registry import Registry, StageInstance
from visavis.runtime.settings import RedisSettings
from visavis.v1 import decoder_pb2, media_pb2, tensor_pb2
from visavis.v1.decoder_pb2_grpc import DecoderServiceStub

LATENT = random_tensor(1, (1, 2, 2, 16))


@pytest.fixture(scope="module")
def service(valkey: EmbeddedRedis) -> Iterator[ServiceProcess]:
    with service_process("services.decoder", valkey.url, VISAVIS_SLOTS="3") as process:
        yield process


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator[DecoderServiceStub]:
    async with service.channel() as channel:
        yield DecoderServiceStub(channel)


def config_request(session_id: str, video_format: media_pb2.VideoFormat = RAW) -> decoder_pb2.DecodeRequest:
    return decoder_pb2.DecodeRequest(config=config(LATENT, session_id, video_format))


def video_request(index: int, seed: int = 100, *, epoch: int = 1) -> decoder_pb2.DecodeRequest:
    return decoder_pb2.DecodeRequest(video=video(LATENT, index, seed, epoch=epoch))


async def decode(
    stub: DecoderServiceStub, session_id: str, video_format: media_pb2.VideoFormat = RAW, seed: int = 100
) -> list[media_pb2.Frame]:
    """A whole session of two chunks."""
    async with StageStream(stub.Decode(timeout=60)) as stream:
        await stream.send(config_request(session_id, video_format))
        ready = (await stream.receive()).ready
        assert (ready.width, ready.height, ready.model.name) == (SIZE, SIZE, "tiny")
        for index in (1, 2):
            await stream.send(video_request(index, seed))
        messages = [response.pictures for response in await stream.rest()]
    assert [message.header.chunk_index for message in messages if message.last_in_chunk] == [1, 2]
    return [frame for message in messages for frame in message.frames]


async def refusal(stub: DecoderServiceStub, *requests: decoder_pb2.DecodeRequest) -> VisavisError:
    """What the service says to these requests."""
    async with StageStream(stub.Decode(timeout=60)) as stream:
        with pytest.raises(VisavisError) as caught:
            await stream.exchange(requests)
        return caught.value


async def test_raw_frames_are_those_of_the_model_in_every_run_and_beside_others(stub: DecoderServiceStub) -> None:
    engine = DecoderEngine(decoder_settings())
    engine.warm_up()
    expected = []
    state = engine._model.initial_state(LATENT, 7)
    for index in (1, 2):
        latents = tensor_from_message(video(LATENT, index, 100).latents)
        ((pictures, state),) = engine._model.decode_chunks([latents], [state])
        expected.append(pictures)
    alone = await decode(stub, "alone")
    np.testing.assert_array_equal(raw_pictures(alone), np.concatenate(expected))
    beside, other, _ = await asyncio.gather(
        decode(stub, "beside"), decode(stub, "other", RAW, 200), decode(stub, "third", H264, 300)
    )
    assert beside == alone != other


@pytest.mark.parametrize("video_format", [JPEG, H264])
async def test_every_codec_gives_24_pictures_a_chunk_close_to_the_raw_ones(
    stub: DecoderServiceStub, video_format: media_pb2.VideoFormat
) -> None:
    raw = raw_pictures(await decode(stub, "raw"))
    frames = await decode(stub, "coded", video_format)
    if video_format.codec == media_pb2.VIDEO_CODEC_H264:
        shown = decoded_h264(frames)
    else:
        shown = np.stack([np.asarray(Image.open(io.BytesIO(frame.data))) for frame in frames])
    assert shown.shape == raw.shape == (48, SIZE, SIZE, 3)
    # Random weights give noise, whose finest colours 4:2:0 cannot keep.
    assert psnr_db(halved(shown), halved(raw)) > 24


async def test_a_stream_that_breaks_the_rules_is_refused(stub: DecoderServiceStub) -> None:
    start = config_request("rules")
    wrong_latents, not_finite = video_request(1), video_request(1)
    wrong_latents.video.latents.shape[0] = 1
    not_finite.video.latents.data = np.full(math.prod(not_finite.video.latents.shape), np.inf, np.float32).tobytes()
    for requests, field in (
        ([video_request(1)], "request"),
        ([start, start], "config"),
        ([start, video_request(2)], "video.header.chunk_index"),
        ([start, video_request(1), video_request(1)], "video.header.chunk_index"),
        ([start, video_request(1, epoch=2), video_request(2, epoch=1)], "video.header.epoch"),
        ([start, wrong_latents], "video.latents"),
        ([start, not_finite], "video.latents"),
    ):
        error = await refusal(stub, *requests)
        assert isinstance(error, InvalidInput), error
        assert error.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c.ClearField("session_id"), "config.session_id"),
        (lambda c: c.ClearField("portrait_latent"), "config.portrait_latent"),
        (lambda c: c.portrait_latent.CopyFrom(random_tensor(1, (1, 2, 3, 16))), "config.portrait_latent"),
        (lambda c: c.ClearField("video_format"), "config.video_format.codec"),
        (lambda c: setattr(c.video_format, "jpeg_quality", 200), "config.video_format.jpeg_quality"),
    ],
)
async def test_a_bad_config_is_refused_by_the_name_of_its_field(
    stub: DecoderServiceStub, change: Callable[[decoder_pb2.DecodeConfig], None], field: str
) -> None:
    request = config_request("bad")
    change(request.config)
    error = await refusal(stub, request)
    assert isinstance(error, InvalidInput)
    assert error.field == field


async def test_clients_that_vanish_in_the_middle_of_a_chunk_make_room(stub: DecoderServiceStub) -> None:
    for round_number in range(2):
        calls = []
        for index in range(3):
            stream = StageStream(stub.Decode(timeout=60))
            await stream.send(config_request(f"gone-{round_number}-{index}", H264))
            await stream.receive()
            await stream.send(video_request(1))
            calls.append(stream)
        assert isinstance(await refusal(stub, config_request("late")), CapacityExhausted)
        for stream in calls:
            await stream.__aexit__()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert len(await decode_when_free(stub)) == 48


async def decode_when_free(stub: DecoderServiceStub) -> list[media_pb2.Frame]:
    while True:
        try:
            return await decode(stub, "next")
        except CapacityExhausted:
            await asyncio.sleep(0.02)


async def test_a_portrait_becomes_a_latent_that_a_session_takes(stub: DecoderServiceStub) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), (200, 150, 120)).save(buffer, "JPEG")
    response = await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(portrait=buffer.getvalue()), timeout=60)
    assert list(response.portrait_latent.shape) == list(LATENT.shape)
    assert Image.open(io.BytesIO(response.thumbnail)).size == (SIZE, SIZE)
    assert response.portrait_latent.data_type == tensor_pb2.DATA_TYPE_FLOAT32
    request = config_request("portrait")
    request.config.portrait_latent.CopyFrom(response.portrait_latent)
    async with StageStream(stub.Decode(timeout=60)) as stream:
        await stream.send(request)
        assert (await stream.receive()).ready.model == response.model


@pytest.mark.parametrize(
    ("portrait", "reason"),
    [
        (b"", "empty"),
        (b"this is a text file", "neither JPEG nor PNG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
async def test_what_is_no_portrait_is_refused_with_the_reason(
    stub: DecoderServiceStub, portrait: bytes, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=reason) as caught:
        await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(portrait=portrait), timeout=60)
    error = error_from_rpc(caught.value)
    assert isinstance(error, InvalidInput)
    assert error.field == "portrait"


async def test_50_megapixels_are_refused(stub: DecoderServiceStub) -> None:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 5_000)).save(buffer, "PNG")
    with pytest.raises(grpc.aio.AioRpcError, match=r"50\.0 megapixels"):
        await stub.EncodePortrait(decoder_pb2.EncodePortraitRequest(portrait=buffer.getvalue()), timeout=60)


async def test_heartbeats_say_model_size_and_slots(service: ServiceProcess, valkey: EmbeddedRedis) -> None:
    redis = connect_redis(RedisSettings(valkey.url, timeout_seconds=PATIENCE_SECONDS))
    registry = Registry(redis, heartbeat_seconds=2.0, timeout_seconds=PATIENCE_SECONDS)
    instances: dict[str, StageInstance] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.instance_id not in instances:
            instances = {instance.instance_id: instance for instance in await registry.list_instances("decoder")}
    await redis.aclose()
    mine = instances[service.instance_id]
    assert (mine.address, mine.slots, mine.width, mine.height) == (service.address, 3, SIZE, SIZE)
    assert (mine.model_name, mine.random_weights, mine.frame_rate) == ("tiny", True, 25)
