"""The asynchronous client of a visavis server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from visavis.client.formats import AudioFormat, VideoFormat
from visavis.client.gateways import Gateways
from visavis.client.records import Avatar, Capacity, Consent, ServerInfo, SessionStart
from visavis.client.resumable_stream import ResumableStream
from visavis.client.session import TalkSession
from visavis.client.tls import Tls
from visavis.v1 import generator_pb2, talking_head_pb2

Idle = Literal["server", "live", "pause"]
Sampling = Literal["server", "standard", "fast"]
SlowReader = Literal["server", "wait", "drop"]
Starvation = Literal["server", "wait", "fill"]

_IDLE: Final = {
    "server": talking_head_pb2.IDLE_BEHAVIOR_UNSPECIFIED,
    "live": talking_head_pb2.IDLE_BEHAVIOR_LIVE,
    "pause": talking_head_pb2.IDLE_BEHAVIOR_PAUSE,
}
_SAMPLING: Final = {
    "server": generator_pb2.SAMPLING_PRESET_UNSPECIFIED,
    "standard": generator_pb2.SAMPLING_PRESET_STANDARD,
    "fast": generator_pb2.SAMPLING_PRESET_FAST,
}
_SLOW_READER: Final = {
    "server": talking_head_pb2.SLOW_READER_POLICY_UNSPECIFIED,
    "wait": talking_head_pb2.SLOW_READER_POLICY_WAIT,
    "drop": talking_head_pb2.SLOW_READER_POLICY_DROP,
}
_STARVATION: Final = {
    "server": talking_head_pb2.STARVATION_POLICY_UNSPECIFIED,
    "wait": talking_head_pb2.STARVATION_POLICY_WAIT,
    "fill": talking_head_pb2.STARVATION_POLICY_FILL,
}


class VisavisClient:
    """A connection to a server, for `async with`. One client serves many sessions over one channel.

    address: "host:port" of the gateway, or several: where one cannot be reached, the next is tried.
    tls: None connects in the clear.
    call_seconds: the limit of every call but `talk`.
    patience_seconds: how long a server that says it is unavailable, and when to come again, is asked again.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        tls: Tls | None = None,
        call_seconds: float = 30.0,
        patience_seconds: float = 5.0,
    ) -> None:
        self._call_seconds = call_seconds
        addresses = [address] if isinstance(address, str) else address
        self._gateways = Gateways(addresses, tls, patience_seconds=patience_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; sessions that still run are dropped."""
        await self._gateways.close()

    async def wait_until_reachable(self, timeout_seconds: float) -> None:
        """Waits for the connection. ServerUnavailable when the server cannot be reached in time."""
        await self._gateways.wait_until_reachable(timeout_seconds)

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
        answer = await self._gateways.call(lambda stub: stub.RegisterAvatar(request, timeout=self._call_seconds))
        return Avatar.from_message(answer.avatar)

    async def get_avatar(self, avatar_id: str) -> tuple[Avatar, bytes]:
        """An avatar and its thumbnail (JPEG, the portrait as the model sees it). NotFound if there is none."""
        request = talking_head_pb2.GetAvatarRequest(avatar_id=avatar_id)
        answer = await self._gateways.call(lambda stub: stub.GetAvatar(request, timeout=self._call_seconds))
        return Avatar.from_message(answer.avatar), answer.thumbnail

    async def list_avatars(self) -> AsyncIterator[Avatar]:
        """Every avatar, page by page."""
        page_token = ""
        while True:
            answer = await self._list_page(talking_head_pb2.ListAvatarsRequest(page_token=page_token))
            for avatar in answer.avatars:
                yield Avatar.from_message(avatar)
            page_token = answer.next_page_token
            if not page_token:
                return

    async def _list_page(self, request: talking_head_pb2.ListAvatarsRequest) -> talking_head_pb2.ListAvatarsResponse:
        return await self._gateways.call(lambda stub: stub.ListAvatars(request, timeout=self._call_seconds))

    async def delete_avatar(self, avatar_id: str) -> None:
        """Deletes an avatar; its running sessions go on. NotFound if there is none."""
        request = talking_head_pb2.DeleteAvatarRequest(avatar_id=avatar_id)
        await self._gateways.call(lambda stub: stub.DeleteAvatar(request, timeout=self._call_seconds))

    async def capacity(self) -> Capacity:
        """How many sessions can run, and how many do."""
        request = talking_head_pb2.GetCapacityRequest()
        return Capacity.from_message(
            await self._gateways.call(lambda stub: stub.GetCapacity(request, timeout=self._call_seconds))
        )

    async def server_info(self) -> ServerInfo:
        """The server's version, model and picture size."""
        request = talking_head_pb2.GetServerInfoRequest()
        return ServerInfo.from_message(
            await self._gateways.call(lambda stub: stub.GetServerInfo(request, timeout=self._call_seconds))
        )

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
        slow_reader: SlowReader = "server",
        sampling: Sampling = "server",
    ) -> AsyncIterator[TalkSession]:
        """Opens a session with an avatar (or its id) and drops it on leaving, unless it has ended.

        video_format: JPEG by default.
        seed: repeats the pictures of another session with the same speech; None lets the server draw one.
        idle: whether the face goes on living ("live") or nothing is sent ("pause") while no speech is waiting.
        starvation: whether an unfinished utterance that runs dry waits for speech or is filled with silence.
        slow_reader: whether the server waits for a client that reads too slowly or drops to the newest chunk.
        sampling: "standard" (all steps, guided) or "fast" (few, distilled); "server": whichever has room. What it is
        then stands in `session.start.model.sampling`.
        Raises NotFound, CapacityExhausted, InvalidInput, ServerUnavailable.
        """
        video = video_format or VideoFormat.jpeg()
        config = talking_head_pb2.SessionConfig(
            avatar_id=avatar if isinstance(avatar, str) else avatar.avatar_id,
            audio_format=audio_format.to_message(),
            video_format=video.to_message(),
            seed=seed,
            sampling=_SAMPLING[sampling],
            idle_behavior=_IDLE[idle],
            starvation_policy=_STARVATION[starvation],
            slow_reader_policy=_SLOW_READER[slow_reader],
        )
        stream, response = await self._gateways.open_talk(talking_head_pb2.TalkRequest(config=config))
        start = SessionStart.from_message(response.started)
        resumable = ResumableStream(stream, start, audio_format.bytes_per_sample, self._gateways.open_talk)
        session = TalkSession(resumable, start, audio_format, video)
        try:
            yield session
        finally:
            await session.close()
