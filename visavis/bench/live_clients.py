"""N clients at once in a process of their own: `python -m visavis.bench.live_clients`. Prints one JSON object.

Pictures are received as JPEG and not decoded: the figures are the server's, not those of a player.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence

from visavis.bench.bundled import CONSENT, bundled_portrait, speech_of
from visavis.bench.measured_session import SessionMeasurement, measure_session
from visavis.client import ClientError, Speech, VideoFormat, VisavisClient

REACH_SECONDS = 10.0


async def run_clients(address: str, *, sessions: int, speech: Speech, fast: bool) -> list[SessionMeasurement]:
    """Runs N sessions at once with one avatar, paced or as fast as possible."""
    async with VisavisClient(address) as client:
        await client.wait_until_reachable(REACH_SECONDS)
        avatar = await client.register_avatar(bundled_portrait(), CONSENT, display_name="bench")
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(_run_one(client, avatar.avatar_id, speech, fast)) for _ in range(sessions)]
            return [task.result() for task in running]
        finally:
            await client.delete_avatar(avatar.avatar_id)


async def _run_one(client: VisavisClient, avatar_id: str, speech: Speech, fast: bool) -> SessionMeasurement:
    talk = client.talk(
        avatar_id, audio_format=speech.audio_format, video_format=VideoFormat.jpeg(), idle="pause", starvation="wait"
    )
    async with talk as session:
        return await measure_session(session, speech, fast=fast)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the clients and prints their measurements; 1 and one line on stderr when a session fails."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.live_clients", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args(arguments)
    speech = speech_of(options.seconds)
    work = run_clients(options.address, sessions=options.sessions, speech=speech, fast=options.fast)
    try:
        measurements = asyncio.run(work)
    except (ClientError, BaseExceptionGroup) as error:
        failures = _leaves(error)
        if not all(isinstance(each, ClientError) for each in failures):
            raise
        print("; ".join(sorted({str(each) for each in failures})), file=sys.stderr)
        return 1
    print(json.dumps([dataclasses.asdict(each) for each in measurements]))
    return 0


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


if __name__ == "__main__":
    sys.exit(main())
