"""Sessions that are sent back at any moment equal, bit for bit, ones that only ever heard the chunks that stand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.services.engine_driver import run_dry
from tests.services.timelines import STAGES, Answer, Name, StageUnderTest, make_stage
from visavis.runtime.engine import SessionOutput
from visavis.runtime.errors import InvalidInput
from visavis.v1 import audio_encoder_pb2, chunk_pb2, decoder_pb2, generator_pb2


@pytest.fixture(scope="module", params=STAGES)
def stage(request: pytest.FixtureRequest) -> StageUnderTest:
    return make_stage(request.param)


_ids = itertools.count()


class Session:
    """A session and the truth about it."""

    def __init__(self, stage: StageUnderTest) -> None:
        self.stage = stage
        self.engine = stage.engine
        self.id = f"s{next(_ids)}"
        self.replay_chunks = self.open(None)
        self.epoch = 1
        # The chunks that stand, and what they were answered so far.
        self.stands: list[Name] = []
        self.answered: list[Answer] = []

    def open(self, resume: Any) -> int:
        ready: Any = self.engine.open(self.id, self.stage.config(self.id, resume))
        return int(ready.replay_chunks)

    def submit(self, arrival_seconds: float | None = None) -> None:
        self.stands.append((self.epoch, len(self.stands) + 1))
        arrival_seconds = time.monotonic() if arrival_seconds is None else arrival_seconds
        self.engine.submit(self.id, self.stage.item(self.stands[-1]), arrival_seconds)

    def step(self, steps: int) -> None:
        for _ in range(steps):
            if self.engine.has_work():
                self._take(self.engine.step())

    def rest(self) -> None:
        self._take(run_dry(self.engine))

    def _take(self, outputs: Sequence[SessionOutput]) -> None:
        self.answered += self.stage.answers(outputs, self.id)

    def rewind_to(self, border: int, replayed: int) -> Any:
        self.epoch += 1
        del self.stands[border:], self.answered[border:]
        last = self.answered[max(0, border - replayed) :]
        return self.stage.rewind(chunk_pb2.ChunkBorder(epoch=self.epoch, chunk_index=border), last)

    def undisturbed(self) -> list[Answer]:
        """What a session is answered that only ever hears the chunks that stand."""
        session_id = f"{self.id}-undisturbed"
        self.engine.open(session_id, self.stage.config(session_id, None))
        for name in self.stands:
            self.engine.submit(session_id, self.stage.item(name), time.monotonic())
        answers = self.stage.answers(run_dry(self.engine), session_id)
        self.engine.close(session_id)
        return answers


actions = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "step", "rewind", "resume"]), st.integers(0, 4)), max_size=14
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=actions)
def test_a_session_sent_back_equals_an_undisturbed_one(stage: StageUnderTest, actions: list[tuple[str, int]]) -> None:
    session = Session(stage)
    for action, number in actions:
        if action == "submit":
            session.submit()
        elif action == "step":
            session.step(number)
        else:
            border = max(0, len(session.answered) - number)
            rewind = session.rewind_to(border, session.replay_chunks)
            if action == "rewind":
                session.engine.rewind(session.id, rewind)
            else:
                session.engine.close(session.id)
                session.open(rewind)
    session.submit()
    session.rest()
    assert session.answered == session.undisturbed()
    session.engine.close(session.id)
    assert not session.engine.has_work()


def test_nothing_of_before_is_answered_after_a_rewind(stage: StageUnderTest) -> None:
    for steps in range(8):
        session = Session(stage)
        for _ in range(3):
            session.submit()
        session.step(steps)
        border = len(session.answered)
        session.engine.rewind(session.id, session.rewind_to(border, session.replay_chunks))
        session.submit()
        session.rest()
        assert [name for name, _ in session.answered] == [(1, index) for index in range(1, border + 1)] + [
            (2, border + 1)
        ]
        assert session.answered == session.undisturbed()
        session.engine.close(session.id)


def test_fewer_chunks_than_it_takes_are_an_approximation(stage: StageUnderTest) -> None:
    session = Session(stage)
    count = session.replay_chunks + 3
    for _ in range(count):
        session.submit()
    session.rest()
    exact, short = Session(stage), Session(stage)
    for other, replayed in ((exact, session.replay_chunks), (short, session.replay_chunks - 1)):
        other.stands, other.answered = list(session.stands), list(session.answered)
        rewind = other.rewind_to(count - 1, replayed)
        other.engine.close(other.id)
        other.open(rewind)
        other.submit()
        other.rest()
    assert exact.answered == exact.undisturbed()
    assert short.answered[:-1] == exact.answered[:-1]
    assert short.answered[-1] != exact.answered[-1]
    for one in (session, exact, short):
        one.engine.close(one.id)


def test_a_border_that_nothing_leads_to_is_the_start(stage: StageUnderTest) -> None:
    session = Session(stage)
    for _ in range(4):
        session.submit()
    session.rest()
    rewind = session.rewind_to(1, 0)  # long gone, and no replay
    session.engine.rewind(session.id, rewind)
    session.submit()
    session.rest()
    assert [name for name, _ in session.answered] == [(1, 1), (2, 2)]
    session.engine.close(session.id)


def test_a_rebuild_does_not_hold_up_what_is_due(stage: StageUnderTest) -> None:
    session, urgent = Session(stage), Session(stage)
    for _ in range(session.replay_chunks + 1):
        session.submit()
    session.rest()
    rewind = session.rewind_to(session.replay_chunks, session.replay_chunks)
    session.engine.close(session.id)
    session.open(rewind)
    urgent.submit()
    owners = [owner for owner, _ in run_dry(session.engine)]
    assert set(owners) == {urgent.id}
    now = time.monotonic()
    session.submit(now)  # due half a second later than
    overtaking = stage.item((1, 2))
    overtaking.header.time_to_deadline.FromMilliseconds(10)
    session.engine.submit(urgent.id, overtaking, now)
    owners = [owner for owner, _ in run_dry(session.engine)]
    assert owners == sorted(owners, key=lambda owner: owner != urgent.id)
    for one in (session, urgent):
        one.engine.close(one.id)


def spoilt(stage: StageUnderTest, border: int, count: int, spoil: Any) -> Any:
    """A good rewind to `border` that replays `count` chunks, spoilt."""
    session = Session(stage)
    for _ in range(border):
        session.submit()
    session.rest()
    rewind = session.rewind_to(border, count)
    session.engine.close(session.id)
    spoil(rewind)
    return rewind


def replace_data(rewind: Any, data: bytes) -> None:
    match rewind:
        case audio_encoder_pb2.EncodeRewind():
            rewind.replay[1].samples = data
        case generator_pb2.GenerateRewind():
            rewind.replay[1].video.latents.data = data
        case decoder_pb2.DecodeRewind():
            rewind.replay[1].latents.data = data


def header_in(rewind: Any, place: int) -> chunk_pb2.ChunkHeader:
    replayed = rewind.replay[place]
    found: chunk_pb2.ChunkHeader = replayed.speech.header if hasattr(replayed, "speech") else replayed.header
    return found


SPOILING: dict[str, tuple[Any, str]] = {
    "too many": (lambda rewind: rewind.replay.extend(list(rewind.replay) * 9), "replay"),
    "another border": (lambda rewind: setattr(rewind.border, "chunk_index", 7), "replay[0]"),
    "a hole": (lambda rewind: setattr(header_in(rewind, 0), "chunk_index", 9), "replay[0]"),
    "turned round": (lambda rewind: rewind.replay.reverse(), "replay[0]"),
    "before the first": (lambda rewind: setattr(rewind.border, "chunk_index", 1), "replay[0]"),
    "cut off": (lambda rewind: replace_data(rewind, b"abc"), "replay[1]"),
    "not finite": (lambda rewind: replace_data(rewind, b"\xff" * len(_data_of(rewind))), "replay[1]"),
    "empty": (lambda rewind: rewind.replay[1].Clear(), "replay[1]"),
}


def _data_of(rewind: Any) -> bytes:
    match rewind:
        case audio_encoder_pb2.EncodeRewind():
            return rewind.replay[1].samples
        case generator_pb2.GenerateRewind():
            return rewind.replay[1].video.latents.data
        case _:
            data: bytes = rewind.replay[1].latents.data
            return data


@pytest.mark.parametrize("how", SPOILING)
def test_a_rewind_that_cannot_be_is_refused_by_name_and_disturbs_nobody(stage: StageUnderTest, how: str) -> None:
    spoil, field = SPOILING[how]
    bad = spoilt(stage, 2, 2, spoil)
    healthy, broken = Session(stage), Session(stage)
    healthy.submit()
    with pytest.raises(InvalidInput) as refusal:
        broken.engine.rewind(broken.id, bad)
    assert refusal.value.field.startswith(f"rewind.{field}")
    broken.engine.close(broken.id)
    with pytest.raises(InvalidInput) as refusal:
        broken.open(bad)
    assert refusal.value.field.startswith("config.resume.")
    assert f".{field}" in refusal.value.field
    broken.engine.close(broken.id)
    healthy.rest()
    assert healthy.answered == healthy.undisturbed()
    healthy.engine.close(healthy.id)
