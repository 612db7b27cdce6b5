"""The client SDK: a portrait and speech in, a talking face out.

`VisavisClient` is asynchronous, `BlockingClient` is not. Reading files and writing MP4 need `pip install
visavis[client]` and live in `visavis.client.audio_file`, `portrait_file` and `mp4_writer`.
"""

from visavis.client.blocking import BlockingClient, BlockingSession
from visavis.client.client import VisavisClient
from visavis.client.errors import (
    CapacityExhausted,
    ClientError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    ServerError,
    ServerUnavailable,
    SessionClosed,
)
from visavis.client.events import (
    ChunksDropped,
    ChunkTiming,
    Event,
    Frame,
    Interrupted,
    Notice,
    Resumed,
    Segment,
    SessionEnded,
    StageTiming,
    Starved,
    UtteranceEnded,
)
from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.media_error import MediaError
from visavis.client.records import Avatar, Capacity, Consent, Model, ServerInfo, SessionStart, StageCapacity
from visavis.client.session import TalkSession
from visavis.client.speech import Speech, paced_packets
from visavis.client.tls import Tls
from visavis.contract import FRAME_RATE

__all__ = [
    "FRAME_RATE",
    "AudioFormat",
    "Avatar",
    "BlockingClient",
    "BlockingSession",
    "Capacity",
    "CapacityExhausted",
    "ChunkTiming",
    "ChunksDropped",
    "ClientError",
    "Consent",
    "DeadlineExceeded",
    "Event",
    "FailedPrecondition",
    "Frame",
    "Interrupted",
    "InvalidInput",
    "MediaError",
    "MessageTooLarge",
    "Model",
    "NotFound",
    "Notice",
    "PermissionDenied",
    "Resumed",
    "Segment",
    "ServerError",
    "ServerInfo",
    "ServerUnavailable",
    "SessionClosed",
    "SessionEnded",
    "SessionStart",
    "Speech",
    "StageCapacity",
    "StageTiming",
    "Starved",
    "TalkSession",
    "Tls",
    "UtteranceEnded",
    "VideoFormat",
    "VisavisClient",
    "paced_packets",
]
