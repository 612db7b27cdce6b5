"""The asynchronous client of a visavis server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import grpc
import grpc.aio

from visavis.client.errors import ServerUnavailable, SessionClosed, error_from_rpc
from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.records import Avatar, Capacity, Consent, ServerInfo, SessionStart
from visavis.client.session import TalkSession
from visavis.client.tls import Tls
from visavis.contract import MAX_MESSAGE_BYTES
from visavis.v1 import generator_pb2, talking_head_pb2, talking_head_pb2_grpc

Idle = Literal["server", "live", "pause"]
Starvation = Literal["server", "wait", "fill"]

_IDLE: Final = {
    "server": talking_head_pb2.IDLE_BEHAVIOR_UNSPECIFIED,
    "live": talking_head_pb2.IDLE_BEHAVIOR_LIVE,
    "pause": talking_head_pb2.IDLE_BEHAVIOR_PAUSE,
}
_STARVATION: Final = {
    "server": talking_head_pb2.STARVATION_POLICY_UNSPECIFIED,
    "wait": talking_head_pb2.STARVATION_POLICY_WAIT,
    "fill": talking_head_pb2.STARVATION_POLICY_FILL,
}
_Answer = TypeVar("_Answer")


class VisavisClient:
    """A connection to a server, for `async with`. One client serves many sessions over one channel.

    address: "host:port" of the gateway.
    tls: None connects in the clear.
    call_seconds: the limit of every call but `talk`.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, call_seconds: float = 30.0) -> None:
        self.address: Final = address
        self._call_seconds = call_seconds
        self._channel = _open_channel(address, tls)
        self._stub = talking_head_pb2_grpc.TalkingHeadServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; sessions that still run are dropped."""
        await self._channel.close()

    async def wait_until_reachable(self, timeout_seconds: float) -> None:
        """Waits for the connection. ServerUnavailable when the server cannot be reached in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise ServerUnavailable(f"no server answers at {self.address}") from error

    async def register_avatar(
        self, portrait: bytes | Path | str, consent: Consent, *, display_name: str = ""
    ) -> Avatar:
        """Registers a portrait and returns its avatar.

        portrait: a JPEG or PNG, either its bytes, sent as they are, or a file, which is turned upright, cropped to a
        square and scaled down before the upload (needs Pillow; see `portrait_file.read_portrait` for its errors).
        Raises InvalidInput for a bad picture or a consent record without content.
        """
        if not isinstance(portrait, bytes):
            from visavis.client.portrait_file import read_portrait

            portrait = await asyncio.to_thread(read_portrait, Path(portrait))
        request = talking_head_pb2.RegisterAvatarRequest(
            portrait=portrait, display_name=display_name, consent=consent.to_message()
        )
        answer = await _answer(self._stub.RegisterAvatar(request, timeout=self._call_seconds))
        return Avatar.from_message(answer.avatar)

    async def get_avatar(self, avatar_id: str) -> tuple[Avatar, bytes]:
        """An avatar and its thumbnail (JPEG, the portrait as the model sees it). NotFound if there is none."""
        request = talking_head_pb2.GetAvatarRequest(avatar_id=avatar_id)
        answer = await _answer(self._stub.GetAvatar(request, timeout=self._call_seconds))
        return Avatar.from_message(answer.avatar), answer.thumbnail

    async def list_avatars(self) -> AsyncIterator[Avatar]:
        """Every avatar, page by page."""
        request = talking_head_pb2.ListAvatarsRequest()
        while True:
            answer = await _answer(self._stub.ListAvatars(request, timeout=self._call_seconds))
            for avatar in answer.avatars:
                yield Avatar.from_message(avatar)
            if not answer.next_page_token:
                return
            request = talking_head_pb2.ListAvatarsRequest(page_token=answer.next_page_token)

    async def delete_avatar(self, avatar_id: str) -> None:
        """Deletes an avatar; its running sessions go on. NotFound if there is none."""
        request = talking_head_pb2.DeleteAvatarRequest(avatar_id=avatar_id)
        await _answer(self._stub.DeleteAvatar(request, timeout=self._call_seconds))

    async def capacity(self) -> Capacity:
        """How many sessions can run, and how many do."""
        request = talking_head_pb2.GetCapacityRequest()
        return Capacity.from_message(await _answer(self._stub.GetCapacity(request, timeout=self._call_seconds)))

    async def server_info(self) -> ServerInfo:
        """The server's version, model and picture size."""
        request = talking_head_pb2.GetServerInfoRequest()
        return ServerInfo.from_message(await _answer(self._stub.GetServerInfo(request, timeout=self._call_seconds)))

    @asynccontextmanager
    async def talk(
        self,
        avatar: Avatar | str,
        *,
        audio_format: AudioFormat,
        video_format: VideoFormat | None = None,
        seed: int | None = None,
        idle: Idle = "server",
        starvation: Starvation = "server",
    ) -> AsyncIterator[TalkSession]:
        """Opens a session with an avatar (or its id) and drops it on leaving, unless it has ended.

        video_format: JPEG by default.
        seed: repeats the pictures of another session with the same speech; None lets the server draw one.
        idle: whether the face goes on living ("live") or nothing is sent ("pause") while no speech is waiting.
        starvation: whether an unfinished utterance that runs dry waits for speech or is filled with silence.
        Raises NotFound, CapacityExhausted, InvalidInput, ServerUnavailable.
        """
        video = video_format or VideoFormat.jpeg()
        config = talking_head_pb2.SessionConfig(
            avatar_id=avatar if isinstance(avatar, str) else avatar.avatar_id,
            audio_format=audio_format.to_message(),
            video_format=video.to_message(),
            seed=seed,
            sampling=generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
            idle_behavior=_IDLE[idle],
            starvation_policy=_STARVATION[starvation],
        )
        call = self._stub.Talk()
        session: TalkSession | None = None
        try:
            start = await _answer(_start(call, config))
            session = TalkSession(call, start, audio_format, video)
            yield session
        finally:
            if session is not None:
                await session.close()
            call.cancel()


async def _start(
    call: grpc.aio.StreamStreamCall[talking_head_pb2.TalkRequest, talking_head_pb2.TalkResponse],
    config: talking_head_pb2.SessionConfig,
) -> SessionStart:
    with suppress(asyncio.InvalidStateError):  # the call has failed already; reading says why
        await call.write(talking_head_pb2.TalkRequest(config=config))
    message = await call.read()
    if not isinstance(message, talking_head_pb2.TalkResponse) or message.WhichOneof("response") != "started":
        raise SessionClosed("the server did not start the session")
    return SessionStart.from_message(message.started)


async def _answer(call: Awaitable[_Answer]) -> _Answer:
    """Waits for a call and raises its failure as a typed error."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error


def _open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A server that vanished without a word is noticed after 30 s.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)
