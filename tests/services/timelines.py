"""The three engines behind one face, for tests that send sessions back and forth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from services.audio_encoder.engine import AudioEncoderEngine
from services.decoder.engine import DecoderEngine
from services.generator.engine import GeneratorEngine
from tests.services.audio_encoder.messages import CHUNK
from tests.services.decoder.messages import RAW
from tests.services.engine_driver import header, random_tensor
from tests.services.generator.messages import config as generator_config
from tests.services.generator.messages import portrait_latent
from tests.services.generator.messages import speech as generator_speech
from tests.services.tiny_settings import audio_encoder_settings, decoder_settings, generator_settings
from visavis.models.presets import load_preset
from visavis.runtime.engine import Engine, SessionOutput
from visavis.v1 import audio_encoder_pb2, chunk_pb2, decoder_pb2, generator_pb2

LATENT_SHAPE = (3, load_preset("tiny").latent_rows, load_preset("tiny").latent_rows, 16)

# A chunk by epoch and index: what it says follows from the two.
Name = tuple[int, int]
# Name, and the bytes of its answer.
Answer = tuple[Name, bytes]


@dataclass(frozen=True)
class StageUnderTest:
    """An engine, its messages, and how its answers read."""

    engine: Engine
    # From session id, and a rewind to resume with or None.
    config: Callable[[str, Any], Any]
    item: Callable[[Name], Any]
    # From border, the names of the last chunks up to it, and the bytes of their answers.
    rewind: Callable[[chunk_pb2.ChunkBorder, Sequence[Answer]], Any]
    read: Callable[[Sequence[Any]], list[Answer]]

    def answers(self, outputs: Sequence[SessionOutput], session_id: str) -> list[Answer]:
        """What a session was answered; a step gives chunks as a whole."""
        return self.read([output for owner, output in outputs if owner == session_id])


def seed_of(name: Name) -> int:
    epoch, index = name
    return 1000 * epoch + index


def header_of(name: Name) -> chunk_pb2.ChunkHeader:
    return header(name[1], epoch=name[0])


def name_of(found: chunk_pb2.ChunkHeader) -> Name:
    return found.epoch, found.chunk_index


def audio_encoder_under_test() -> StageUnderTest:
    engine = AudioEncoderEngine(audio_encoder_settings())
    engine.warm_up()

    def item(name: Name) -> audio_encoder_pb2.SpeechChunk:
        samples = np.random.default_rng(seed_of(name)).uniform(-0.5, 0.5, CHUNK).astype("<f4")
        return audio_encoder_pb2.SpeechChunk(
            header=header_of(name), samples=samples.tobytes(), lookahead=samples[:700].tobytes()
        )

    return StageUnderTest(
        engine,
        lambda session_id, resume: audio_encoder_pb2.EncodeConfig(session_id=session_id, resume=resume),
        item,
        lambda border, last: audio_encoder_pb2.EncodeRewind(border=border, replay=[item(name) for name, _ in last]),
        lambda outputs: [(name_of(one.speech.header), one.speech.latents.data) for one in outputs],
    )


def generator_under_test(kept_borders: int = 1) -> StageUnderTest:
    engine = GeneratorEngine(generator_settings(kept_borders=kept_borders))
    engine.warm_up()

    def config(session_id: str, resume: Any) -> generator_pb2.GenerateConfig:
        made = generator_config(session_id)
        if resume is not None:
            made.resume.rewind.CopyFrom(resume)
        return made

    def item(name: Name) -> chunk_pb2.SpeechLatents:
        return generator_speech(name[1], seed_of(name), epoch=name[0])

    def replayed(answer: Answer) -> generator_pb2.ReplayedChunk:
        name, data = answer
        latents = random_tensor(0, LATENT_SHAPE)
        latents.data = data
        video = chunk_pb2.VideoLatents(header=header_of(name), latents=latents)
        return generator_pb2.ReplayedChunk(speech=item(name), video=video)

    return StageUnderTest(
        engine,
        config,
        item,
        lambda border, last: generator_pb2.GenerateRewind(border=border, replay=map(replayed, last)),
        lambda outputs: [(name_of(one.video.header), one.video.latents.data) for one in outputs],
    )


def decoder_under_test() -> StageUnderTest:
    engine = DecoderEngine(decoder_settings(kept_borders=1))
    engine.warm_up()

    def config(session_id: str, resume: Any) -> decoder_pb2.DecodeConfig:
        return decoder_pb2.DecodeConfig(
            session_id=session_id, portrait_latent=portrait_latent(), video_format=RAW, seed=7, resume=resume
        )

    def item(name: Name) -> chunk_pb2.VideoLatents:
        return chunk_pb2.VideoLatents(header=header_of(name), latents=random_tensor(seed_of(name), LATENT_SHAPE))

    def read(outputs: Sequence[decoder_pb2.DecodedPictures]) -> list[Answer]:
        pictures: dict[Name, bytes] = defaultdict(bytes)
        for output in outputs:
            pictures[name_of(output.header)] += b"".join(frame.data for frame in output.frames)
        return list(pictures.items())

    return StageUnderTest(
        engine,
        config,
        item,
        lambda border, last: decoder_pb2.DecodeRewind(border=border, replay=[item(name) for name, _ in last]),
        read,
    )


STAGES: dict[str, Callable[[], StageUnderTest]] = {
    "audio_encoder": audio_encoder_under_test,
    "generator": generator_under_test,
    "decoder": decoder_under_test,
}


def make_stage(name: str) -> StageUnderTest:
    torch.set_num_threads(1)
    return STAGES[name]()
