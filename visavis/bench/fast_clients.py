"""N clients at once, as fast as they can, in a process of their own: `python -m visavis.bench.fast_clients`.

Prints one JSON list. Clients that keep real time are those of `visavis load`.

Pictures are received as JPEG and not decoded: the figures are the server's, not those of a player.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence

from visavis.bench.bundled import CONSENT, bundled_portrait, speech_of
from visavis.bench.failures import leaves
from visavis.bench.measured_session import SessionMeasurement, measure_session
from visavis.client import ClientError, Speech, VideoFormat, VisavisClient

REACH_SECONDS = 10.0


async def run_clients(address: str, *, sessions: int, speech: Speech) -> list[SessionMeasurement]:
    """Runs N sessions at once with one avatar."""
    async with VisavisClient(address) as client:
        await client.wait_until_reachable(REACH_SECONDS)
        avatar = await client.register_avatar(bundled_portrait(), CONSENT, display_name="bench")
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(_run_one(client, avatar.avatar_id, speech)) for _ in range(sessions)]
            return [task.result() for task in running]
        finally:
            await client.delete_avatar(avatar.avatar_id)


async def _run_one(client: VisavisClient, avatar_id: str, speech: Speech) -> SessionMeasurement:
    talk = client.talk(
        avatar_id, audio_format=speech.audio_format, video_format=VideoFormat.jpeg(), idle="pause", starvation="wait"
    )
    async with talk as session:
        return await measure_session(session, speech, fast=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the clients and prints their measurements; 1 and one line on stderr when a session fails."""
    parser = argparse.ArgumentParser(prog="python -m visavis.bench.fast_clients", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    speech = speech_of(options.seconds)
    work = run_clients(options.address, sessions=options.sessions, speech=speech)
    try:
        measurements = asyncio.run(work)
    except (ClientError, BaseExceptionGroup) as error:
        failures = leaves(error)
        if not all(isinstance(each, ClientError) for each in failures):
            raise
        print("; ".join(sorted({str(each) for each in failures})), file=sys.stderr)
        return 1
    print(json.dumps([dataclasses.asdict(each) for each in measurements]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
