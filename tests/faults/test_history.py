"""The checker of histories finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.history import History, Rule, check
from visavis.v1 import talking_head_pb2
from visavis.v1.media_pb2 import Frame
from visavis.v1.talking_head_pb2 import (
    AudioInput,
    EndOfAudio,
    EndOfUtterance,
    InputPosition,
    Interrupt,
    Interrupted,
    SessionEnded,
    TalkRequest,
    TalkResponse,
    VideoSegment,
)

SPF = 4
CHUNK = 24 * SPF


def segments(epoch: int, index: int, pcm: bytes, position: InputPosition) -> list[TalkResponse]:
    """A chunk in two messages; 2 bytes a sample."""
    padded = pcm.ljust(2 * CHUNK, b"\0")
    return [
        TalkResponse(
            segment=VideoSegment(
                epoch=epoch,
                chunk_index=index,
                first_frame_index=24 * (index - 1) + offset + 1,
                frames=[Frame(data=b"face")] * count,
                audio_start_sample=(24 * (index - 1) + offset) * SPF,
                audio_end_sample=(24 * (index - 1) + offset + count) * SPF,
                pcm=padded[2 * SPF * offset : 2 * SPF * (offset + count)],
                last_in_chunk=offset + count == 24,
                input_position=position,
            )
        )
        for offset, count in ((0, 10), (10, 14))
    ]


def good_history() -> History:
    """Three chunks, an interruption that goes back to the second, one chunk in the new epoch."""
    history = History(bytes_per_sample=2, samples_per_frame=SPF)
    first, second = bytes(range(1, 193)) * 3, b"\7" * 60
    for request in (
        TalkRequest(audio=AudioInput(pcm=first)),
        TalkRequest(interrupt=Interrupt(played_samples=2 * CHUNK)),
        TalkRequest(audio=AudioInput(pcm=second)),
        TalkRequest(end_of_utterance=EndOfUtterance()),
        TalkRequest(end_of_audio=EndOfAudio()),
    ):
        history.send(request)
    for index in (1, 2, 3):
        pcm = first[2 * CHUNK * (index - 1) : 2 * CHUNK * index]
        history.received += segments(1, index, pcm, InputPosition(samples=CHUNK * index))
    history.receive(TalkResponse(interrupted=Interrupted(epoch=2, last_chunk_index=2)))
    history.received += segments(2, 3, second, InputPosition(samples=3 * CHUNK + 30, utterances=2))
    reason = talking_head_pb2.SESSION_END_REASON_END_OF_AUDIO
    history.receive(TalkResponse(ended=SessionEnded(reason=reason)))
    return history


def test_nothing_is_found_in_a_good_history() -> None:
    assert check(good_history()) == []


def _lose(history: History) -> None:
    del history.received[2:4]


def _repeat(history: History) -> None:
    history.received.insert(4, history.received[3])


def _swap(history: History) -> None:
    history.received[2], history.received[3] = history.received[3], history.received[2]


def _old_frame_after_the_acknowledgement(history: History) -> None:
    history.received.insert(7, history.received[4])


def _acknowledge_nothing(history: History) -> None:
    del history.interruptions[0]


def _spoil_sound(history: History) -> None:
    segment = history.received[1].segment
    segment.pcm = b"\xff" + segment.pcm[1:]


def _shift_sound(history: History) -> None:
    history.received[0].segment.audio_start_sample += 1


def _fall_back(history: History) -> None:
    for response in history.received[4:6]:
        response.segment.input_position.samples = CHUNK


def _use_what_was_never_sent(history: History) -> None:
    for response in history.received[7:9]:
        response.segment.input_position.utterances = 9


def _lie_about_the_end(history: History) -> None:
    history.received[3].segment.last_in_chunk = False


def _another_face(history: History) -> None:
    history.received[3].segment.frames[2].data = b"somebody else"


def _end_inside_a_chunk(history: History) -> None:
    del history.received[8]


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (_lose, Rule.ORDER),
        (_repeat, Rule.ORDER),
        (_swap, Rule.ORDER),
        (_old_frame_after_the_acknowledgement, Rule.EPOCH),
        (_acknowledge_nothing, Rule.EPOCH),
        (_spoil_sound, Rule.PCM),
        (_shift_sound, Rule.AUDIO_RANGE),
        (_fall_back, Rule.POSITION),
        (_use_what_was_never_sent, Rule.POSITION),
        (_lie_about_the_end, Rule.SEGMENT),
        (_another_face, Rule.IDENTITY),
        (_end_inside_a_chunk, Rule.COMPLETE),
    ],
)
def test_what_is_wrong_is_found_and_named(spoil: Callable[[History], None], rule: Rule) -> None:
    history = good_history()
    spoil(history)
    found = check(history, shows_avatar=lambda picture: picture == b"face")
    assert rule in {violation.rule for violation in found}


def test_input_that_was_never_used_is_found() -> None:
    history = good_history()
    history.sent_pcm += b"\1" * 20
    assert {violation.rule for violation in check(history)} == {Rule.COMPLETE}


def test_what_an_interruption_dropped_need_not_come() -> None:
    history = good_history()
    del history.received[4:6]
    assert check(history) == []
