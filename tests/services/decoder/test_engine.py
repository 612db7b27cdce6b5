import io
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from services.decoder.engine import DecoderEngine
from tests.services.decoder.h264_reader import decoded_h264
from tests.services.decoder.messages import H264, JPEG, RAW, SIZE, config, raw_pictures, video
from tests.services.decoder.patterns import halved, psnr_db
from tests.services.engine_driver import header, outputs_of, run_dry
from tests.services.tiny_settings import decoder_settings
from visavis.models.tensors import tensor_from_message
from visavis.runtime.engine import SessionOutput
from visavis.runtime.errors import InternalError, InvalidInput
from visavis.v1 import chunk_pb2, decoder_pb2, media_pb2, tensor_pb2


@pytest.fixture(scope="module")
def warm_engine() -> DecoderEngine:
    torch.set_num_threads(1)
    engine = DecoderEngine(decoder_settings())
    engine.warm_up()
    return engine


@pytest.fixture
def engine(warm_engine: DecoderEngine) -> Iterator[DecoderEngine]:
    yield warm_engine
    for session_id in ("a", "b", "c"):
        warm_engine.close(session_id)


@pytest.fixture(scope="module")
def portrait_latent(warm_engine: DecoderEngine) -> tensor_pb2.Tensor:
    buffer = io.BytesIO()
    Image.new("RGB", (90, 120), (200, 150, 120)).save(buffer, "PNG")
    response = warm_engine.call(decoder_pb2.EncodePortraitRequest(portrait=buffer.getvalue()))
    assert isinstance(response, decoder_pb2.EncodePortraitResponse)
    return response.portrait_latent


def frames_of(outputs: list[SessionOutput], session_id: str = "a") -> list[media_pb2.Frame]:
    return [f for message in outputs_of(outputs, session_id, decoder_pb2.DecodedPictures) for f in message.frames]


def decode(
    engine: DecoderEngine,
    portrait_latent: tensor_pb2.Tensor,
    video_format: media_pb2.VideoFormat = RAW,
    chunks: int = 2,
    seed: int = 100,
) -> list[SessionOutput]:
    """One session from its start to its end; its chunks arrive at the same instant."""
    engine.open("a", config(portrait_latent, "a", video_format))
    arrival = time.monotonic()
    for index in range(1, chunks + 1):
        engine.submit("a", video(portrait_latent, index, seed), arrival)
    outputs = run_dry(engine)
    engine.close("a")
    return outputs


