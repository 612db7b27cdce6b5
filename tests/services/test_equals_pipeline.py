"""The three engines in a row give what `RestPipeline` gives in one process, bit for bit."""

import io
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from services.audio_encoder.engine import AudioEncoderEngine
from services.decoder.engine import DecoderEngine
from services.generator.engine import GeneratorEngine
from tests.services.audio_encoder.messages import chunk_of, clip
from tests.services.decoder.messages import RAW, raw_pictures
from tests.services.decoder.patterns import moving_pattern
from tests.services.engine_driver import outputs_of, run_dry
from tests.services.tiny_settings import audio_encoder_settings, decoder_settings, generator_settings
from visavis.models.pipeline import RestPipeline
from visavis.models.tensors import tensor_from_message
from visavis.v1 import audio_encoder_pb2, decoder_pb2, generator_pb2

SEED = 11


def test_speech_latents_video_latents_and_pictures_equal_the_pipeline_s() -> None:
    torch.set_num_threads(1)
    portrait = Image.fromarray(moving_pattern(1, 100)[0]).crop((0, 0, 100, 80))
    buffer = io.BytesIO()
    portrait.save(buffer, "PNG")
    speech = clip(1)

    hearing, denoising, drawing = (
        AudioEncoderEngine(audio_encoder_settings()),
        GeneratorEngine(generator_settings()),
        DecoderEngine(decoder_settings()),
    )
    for engine in (hearing, denoising, drawing):
        engine.warm_up()
    encoded = drawing.call(decoder_pb2.EncodePortraitRequest(portrait=buffer.getvalue()))
    assert isinstance(encoded, decoder_pb2.EncodePortraitResponse)
    hearing.open("s", audio_encoder_pb2.EncodeConfig(session_id="s"))
    denoising.open(
        "s",
        generator_pb2.GenerateConfig(
            session_id="s", avatar_id="anna", portrait_latent=encoded.portrait_latent, seed=SEED
        ),
    )
    drawing.open(
        "s",
        decoder_pb2.DecodeConfig(session_id="s", portrait_latent=encoded.portrait_latent, video_format=RAW, seed=SEED),
    )

    chunks = list(RestPipeline.from_preset("tiny", "cpu", "float32").stream(portrait, [speech], SEED))
    assert len(chunks) == 3
    for expected in chunks:
        hearing.submit("s", chunk_of(speech, expected.chunk_index), time.monotonic())
        (heard,) = outputs_of(run_dry(hearing), "s", audio_encoder_pb2.EncodedChunk)
        assert torch.equal(tensor_from_message(heard.speech.latents), expected.speech_latents_TWD)
        denoising.submit("s", heard.speech, time.monotonic())
        (denoised,) = outputs_of(run_dry(denoising), "s", generator_pb2.GeneratedChunk)
        assert torch.equal(tensor_from_message(denoised.video.latents), expected.video_latents_THWC)
        drawing.submit("s", denoised.video, time.monotonic())
        frames = [f for m in outputs_of(run_dry(drawing), "s", decoder_pb2.DecodedPictures) for f in m.frames]
        np.testing.assert_array_equal(raw_pictures(frames), expected.pictures_FHW3)


def test_all_stages_say_the_same_of_their_model() -> None:
    engines = (
        AudioEncoderEngine(audio_encoder_settings()),
        GeneratorEngine(generator_settings()),
        DecoderEngine(decoder_settings()),
    )
    for engine in engines:
        engine.warm_up()
    # Only a generator samples.
    said = {replace(engine.describe(), slots=0, real_time_sessions=None, sampling="") for engine in engines}
    assert len(said) == 1
    assert [engine.describe().sampling for engine in engines] == ["", "standard", ""]
