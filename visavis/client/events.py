"""What a session receives: segments of video with their sound, and notices."""

from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf import duration_pb2

from visavis.v1 import chunk_pb2, talking_head_pb2


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture in the session's video format."""

    data: bytes
    key_frame: bool


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Seconds that one chunk waited for a stage and was computed by it."""

    queued_seconds: float
    computed_seconds: float


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """Where the time of one chunk went.

    total_seconds: from the arrival of the last audio that the chunk needs to the sending of its last frame.
    """

    audio_encoder: StageTiming
    generator: StageTiming
    decoder: StageTiming
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive frames with exactly the sound that belongs to them.

    first_frame_index: index in the session; the first is 1.
    presentation_seconds: of the first frame, from the start of the session.
    pcm: samples [audio_start_sample, audio_end_sample) of the session in its audio format.
    timing: set where `last_in_chunk` is.
    synthetic: always true: every picture is generated.
    """

    epoch: int
    utterance_id: int
    chunk_index: int
    idle: bool
    first_frame_index: int
    presentation_seconds: float
    frames: tuple[Frame, ...]
    audio_start_sample: int
    audio_end_sample: int
    pcm: bytes
    last_in_chunk: bool
    timing: ChunkTiming | None
    synthetic: bool


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """Every frame of an utterance was sent; `last_chunk_index` is its last chunk."""

    utterance_id: int
    last_chunk_index: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An interruption took effect: from here on frames carry the new epoch.

    last_chunk_index: the chunk behind which the session goes on; frames behind it are not to be shown any more.
    """

    epoch: int
    last_chunk_index: int


@dataclass(frozen=True, slots=True)
class Starved:
    """Speech ran dry inside an utterance at chunk `chunk_index`, which waits or is filled with silence."""

    utterance_id: int
    chunk_index: int
    filled: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The connection broke and the session goes on with frame `next_frame_index`; H.264 with a key frame."""

    epoch: int
    next_frame_index: int


@dataclass(frozen=True, slots=True)
class ChunksDropped:
    """This client was too slow and will never get these chunks and their sound (`slow_reader="drop"`)."""

    epoch: int
    first_chunk_index: int
    last_chunk_index: int


EndReason = Literal["end_of_audio", "idle", "lifetime"]


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is complete: this many chunks and frames were sent.

    reason: the end of audio, or the server's limit on silence of the client ("idle") or on the session's "lifetime".
    """

    chunks: int
    frames: int
    reason: EndReason = "end_of_audio"


Notice = UtteranceEnded | Interrupted | Starved | Resumed | ChunksDropped | SessionEnded
Event = Segment | Notice

_END_REASONS: Final[dict[talking_head_pb2.SessionEndReason.ValueType, EndReason]] = {
    talking_head_pb2.SESSION_END_REASON_IDLE: "idle",
    talking_head_pb2.SESSION_END_REASON_LIFETIME: "lifetime",
}


def event_from_message(message: talking_head_pb2.TalkResponse) -> Event:
    """The event that a response carries. ValueError for one that a session may not get after its start."""
    match message.WhichOneof("response"):
        case "segment":
            return _segment(message.segment)
        case "utterance_ended":
            ended = message.utterance_ended
            return UtteranceEnded(ended.utterance_id, ended.last_chunk_index)
        case "interrupted":
            return Interrupted(message.interrupted.epoch, message.interrupted.last_chunk_index)
        case "starved":
            starved = message.starved
            filled = starved.policy == talking_head_pb2.STARVATION_POLICY_FILL
            return Starved(starved.utterance_id, starved.chunk_index, filled)
        case "ended":
            reason = _END_REASONS.get(message.ended.reason, "end_of_audio")
            return SessionEnded(message.ended.chunks, message.ended.frames, reason)
        case "resumed":
            return Resumed(message.resumed.epoch, message.resumed.next_frame_index)
        case "dropped":
            dropped = message.dropped
            return ChunksDropped(dropped.epoch, dropped.first_chunk_index, dropped.last_chunk_index)
        case other:
            raise ValueError(f"the server sent {other or 'an empty response'} in the middle of a session")


def _segment(message: talking_head_pb2.VideoSegment) -> Segment:
    return Segment(
        epoch=message.epoch,
        utterance_id=message.utterance_id,
        chunk_index=message.chunk_index,
        idle=message.idle,
        first_frame_index=message.first_frame_index,
        presentation_seconds=_seconds(message.presentation_time),
        frames=tuple(Frame(frame.data, frame.key_frame) for frame in message.frames),
        audio_start_sample=message.audio_start_sample,
        audio_end_sample=message.audio_end_sample,
        pcm=message.pcm,
        last_in_chunk=message.last_in_chunk,
        timing=_chunk_timing(message.timing) if message.HasField("timing") else None,
        synthetic=message.synthetic,
    )


def _chunk_timing(message: talking_head_pb2.ChunkTiming) -> ChunkTiming:
    return ChunkTiming(
        audio_encoder=_stage_timing(message.audio_encoder),
        generator=_stage_timing(message.generator),
        decoder=_stage_timing(message.decoder),
        total_seconds=_seconds(message.total),
    )


def _stage_timing(message: chunk_pb2.StageTiming) -> StageTiming:
    return StageTiming(_seconds(message.queued), _seconds(message.computed))


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
