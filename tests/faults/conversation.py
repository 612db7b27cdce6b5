"""One client that talks, is interrupted, breaks and resumes, and keeps a history that can be checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt

from tests.faults.history import History, Rule, Violation, check
from visavis.client import AudioFormat, VideoFormat
from visavis.client.errors import CapacityExhausted, ClientError, DeadlineExceeded, ServerUnavailable
from visavis.client.gateways import Gateways
from visavis.client.records import SessionStart
from visavis.client.resumable_stream import ResumableStream
from visavis.client.talk_stream import TalkStream
from visavis.contract import CHUNK_FRAMES
from visavis.v1 import media_pb2, talking_head_pb2
from visavis.v1.talking_head_pb2 import (
    AudioInput,
    EndOfAudio,
    EndOfUtterance,
    Interrupt,
    SessionConfig,
    TalkRequest,
    TalkResponse,
)

# A new session may be refused for as long as this while parts of the system are away.
_START_SECONDS: Final = 180.0
# What is longer hangs: recoveries and resumptions, several of them and each with its whole window, are not.
_CONVERSATION_SECONDS: Final = 240.0

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How frames of a codec are recognised: a persona's differ by less than `most`, and by less than from any other's.

    `seen` makes of pictures [..., H, W, 3] what is compared; the difference is the root mean square, of 255.
    """

    seen: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]
    most: float


