"""The client without async."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fake_server import FakeService, serve_fake
from visavis.client import AudioFormat, BlockingClient, NotFound, ServerUnavailable, VideoFormat
from visavis.client.blocking import LoopThread

MONO = AudioFormat.s16(16_000)
RAW = VideoFormat.raw()


@pytest.fixture
def blocking_client() -> Iterator[BlockingClient]:
    """A client of a fake that runs in a thread of its own."""
    thread = LoopThread()
    serving = serve_fake(FakeService())
    address = thread.run(serving.__aenter__())
    try:
        with BlockingClient(address) as client:
            yield client
    finally:
        thread.run(serving.__aexit__(None, None, None))
        thread.stop()


def test_the_same_verbs_without_async(blocking_client: BlockingClient) -> None:
    with blocking_client.talk("known", audio_format=MONO, video_format=RAW) as session:
        session.send(bytes(2 * 15_360))
        session.end_utterance()
        session.end()
        frames = [session.pictures(segment) for segment in session]
    assert [len(each) for each in frames] == [24]
    assert session.ended is not None


def test_speech_from_an_iterable_while_iterating(blocking_client: BlockingClient) -> None:
    with blocking_client.talk("known", audio_format=MONO, video_format=RAW) as session:
        session.send_in_background(bytes(2 * 1_600) for _ in range(20))
        assert sum(len(segment.frames) for segment in session) == 72


def test_errors_are_the_same(blocking_client: BlockingClient) -> None:
    with pytest.raises(NotFound), blocking_client.talk("unknown", audio_format=MONO):
        pass
    assert len(blocking_client.list_avatars()) == 3


def test_nothing_listening_is_said_so(tmp_path: Path) -> None:
    with BlockingClient(f"unix:{tmp_path / 'nothing'}") as client, pytest.raises(ServerUnavailable, match="no server"):
        client.wait_until_reachable(0.2)


def test_closing_leaves_no_thread(blocking_client: BlockingClient) -> None:
    before = set(threading.enumerate())
    extra = BlockingClient("127.0.0.1:1")
    assert "visavis-client" in {thread.name for thread in set(threading.enumerate()) - before}
    extra.close()
    assert "visavis-client" not in {thread.name for thread in set(threading.enumerate()) - before}
