"""Who makes a talking face of a portrait and speech: a running server, or a model in this process.

H W picture, F frames, S samples at 16 kHz
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from visavis.client import BlockingClient, Consent, Speech, VideoFormat
from visavis.client.client import Sampling
from visavis.contract import FRAME_RATE, SAMPLE_RATE_HZ

Picture = npt.NDArray[np.uint8]
Pictures = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

SAMPLES_PER_FRAME: Final = SAMPLE_RATE_HZ // FRAME_RATE
# As the gateway hears 16-bit samples.
_FULL_SCALE: Final = 32_768
_CONSENT: Final = Consent.synthetic_person("visavis eval", "a clip of `visavis data`, for measuring")
_REACH_SECONDS: Final = 10.0


class Talker(Protocol):
    """Turns a portrait [H, W, 3] and speech [S] into frames, some [F, H, W, 3] at a time, 640 samples each."""

    def stream(self, portrait_HW3: Picture, samples_S: Samples, seed: int) -> Iterator[Pictures]: ...


class PipelineChunk(Protocol):
    """What a pipeline yields."""

    @property
    def pictures_FHW3(self) -> Pictures: ...


class Pipeline(Protocol):
    """`RestPipeline`, `ReadPipeline`."""

    def stream(
        self, portrait: Any, speech: Iterable[Samples], seed: int = 0, sampling: Any = None
    ) -> Iterator[PipelineChunk]: ...


def talk(talker: Talker, portrait_HW3: Picture, samples_S: Samples, seed: int) -> Pictures:
    """All frames that begin before the speech ends, [F, H, W, 3]."""
    frames_FHW3 = np.concatenate(list(talker.stream(portrait_HW3, samples_S, seed)))
    return frames_FHW3[: -(-len(samples_S) // SAMPLES_PER_FRAME)]


@dataclass(frozen=True, slots=True)
class PipelineTalker:
    """A model in this process; `sampling` None is the model's own."""

    pipeline: Pipeline
    sampling: Any = None

    def stream(self, portrait_HW3: Picture, samples_S: Samples, seed: int) -> Iterator[Pictures]:
        """Implements `Talker`."""
        for chunk in self.pipeline.stream(portrait_HW3, [samples_S], seed, self.sampling):
            yield chunk.pictures_FHW3


@dataclass(frozen=True, slots=True)
class ServerTalker:
    """Sessions on a running server: speech goes in as packets, pictures come back without loss."""

    client: BlockingClient
    sampling: Sampling = "server"

    def stream(self, portrait_HW3: Picture, samples_S: Samples, seed: int) -> Iterator[Pictures]:
        """Implements `Talker`. Raises ClientError."""
        levels_S = np.rint(samples_S * np.float32(_FULL_SCALE)).clip(-_FULL_SCALE, _FULL_SCALE - 1)
        speech = Speech(levels_S.astype(np.int16)[:, None], SAMPLE_RATE_HZ)
        avatar = self.client.register_avatar(_png(portrait_HW3), _CONSENT, display_name="visavis eval")
        talk = self.client.talk(
            avatar,
            audio_format=speech.audio_format,
            video_format=VideoFormat.raw(),
            seed=seed,
            idle="pause",
            starvation="wait",
            sampling=self.sampling,
        )
        try:
            with talk as session:
                session.send_in_background(_packets(speech))
                for segment in session:
                    yield session.pictures(segment)
        finally:
            self.client.delete_avatar(avatar.avatar_id)


@contextmanager
def server_talker(address: str, sampling: Sampling) -> Iterator[ServerTalker]:
    """Connects to a gateway. Raises ClientError where there is none."""
    with BlockingClient(address) as client:
        client.wait_until_reachable(_REACH_SECONDS)
        yield ServerTalker(client, sampling)


def _packets(speech: Speech) -> Sequence[bytes]:
    """As fast as the server takes them: what it makes of them does not depend on when they come."""
    size = SAMPLES_PER_FRAME * speech.audio_format.bytes_per_sample
    return [speech.pcm[start : start + size] for start in range(0, len(speech.pcm), size)]


def _png(picture_HW3: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture_HW3).save(buffer, "PNG")
    return buffer.getvalue()
