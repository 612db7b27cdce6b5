"""Renders one clip of speech to an MP4 file through a running gateway."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from visavis.bench.measured_session import SessionMeasurement, measure_session
from visavis.cli.output_file import unfinished_file
from visavis.client import Consent, Segment, Speech, Tls, VideoFormat, VisavisClient
from visavis.client.mp4_writer import Mp4Writer

REACH_SECONDS: Final = 5.0
JPEG_QUALITY: Final = 95
VIDEO_FORMATS: Final = {
    "jpeg": VideoFormat.jpeg(JPEG_QUALITY),
    "raw": VideoFormat.raw(),
    "h264": VideoFormat.h264(),
}


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What to render, and how."""

    portrait: bytes
    consent: Consent
    display_name: str
    speech: Speech
    output: Path
    codec: str
    fast: bool
    seed: int | None
    # None: as the server likes.
    sampling: Literal["standard", "fast"] | None


async def render(
    address: str,
    tls: Tls | None,
    job: RenderJob,
    *,
    on_model: Callable[[str, bool], None],
    on_progress: Callable[[float], None],
) -> SessionMeasurement:
    """Registers the portrait, streams the speech, writes the file and deletes the avatar again.

    on_model: hears the model's name and whether its weights are random, before the first frame.
    on_progress: hears how many seconds of video are there.
    The file appears under its name only when it is complete. Raises ClientError, OSError.
    """
    async with VisavisClient(address, tls=tls) as client:
        await client.wait_until_reachable(REACH_SECONDS)
        info = await client.server_info()
        on_model(info.model.name, info.model.random_weights)
        avatar = await client.register_avatar(job.portrait, job.consent, display_name=job.display_name)
        try:
            return await _render_avatar(client, avatar.avatar_id, job, on_progress)
        finally:
            await client.delete_avatar(avatar.avatar_id)


async def _render_avatar(
    client: VisavisClient, avatar_id: str, job: RenderJob, on_progress: Callable[[float], None]
) -> SessionMeasurement:
    loop = asyncio.get_running_loop()
    talk = client.talk(
        avatar_id,
        audio_format=job.speech.audio_format,
        video_format=VIDEO_FORMATS[job.codec],
        seed=job.seed,
        idle="pause",
        starvation="wait",
        sampling=job.sampling or "server",
    )
    # One thread of its own, so that encoding the file never holds up the stream.
    with unfinished_file(job.output) as unfinished, ThreadPoolExecutor(max_workers=1) as encoding:
        async with talk as session:
            start = session.start
            with Mp4Writer(unfinished, start.width, start.height, job.speech.audio_format) as writer:

                def write(segment: Segment) -> None:
                    writer.write(session.pictures(segment), segment.pcm)

                async def keep(segment: Segment) -> None:
                    await loop.run_in_executor(encoding, write, segment)
                    on_progress(writer.seconds)

                return await measure_session(session, job.speech, fast=job.fast, on_segment=keep)