def _brightness_of_blocks(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Of 2 x 2 pixels: H.264 gives these one colour, and what x264 leaves out of noise is less in their mean."""
    *leading, height, width, _ = pictures.shape
    blocks = pictures.reshape(*leading, height // 2, 2, width // 2, 2, 3).astype(np.float32)
    return cast(npt.NDArray[np.float32], blocks.mean(axis=(-4, -2, -1)))


# Frames 1 to 480 of four personas, saying nothing and noise: of the same one at most 24.1 (raw) and 11.5 (H.264) were
# measured, of different ones at least 32.7 and 11.7. Where different ones were that near in H.264, the right one was
# nearer still, by 3.3 in every frame. With random weights the seed does most of it: in raw pictures the right seed with
# another's avatar is at most 20.7 from the record.
RAW_LIKENESS: Final = Likeness(lambda pictures: pictures.astype(np.float32), 28.0)
H264_LIKENESS: Final = Likeness(_brightness_of_blocks, 13.0)


@dataclass(frozen=True, slots=True)
class Persona:
    """An avatar of its own with a seed of its own: together they show in every frame, whatever is said.

    pictures_NHW3: the frames of an undisturbed session, frame 1 first. With random weights the noise of (seed, chunk)
    decides what a frame looks like, so that one session's frames are nearer to its own than to any other's.
    """

    name: str
    avatar_id: str
    seed: int
    pictures_NHW3: Pictures


@dataclass(slots=True)
class Outcome:
    """How a conversation ended."""

    persona: Persona
    session_id: str = ""
    chunks: int = 0
    interruptions: int = 0
    resumptions: int = 0
    violations: list[Violation] = field(default_factory=list)
    error: str = ""


async def converse(
    gateways: Gateways,
    persona: Persona,
    personas: Sequence[Persona],
    chance: random.Random,
    stop: asyncio.Event,
    *,
    chunks: int,
) -> Outcome:
    """Talks for about `chunks` chunks; when `stop` is set, what was begun is said and the session is ended.

    Whatever the server does, the outcome says what was wrong with it.
    """
    outcome = Outcome(persona)
    audio = chance.choice([AudioFormat.s16(16_000), AudioFormat.s16(24_000), AudioFormat.f32(48_000, 2)])
    video = chance.choice([VideoFormat.raw(), VideoFormat.raw(), VideoFormat.h264()])
    config = SessionConfig(
        avatar_id=persona.avatar_id,
        audio_format=audio.to_message(),
        video_format=video.to_message(),
        seed=persona.seed,
        idle_behavior=chance.choice([talking_head_pb2.IDLE_BEHAVIOR_LIVE, talking_head_pb2.IDLE_BEHAVIOR_PAUSE]),
        starvation_policy=talking_head_pb2.STARVATION_POLICY_WAIT,
    )
    history = History(audio.bytes_per_sample, audio.samples_per_frame)
    try:
        stream, started = await _start(gateways, TalkRequest(config=config))
    except ClientError as error:
        outcome.error = f"did not start: {error!r}"
        return outcome
    start = SessionStart.from_message(started)
    outcome.session_id = start.session_id
    resumable = ResumableStream(stream, start, audio.bytes_per_sample, gateways.open_talk)
    speaker = asyncio.create_task(_speak(resumable, history, audio, chance, stop, chunks))
    try:
        async with asyncio.timeout(_CONVERSATION_SECONDS + 6 * chunks):
            await _listen(resumable, history)
            await speaker
    except (ClientError, TimeoutError) as error:
        notes = "; ".join(getattr(error, "__notes__", []))
        outcome.error = f"{error!r} {notes}"
    finally:
        speaker.cancel()
        await asyncio.gather(speaker, return_exceptions=True)
        await resumable.close()
    outcome.chunks = sum(segment.last_in_chunk for segment in history.segments)
    outcome.interruptions = len(history.interruptions)
    outcome.resumptions = sum(response.HasField("resumed") for response in history.received)
    outcome.violations = check(history) + check_pictures(history, config.video_format.codec, persona, personas)
    return outcome


async def _start(gateways: Gateways, config: TalkRequest) -> tuple[TalkStream, talking_head_pb2.SessionStarted]:
    """Opens the session; a new one may be refused for a while in the middle of faults."""
    give_up_at = asyncio.get_running_loop().time() + _START_SECONDS
    while True:
        try:
            stream, response = await gateways.open_talk(config)
            return stream, response.started
        except (CapacityExhausted, ServerUnavailable, DeadlineExceeded):
            if asyncio.get_running_loop().time() > give_up_at:
                raise
            await asyncio.sleep(0.5)


async def _listen(stream: ResumableStream, history: History) -> None:
    while True:
        response = await stream.receive()
        history.receive(response)
        if response.HasField("ended"):
            return


async def _speak(
    stream: ResumableStream,
    history: History,
    audio: AudioFormat,
    chance: random.Random,
    stop: asyncio.Event,
    chunks: int,
) -> None:
    """Utterances with pauses between them, about as fast as they are spoken; some are interrupted."""

    async def send(request: TalkRequest) -> None:
        history.send(request)
        await stream.send(request)

    left = chunks * CHUNK_FRAMES
    while left > 0 and not stop.is_set():
        frames = min(left, chance.randint(5, 100))
        left -= frames
        interrupted = chance.random() < 0.35
        stop_at = chance.randint(0, frames) if interrupted else frames
        spoken = 0
        while spoken < stop_at:
            packet = min(stop_at - spoken, chance.randint(1, 10))
            pcm = _noise(chance, audio, packet)
            await send(TalkRequest(audio=AudioInput(pcm=pcm)))
            spoken += packet
            await asyncio.sleep(packet / 25 * chance.uniform(0.3, 1.0))
        if interrupted:
            await send(TalkRequest(interrupt=Interrupt(played_samples=_played(history, audio, chance))))
        else:
            await send(TalkRequest(end_of_utterance=EndOfUtterance()))
        await asyncio.sleep(chance.choice([0.0, 0.2, 1.5]))
    await send(TalkRequest(end_of_audio=EndOfAudio()))


def _played(history: History, audio: AudioFormat, chance: random.Random) -> int | None:
    """Somewhere in the last chunks that came; nothing where the client does not know."""
    if not history.segments or chance.random() < 0.3:
        return None
    last = history.segments[-1]
    back = chance.randint(0, 2 * CHUNK_FRAMES) * audio.samples_per_frame
    return max(last.audio_end_sample - back, 0)


def _noise(chance: random.Random, audio: AudioFormat, frames: int) -> bytes:
    samples = frames * audio.samples_per_frame
    noise = np.random.default_rng(chance.randrange(2**32)).uniform(-0.3, 0.3, (samples, audio.channel_count))
    scale = 1.0 if audio.sample_type.kind == "f" else 32_767.0
    return (noise * scale).astype(audio.sample_type).tobytes()


def check_pictures(
    history: History, codec: media_pb2.VideoCodec.ValueType, persona: Persona, personas: Sequence[Persona]
) -> list[Violation]:
    """H.264 that does not decode; frames that are not this persona's, and above all those that are another's."""
    shape = persona.pictures_NHW3.shape[1:]
    units = [frame.data for segment in history.segments for frame in segment.frames]
    if codec == media_pb2.VIDEO_CODEC_H264:
        try:
            pictures = _decode_h264(units, shape)
        except ValueError as error:
            return [Violation(Rule.ORDER, str(error))]
        return _check_identity(history.received, pictures, H264_LIKENESS, persona, personas)
    pictures = [np.frombuffer(unit, np.uint8).reshape(shape) for unit in units]
    return _check_identity(history.received, pictures, RAW_LIKENESS, persona, personas)


def _check_identity(
    responses: Sequence[TalkResponse],
    pictures: Sequence[Pictures],
    likeness: Likeness,
    persona: Persona,
    personas: Sequence[Persona],
) -> list[Violation]:
    """Whose `pictures`, those of all segments, are; frames beyond the record are skipped.

    A session whose gateway died goes on from its last checkpoint. That may be older than what the client has seen, so
    the first frames of the chunk behind it may be a jump: they need not be recognised, but are never another's.
    """
    violations = []
    unknown_until = 0
    next_picture = iter(pictures)
    for response in responses:
        if response.HasField("resumed"):
            unknown_until = response.resumed.next_frame_index + CHUNK_FRAMES
        first = response.segment.first_frame_index
        # The segment's frames lead: zip would otherwise take a picture too many.
        for (index, _), picture in zip(enumerate(response.segment.frames, first), next_picture, strict=False):
            if index > len(persona.pictures_NHW3):
                continue
            shown = [each for each in personas if index <= len(each.pictures_NHW3)]
            seen = likeness.seen(picture)
            distances = {each.name: _distance(seen, likeness.seen(each.pictures_NHW3[index - 1])) for each in shown}
            nearest = min(distances, key=lambda name: distances[name])
            recognised = nearest if distances[nearest] < likeness.most else None
            if recognised == persona.name or (recognised is None and index < unknown_until):
                continue
            detail = f"frame {index} of {persona.name} shows {recognised or 'nobody'}: {distances}"
            violations.append(Violation(Rule.IDENTITY, detail))
    return violations


def _decode_h264(units: Sequence[bytes], shape: tuple[int, ...]) -> list[Pictures]:
    """Every access unit, in the order of its coming, decodes to one picture. ValueError where one does not."""
    decoder = av.CodecContext.create("h264", "r")
    found = []
    for number, unit in enumerate(units, 1):
        try:
            found += decoder.decode(av.Packet(unit))
        except av.FFmpegError as error:
            raise ValueError(f"access unit {number} of {len(units)} does not decode: {error}") from error
    found += decoder.decode(None)
    pictures = [picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False) for picture in found]
    if len(pictures) != len(units) or any(picture.shape != shape for picture in pictures):
        raise ValueError(f"{len(units)} access units decode to {len(pictures)} pictures")
    return pictures


def _distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))
