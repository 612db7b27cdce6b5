"""Sessions of the asynchronous client, against a fake server behind real gRPC."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from tests.client.fake_server import FakeService, serve_fake
from visavis.client import (
    AudioFormat,
    CapacityExhausted,
    ClientError,
    Consent,
    Interrupted,
    InvalidInput,
    NotFound,
    Segment,
    ServerUnavailable,
    SessionClosed,
    SessionEnded,
    Speech,
    StageCapacity,
    TalkSession,
    UtteranceEnded,
    VideoFormat,
    VisavisClient,
    paced_packets,
)
from visavis.v1 import generator_pb2

MONO = AudioFormat.s16(16_000)
RAW = VideoFormat.raw()


def ramp(samples: int) -> bytes:
    """Speech in which every sample differs from its neighbour."""
    return (np.arange(samples) % 32_000).astype("<i2").tobytes()


async def test_frames_come_back_with_exactly_their_audio(client: VisavisClient) -> None:
    pcm = ramp(2 * 15_360)
    async with client.talk("known", audio_format=MONO, video_format=RAW, seed=7) as session:
        await session.send(pcm)
        await session.end_utterance()
        await session.end()
        segments = [segment async for segment in session]
        pictures = [session.pictures(segment) for segment in segments]
    assert session.start.seed == 7
    assert b"".join(segment.pcm for segment in segments) == pcm
    assert [segment.first_frame_index for segment in segments] == [1, 25]
    assert [segment.presentation_seconds for segment in segments] == [0.0, 0.96]
    assert np.array_equal(np.concatenate(pictures)[:, 0, 0, 0], np.arange(1, 49))
    assert session.ended == SessionEnded(chunks=2, frames=48)


async def test_events_include_notices_in_order(client: VisavisClient) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        await session.send(ramp(15_360))
        await session.interrupt(100)
        await session.end_utterance()
        await session.end()
        kinds = [type(event) async for event in session.events()]
    assert kinds == [Segment, Interrupted, UtteranceEnded, SessionEnded]


async def test_large_speech_is_cut_into_messages_of_whole_samples(client: VisavisClient, service: FakeService) -> None:
    stereo = AudioFormat.f32(48_000, 2)
    samples = np.zeros((100_001, 2), np.float32)
    async with client.talk("known", audio_format=stereo, video_format=RAW) as session:
        await session.send(samples)
        await session.end()
        async for _ in session.events():
            pass
    lengths = [len(request.audio.pcm) for request in service.requests if request.HasField("audio")]
    assert sum(lengths) == samples.nbytes
    assert max(lengths) <= 256 * 1024
    assert all(length % 8 == 0 for length in lengths)


async def test_an_array_of_the_wrong_type_is_refused(client: VisavisClient) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        with pytest.raises(ValueError, match="int16"):
            await session.send(np.zeros(100, np.float32))


async def test_leaving_early_aborts_the_session(client: VisavisClient, service: FakeService) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        await session.send(ramp(100))
    with pytest.raises(ClientError):
        await session.send(ramp(100))
    assert not any(request.HasField("end_of_audio") for request in service.requests)


async def test_sending_after_the_end_says_so(client: VisavisClient) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        await session.end()
        assert [event async for event in session.events()] == [SessionEnded(0, 0)]
        with pytest.raises(SessionClosed, match="ended"):
            await session.send(ramp(100))


async def test_a_reader_that_gives_up_loses_neither_session_nor_segment(client: VisavisClient) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(session.events())
        await session.send(ramp(15_360))
        event = await anext(session.events())
    assert isinstance(event, Segment)


async def test_a_cancelled_sender_leaves_the_session_open(client: VisavisClient) -> None:
    sent = asyncio.Event()

    async def endless() -> None:
        while True:
            await session.send(ramp(160))
            sent.set()

    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        sender = asyncio.create_task(endless())
        await sent.wait()  # and it is in the middle of the next
        sender.cancel()
        await session.interrupt()
        async for event in session.events():
            if isinstance(event, Interrupted):
                break
        else:
            pytest.fail("the session ended")


async def test_opening_can_be_given_up_at_any_moment(client: VisavisClient) -> None:
    """Also while the first request is on its way: a swallowed cancellation would wait for an answer for ever."""
    for steps in range(12):

        async def open_session() -> None:
            async with client.talk("known", audio_format=MONO, video_format=RAW):
                pass

        opening = asyncio.create_task(open_session())
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([opening])
        assert opening.cancelled() or opening.exception() is None, "given up, or open just before"


async def test_a_failing_source_of_speech_is_raised_to_the_reader(client: VisavisClient) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield ramp(100)
        raise OSError("the voice is gone")

    async with client.talk("known", audio_format=MONO, video_format=RAW) as session:
        session.send_in_background(broken())
        with pytest.raises(OSError, match="voice is gone"):
            async for _ in session:
                pass


async def test_speech_in_the_background(client: VisavisClient) -> None:
    speech = Speech(np.zeros((16_000, 1), np.int16), 16_000)
    async with client.talk("known", audio_format=speech.audio_format, video_format=RAW) as session:
        session.send_in_background(paced_packets(speech, fast=True))
        frames = sum([len(segment.frames) async for segment in session])
    assert frames == 48


async def test_unknown_avatar_and_full_server_are_typed(client: VisavisClient, service: FakeService) -> None:
    with pytest.raises(NotFound, match="no avatar"):
        async with client.talk("unknown", audio_format=MONO):
            pass
    service.full = True
    with pytest.raises(CapacityExhausted) as caught:
        async with client.talk("known", audio_format=MONO):
            pass
    assert caught.value.retry_after_seconds == 1.5


@pytest.mark.parametrize("others", [["full", "free"], ["gone", "full", "free"], ["full", "gone"], ["gone", "full"]])
async def test_the_gateway_after_a_full_one_takes_the_session(
    service: FakeService, address: str, others: list[str]
) -> None:
    service.full = True
    async with serve_fake(FakeService()) as free:
        addresses = {"full": address, "free": free, "gone": "127.0.0.1:1"}
        async with VisavisClient([addresses[other] for other in others]) as client:
            if "free" in others:
                async with client.talk("known", audio_format=MONO) as session:
                    await session.end()
            else:
                with pytest.raises(CapacityExhausted):
                    async with client.talk("known", audio_format=MONO):
                        pass


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE])
async def test_the_gateway_after_one_that_ends_as_it_is_asked_takes_the_session(
    service: FakeService, address: str, code: grpc.StatusCode
) -> None:
    service.breaks_with = code
    async with (
        serve_fake(FakeService()) as other,
        VisavisClient([address, other]) as client,
        client.talk("known", audio_format=MONO) as session,
    ):
        await session.end()
    async with VisavisClient(address) as client:
        with pytest.raises(ServerUnavailable):
            async with client.talk("known", audio_format=MONO):
                pass


async def test_what_the_server_says_last_is_not_lost_to_a_write_that_comes_too_late(address: str) -> None:
    async def write_on(session: TalkSession) -> None:
        while True:
            await session.send(ramp(160))

    for _ in range(30):
        async with VisavisClient(address) as client, client.talk("picky", audio_format=MONO) as session:
            with pytest.raises(InvalidInput, match="too picky"):
                await asyncio.gather(write_on(session), anext(session.events()))


async def test_avatars_pass_through_pages(client: VisavisClient, service: FakeService) -> None:
    consent = Consent.subject_agreed("Ada", "signed form 12")
    avatar = await client.register_avatar(b"jpeg", consent, display_name="Ada")
    assert service.portraits == [b"jpeg"]
    assert (avatar.display_name, avatar.consent) == ("Ada", consent)
    assert [each.avatar_id async for each in client.list_avatars()] == ["avatar 0", "avatar 1", "avatar 2"]


async def test_server_info_tells_of_random_weights(client: VisavisClient) -> None:
    info = await client.server_info()
    assert info.model.random_weights
    assert info.chunk_seconds == pytest.approx(0.96)


async def test_an_avatar_is_looked_up_and_deleted(client: VisavisClient, service: FakeService) -> None:
    avatar, thumbnail = await client.get_avatar("known")
    assert (avatar.avatar_id, thumbnail) == ("known", b"jpeg")
    await client.delete_avatar("known")
    assert service.deleted == ["known"]


async def test_capacity_comes_by_stage(client: VisavisClient) -> None:
    capacity = await client.capacity()
    assert (capacity.slots, capacity.used_slots) == (8, 3)
    assert capacity.stages == (StageCapacity("generator", 2, 8, 3),)


async def test_the_way_of_sampling_that_is_asked_for_reaches_the_server(
    client: VisavisClient, service: FakeService
) -> None:
    async with client.talk("known", audio_format=MONO, video_format=RAW, sampling="fast") as session:
        await session.end()
    assert service.requests[0].config.sampling == generator_pb2.SAMPLING_PRESET_FAST
