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


async def test_packets_come_when_they_would_have_been_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which sleeping takes exactly as long as was asked, and taking the second packet 170 ms."""
    now, arrivals = 100.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += max(0.0, seconds)

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async for _ in paced_packets(speech_of(0.45), packet_seconds=0.1):
        arrivals.append(now - 100)
        now += 0.17 if len(arrivals) == 2 else 0.0
    monkeypatch.undo()
    assert arrivals == pytest.approx([0.1, 0.2, 0.37, 0.4, 0.45]), "a taker that was late is not late again"


async def test_packets_are_waited_for() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert len([each async for each in paced_packets(speech_of(0.05), packet_seconds=0.02)]) == 3
    assert loop.time() - began > 0.05 - 0.005


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
