"""Packets are paced like those of a live text-to-speech engine."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from visavis.client import Speech, paced_packets


def speech_of(seconds: float) -> Speech:
    samples = np.arange(round(16_000 * seconds), dtype=np.int16)
    return Speech(samples.reshape(-1, 1), 16_000)


async def test_packets_come_when_they_would_have_been_spoken() -> None:
    loop = asyncio.get_running_loop()
    begin, arrivals = loop.time(), []
    async for _ in paced_packets(speech_of(0.25), packet_seconds=0.1):
        arrivals.append(loop.time() - begin)
    assert len(arrivals) == 3
    for arrival, due in zip(arrivals, (0.1, 0.2, 0.25), strict=True):
        assert due - 0.005 <= arrival < due + 0.2


@pytest.mark.parametrize("packet_seconds", [0.02, 0.033, 10.0])
async def test_packets_add_up_to_the_speech(packet_seconds: float) -> None:
    speech = speech_of(1.0)
    packets = [each async for each in paced_packets(speech, packet_seconds=packet_seconds, fast=True)]
    assert b"".join(packets) == speech.pcm


async def test_a_packet_has_a_length() -> None:
    with pytest.raises(ValueError, match="longer than 0"):
        await anext(paced_packets(speech_of(1.0), packet_seconds=0.0))


def test_the_client_needs_no_media_library_and_no_torch() -> None:
    unwanted = "{'av', 'PIL', 'rich', 'torch', 'redis', 'google.rpc', 'prometheus_client'}"
    code = f"import sys, visavis.client; sys.exit(', '.join({unwanted} & set(sys.modules)) or 0)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
