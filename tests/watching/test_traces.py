"""A session's journey through four services is one trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc.aio
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.system.parts import END, RATE_HZ, audio_of, config_of, raw_talk, voice
from tests.watching.collector import ReceivedSpan
from tests.watching.conftest import WatchedSystem
from visavis.client import AudioFormat, Interrupted, Segment, VisavisClient
from visavis.v1.talking_head_pb2_grpc import TalkingHeadServiceStub

pytestmark = pytest.mark.system

STAGES = ("audio_encoder", "generator", "decoder")
CHUNKS = 4


async def speak(watched: WatchedSystem) -> str:
    """Lets one session say `CHUNKS` chunks and waits for its status; returns its id."""
    requests = [config_of(watched.avatar_id), audio_of(voice(CHUNKS * 0.96).pcm), END]
    outcome = await raw_talk(watched.system.gateway_address, requests, seconds=60)
    assert outcome.code is grpc.StatusCode.OK, outcome.message
    return outcome.responses[0].started.session_id


def trace_of(watched: WatchedSystem, session_id: str) -> list[ReceivedSpan]:
    """All spans of the session's trace, once the session's own has come from every service."""

    def sessions(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.attributes.get("visavis.session_id") == session_id]

    spans = watched.collector.wait_for(lambda spans: len(sessions(spans)) == 1 + len(STAGES), 2 * PATIENCE_SECONDS)
    trace_ids = {span.trace_id for span in sessions(spans)}
    assert len(trace_ids) == 1
    return [span for span in spans if span.trace_id in trace_ids]


async def test_every_chunk_has_its_span_in_every_service_below_the_gateways(watched: WatchedSystem) -> None:
    trace = trace_of(watched, await speak(watched))
    chunks = {span.span_id: span for span in trace if span.name == "gateway chunk"}
    assert sorted(span.attributes["visavis.chunk_index"] for span in chunks.values()) == [1, 2, 3, 4]
    assert Counter(span.name for span in trace if span.parent_id in chunks) == {
        f"{stage} chunk": CHUNKS for stage in STAGES
    }
    for span in trace:
        if span.parent_id in chunks:
            chunk = chunks[span.parent_id]
            assert span.attributes["visavis.chunk_index"] == chunk.attributes["visavis.chunk_index"]
            assert chunk.start_nanoseconds <= span.start_nanoseconds < span.end_nanoseconds <= chunk.end_nanoseconds
            assert 0 < span.attributes["visavis.computed_seconds"] < 60
    assert {span.service for span in trace} == {"gateway", *STAGES}


async def test_no_span_is_an_orphan(watched: WatchedSystem) -> None:
    trace = trace_of(watched, await speak(watched))
    ids = {span.span_id for span in trace}
    roots = [span for span in trace if not span.parent_id]
    assert [span.name for span in roots] == ["gateway session"]
    assert not [span for span in trace if span.parent_id and span.parent_id not in ids]
    assert not [span for span in trace if span.failed]


async def test_a_dropped_chunk_ends_its_spans_too(watched: WatchedSystem) -> None:
    async with VisavisClient(watched.system.gateway_address) as client:
        talk = client.talk(watched.avatar_id, audio_format=AudioFormat.s16(RATE_HZ), idle="pause")
        async with talk as session:
            await session.send(voice(20.0).pcm)
            events = session.events()
            while not isinstance(await anext(events), Segment):
                pass
            await session.interrupt()
            while not isinstance(await anext(events), Interrupted):
                pass
            await session.end()
            async for _ in events:
                pass
    trace = trace_of(watched, session.start.session_id)
    ids = {span.span_id for span in trace}
    assert not [span for span in trace if span.parent_id and span.parent_id not in ids]
    assert [span for span in trace if span.attributes.get("visavis.dropped") == "interruption"]


async def test_a_clients_trace_goes_on(watched: WatchedSystem) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    async with grpc.aio.insecure_channel(watched.system.gateway_address) as channel:
        call = TalkingHeadServiceStub(channel).Talk(metadata=(("traceparent", parent),))
        for request in (config_of(watched.avatar_id), audio_of(voice(0.5).pcm), END):
            await call.write(request)
        await call.done_writing()
        answers: list[Any] = []
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    trace = trace_of(watched, answers[0].started.session_id)
    assert {span.trace_id for span in trace} == {"ab" * 16}
    assert [span.parent_id for span in trace if span.name == "gateway session"] == ["cd" * 8]
