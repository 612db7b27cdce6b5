"""One client that talks, is interrupted, breaks and resumes, and keeps a history that can be checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    VideoSegment,
)

# A new session may be refused for as long as this while parts of the system are away.
_START_SECONDS = 90.0

# Root mean square difference of 8-bit frames. Of one persona, whatever is said, and after rebuilt caches, at most 12
# were measured; of different ones at least 20, but for the very first frames, which are near to the shared portrait.
_RECOGNISED = 16.0

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Persona:
    """An avatar with a seed: together they show in every frame, whatever is said.

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
    gateways: Gateways, persona: Persona, personas: Sequence[Persona], chance: random.Random, *, chunks: int
) -> Outcome:
    """Talks for about `chunks` chunks. Whatever the server does, the outcome says what was wrong with it."""
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
    speaker = asyncio.create_task(_speak(resumable, history, audio, chance, chunks))
    try:
        async with asyncio.timeout(60 + 6 * chunks):
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
    outcome.violations = check(history)
    if config.video_format.codec == media_pb2.VIDEO_CODEC_H264:
        outcome.violations += check_h264(history.segments, len(persona.pictures_NHW3[0]))
    else:
        outcome.violations += check_identity(history.received, persona, personas)
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
    stream: ResumableStream, history: History, audio: AudioFormat, chance: random.Random, chunks: int
) -> None:
    """Utterances with pauses between them, about as fast as they are spoken; some are interrupted."""

    async def send(request: TalkRequest) -> None:
        history.send(request)
        await stream.send(request)

    left = chunks * CHUNK_FRAMES
    while left > 0:
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


def check_identity(responses: Sequence[TalkResponse], persona: Persona, personas: Sequence[Persona]) -> list[Violation]:
    """Frames that are not this persona's, and above all those that are another's; frames beyond the record are skipped.

    A session whose gateway died goes on from its last checkpoint. That may be older than what the client has seen, so
    the first frames of the chunk behind it may be a jump: they need not be recognised, but are never another's.
    """
    violations = []
    unknown_until = 0
    for response in responses:
        if response.HasField("resumed"):
            unknown_until = response.resumed.next_frame_index + CHUNK_FRAMES
        segment = response.segment
        for index, frame in enumerate(segment.frames, segment.first_frame_index):
            shown = [each for each in personas if index <= len(each.pictures_NHW3)]
            if persona not in shown:
                continue
            distances = {each.name: _distance(frame.data, each.pictures_NHW3[index - 1]) for each in shown}
            nearest = min(distances, key=lambda name: distances[name])
            recognised = nearest if distances[nearest] < _RECOGNISED else None
            if recognised == persona.name or (recognised is None and index < unknown_until):
                continue
            detail = f"frame {index} of {persona.name} shows {recognised or 'nobody'}: {distances}"
            violations.append(Violation(Rule.IDENTITY, detail))
    return violations


def check_h264(segments: Sequence[VideoSegment], size: int) -> list[Violation]:
    """Every access unit, in the order of its coming, decodes to one picture."""
    decoder = av.CodecContext.create("h264", "r")
    units = [frame.data for segment in segments for frame in segment.frames]
    pictures = []
    for number, unit in enumerate(units, 1):
        try:
            pictures += decoder.decode(av.Packet(unit))
        except av.FFmpegError as error:
            return [Violation(Rule.ORDER, f"access unit {number} of {len(units)} does not decode: {error}")]
    pictures += decoder.decode(None)
    if len(pictures) != len(units) or any(picture.width != size for picture in pictures):
        return [Violation(Rule.ORDER, f"{len(units)} access units decode to {len(pictures)} pictures")]
    return []


def _distance(data: bytes, picture_HW3: Pictures) -> float:
    shown = np.frombuffer(data, np.uint8).reshape(picture_HW3.shape)
    difference = shown.astype(np.float32) - picture_HW3
    return float(np.sqrt(np.mean(difference * difference)))
