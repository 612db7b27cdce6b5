"""The services equal the same models called in one process: same thread and row count, same bits."""

import io
from collections.abc import AsyncIterator

import grpc.aio
import numpy as np
import pytest
import torch
from PIL import Image

from tests.system.parts import RATE_HZ, portrait_jpeg, voice
from visavis.cli.local_system import LocalSystem
from visavis.client import AudioFormat, VideoFormat, VisavisClient
from visavis.models.pipeline import RestPipeline, StreamedChunk, cut_chunks
from visavis.models.tensors import tensor_from_message, tensor_to_message
from visavis.v1 import (
    audio_encoder_pb2,
    audio_encoder_pb2_grpc,
    chunk_pb2,
    decoder_pb2,
    decoder_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
)

SEED = 11
SECONDS = 2.5


@pytest.fixture(scope="module")
def samples_S() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Speech as the gateway hears 16-bit samples."""
    return voice(SECONDS).samples_SC[:, 0].astype(np.float32) / np.float32(32768)


@pytest.fixture(scope="module")
def expected(samples_S: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[StreamedChunk]:
    """What one process makes of it, with one thread as the services."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        portrait = Image.open(io.BytesIO(portrait_jpeg())).convert("RGB")
        return list(RestPipeline.from_preset("tiny").stream(portrait, [samples_S], SEED))
    finally:
        torch.set_num_threads(threads)


async def test_raw_frames_through_the_gateway_are_bit_equal(
    client: VisavisClient, avatar_id: str, expected: list[StreamedChunk]
) -> None:
    talk = client.talk(
        avatar_id, audio_format=AudioFormat.s16(RATE_HZ), video_format=VideoFormat.raw(), seed=SEED, idle="pause"
    )
    async with talk as session:
        await session.send(voice(SECONDS).pcm)
        await session.end()
        pictures = np.concatenate([session.pictures(segment) async for segment in session])
    assert np.array_equal(pictures, np.concatenate([chunk.pictures_FHW3 for chunk in expected]))


async def test_latents_of_every_stage_are_bit_equal(
    system: LocalSystem,
    expected: list[StreamedChunk],
    samples_S: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> None:
    async with grpc.aio.insecure_channel(system.addresses["decoder"]) as channel:
        request = decoder_pb2.EncodePortraitRequest(portrait=portrait_jpeg())
        portrait = await decoder_pb2_grpc.DecoderServiceStub(channel).EncodePortrait(request)

    async def encode_requests() -> AsyncIterator[audio_encoder_pb2.EncodeRequest]:
        yield audio_encoder_pb2.EncodeRequest(config=audio_encoder_pb2.EncodeConfig(session_id="parity-a"))
        for index, (chunk_S, lookahead_S) in enumerate(cut_chunks([samples_S]), 1):
            chunk = audio_encoder_pb2.SpeechChunk(
                header=chunk_pb2.ChunkHeader(epoch=1, utterance_id=1, chunk_index=index),
                samples=chunk_S.numpy().tobytes(),
                lookahead=lookahead_S.numpy().tobytes(),
            )
            yield audio_encoder_pb2.EncodeRequest(chunk=chunk)

    speech: list[chunk_pb2.SpeechLatents] = []
    async with grpc.aio.insecure_channel(system.addresses["audio-encoder"]) as channel:
        async for encoded in audio_encoder_pb2_grpc.AudioEncoderServiceStub(channel).Encode(encode_requests()):
            if encoded.HasField("chunk"):
                speech.append(encoded.chunk.speech)

    async def generate_requests() -> AsyncIterator[generator_pb2.GenerateRequest]:
        config = generator_pb2.GenerateConfig(
            session_id="parity-g", avatar_id="a", portrait_latent=portrait.portrait_latent, seed=SEED
        )
        yield generator_pb2.GenerateRequest(config=config)
        for latents in speech:
            yield generator_pb2.GenerateRequest(speech=latents)

    video: list[chunk_pb2.VideoLatents] = []
    async with grpc.aio.insecure_channel(system.addresses["generator"]) as channel:
        async for generated in generator_pb2_grpc.GeneratorServiceStub(channel).Generate(generate_requests()):
            if generated.HasField("chunk"):
                video.append(generated.chunk.video)

    assert len(speech) == len(video) == len(expected) == 3
    for chunk, speech_latents, video_latents in zip(expected, speech, video, strict=True):
        assert torch.equal(tensor_from_message(speech_latents.latents), chunk.speech_latents_TWD)
        assert torch.equal(tensor_from_message(video_latents.latents), chunk.video_latents_THWC)
        assert tensor_to_message(chunk.video_latents_THWC) == video_latents.latents