def test_ready_says_model_and_size(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    ready = engine.open("a", config(portrait_latent))
    assert isinstance(ready, decoder_pb2.DecodeReady)
    description = engine.describe()
    assert (ready.width, ready.height) == (description.width, description.height) == (SIZE, SIZE)
    assert (ready.model.name, ready.model.fingerprint) == (description.model_name, description.model_fingerprint)
    assert ready.model.random_weights


def test_pictures_are_those_of_the_model(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    outputs = decode(engine, portrait_latent)
    vae = engine._loaded.module
    with torch.inference_mode():
        state = vae.initial_decoder_state(tensor_from_message(portrait_latent)[None], 7)
        expected = []
        for index in (1, 2):
            latents = tensor_from_message(video(portrait_latent, index, 100).latents)[None]
            pictures, state = vae.decode_chunk(latents, state)
            expected.append(((pictures[0] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    np.testing.assert_array_equal(raw_pictures(frames_of(outputs)), torch.cat(expected).numpy())
    assert torch.cat(expected).float().std() > 10, "noise in, a picture of one colour out: the test would prove nothing"


def test_each_chunk_is_answered_once_and_in_order(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    messages = outputs_of(decode(engine, portrait_latent, chunks=4), "a", decoder_pb2.DecodedPictures)
    last = [message for message in messages if message.last_in_chunk]
    assert [message.header.chunk_index for message in last] == [1, 2, 3, 4]
    assert all(message.timing.computed.ToNanoseconds() > 0 for message in last)
    # All four were there from the beginning, so each next one has waited longer.
    queued = [message.timing.queued.ToNanoseconds() for message in last]
    assert queued == sorted(queued)
    for index in range(1, 5):
        assert sum(len(message.frames) for message in messages if message.header.chunk_index == index) == 24


def test_two_runs_give_the_same_raw_frames(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    first, second = (frames_of(decode(engine, portrait_latent)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("video_format", [RAW, JPEG, H264])
def test_sessions_side_by_side_give_the_same_bits_as_alone(
    engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor, video_format: media_pb2.VideoFormat
) -> None:
    seeds = {"a": 100, "b": 200, "c": 300}
    alone = {name: frames_of(decode(engine, portrait_latent, video_format, 3, seed)) for name, seed in seeds.items()}
    for name in seeds:
        engine.open(name, config(portrait_latent, name, video_format))
    outputs: list[SessionOutput] = []
    for index in (1, 2, 3):
        for name, seed in seeds.items():
            engine.submit(name, video(portrait_latent, index, seed), time.monotonic())
            outputs += engine.step()
    outputs += run_dry(engine)
    assert {name: frames_of(outputs, name) for name in seeds} == alone


# Random weights give noise, whose finest colours 4:2:0 cannot keep.
@pytest.mark.parametrize("video_format", [JPEG, H264])
def test_encoded_pictures_come_back_close_to_the_raw_ones(
    engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor, video_format: media_pb2.VideoFormat
) -> None:
    raw = raw_pictures(frames_of(decode(engine, portrait_latent)))
    frames = frames_of(decode(engine, portrait_latent, video_format))
    assert len(frames) == 48
    if video_format.codec == media_pb2.VIDEO_CODEC_H264:
        shown = decoded_h264(frames)
    else:
        shown = np.stack([np.asarray(Image.open(io.BytesIO(frame.data))) for frame in frames])
    assert shown.shape == raw.shape
    assert psnr_db(halved(shown), halved(raw)) > 24


def test_a_new_epoch_starts_with_a_key_frame(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    engine.open("a", config(portrait_latent, "a", H264))
    for index, epoch in ((1, 1), (2, 1), (3, 2), (4, 2)):
        engine.submit("a", video(portrait_latent, index, 100, epoch=epoch), time.monotonic())
    frames = frames_of(run_dry(engine))
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == [0, 48]


def test_the_chunk_due_first_is_decoded_first(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    for name in ("a", "b"):
        engine.open(name, config(portrait_latent, name))
    arrival = time.monotonic()
    engine.submit("a", video(portrait_latent, 1, 100, seconds_left=0.9), arrival)
    engine.submit("b", video(portrait_latent, 1, 200, seconds_left=0.1), arrival)
    first, _ = run_dry(engine)[0]
    assert first == "b"


def test_a_closed_session_gives_no_more_pictures(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    engine.open("a", config(portrait_latent))
    for index in (1, 2, 3):
        engine.submit("a", video(portrait_latent, index, 100), time.monotonic())
    engine.step()
    engine.close("a")
    engine.close("a")
    assert not engine.has_work()
    assert engine.step() == []


def test_a_session_can_be_opened_again_and_starts_anew(
    engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor
) -> None:
    whole = frames_of(decode(engine, portrait_latent, H264))
    engine.open("a", config(portrait_latent, "a", H264))
    engine.submit("a", video(portrait_latent, 1, 500), time.monotonic())
    engine.step()
    engine.close("a")
    assert frames_of(decode(engine, portrait_latent, H264)) == whole


class BrokenEncoder:
    def encode(self, pictures_FHW3: npt.NDArray[np.uint8], restart: bool = False) -> list[media_pb2.Frame]:
        raise RuntimeError("codec exploded: internals")


def test_an_encoder_that_fails_ends_its_session_only(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    for name in ("a", "b"):
        engine.open(name, config(portrait_latent, name))
    engine._sessions["a"].encoder = BrokenEncoder()
    for index in (1, 2):
        for name in ("a", "b"):
            engine.submit(name, video(portrait_latent, index, 100), time.monotonic())
    outputs: list[SessionOutput] = []
    while engine.has_work():
        for session_id, output in engine.step():
            if isinstance(output, InternalError):
                assert "exploded" not in output.message
                engine.close(session_id)
            outputs.append((session_id, output))
    assert [type(output) for name, output in outputs if name == "a"] == [InternalError]
    assert len(frames_of(outputs, "b")) == 48


@pytest.mark.parametrize(
    "change",
    [
        lambda latent: latent.shape.append(2),
        lambda latent: latent.Clear(),
        lambda latent: setattr(latent, "data", b"abc"),
        lambda latent: setattr(latent, "data_type", 99),
        lambda latent: setattr(latent, "data", b"\xff" * len(latent.data)),
    ],
)
def test_a_portrait_latent_that_is_none_is_refused(
    engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor, change: Callable[[tensor_pb2.Tensor], None]
) -> None:
    bad = config(portrait_latent)
    change(bad.portrait_latent)
    with pytest.raises(InvalidInput) as caught:
        engine.open("a", bad)
    assert caught.value.field == "config.portrait_latent"


def test_latents_of_another_shape_are_refused(engine: DecoderEngine, portrait_latent: tensor_pb2.Tensor) -> None:
    engine.open("a", config(portrait_latent))
    bad = chunk_pb2.VideoLatents(header=header(1), latents=portrait_latent)
    with pytest.raises(InvalidInput) as caught:
        engine.submit("a", bad, time.monotonic())
    assert caught.value.field == "video.latents"
    with pytest.raises(InvalidInput):
        engine.submit("a", chunk_pb2.VideoLatents(header=header(1)), time.monotonic())
    assert not engine.has_work()


def test_a_portrait_comes_back_as_the_model_sees_it(engine: DecoderEngine) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 200, 30)).save(buffer, "JPEG", quality=95)
    response = engine.call(decoder_pb2.EncodePortraitRequest(portrait=buffer.getvalue()))
    assert isinstance(response, decoder_pb2.EncodePortraitResponse)
    thumbnail = Image.open(io.BytesIO(response.thumbnail))
    assert thumbnail.format == "JPEG"
    assert thumbnail.size == (engine.describe().width, engine.describe().height)
    assert response.portrait_latent.shape[0] == 1
    assert response.model.fingerprint == engine.describe().model_fingerprint


def test_what_is_no_portrait_is_refused(engine: DecoderEngine) -> None:
    with pytest.raises(InvalidInput, match="neither JPEG nor PNG") as caught:
        engine.call(decoder_pb2.EncodePortraitRequest(portrait=b"a text file"))
    assert caught.value.field == "portrait"
