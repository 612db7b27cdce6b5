"""Kept borders and rebuilds against a model that remembers everything."""

from __future__ import annotations

import logging

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.borders import BorderLog, Borders, Way, kept_borders

REACH = 3

# A state is what a network with a reach of three chunks remembers: the last three chunks, 0 for what was before.
State = tuple[int, int, int]
START: State = (0, 0, 0)


def after(state: State, chunk: int) -> State:
    return (*state[1:], chunk)


class SessionOfChunks(RuleBasedStateMachine):
    """Chunks come, sessions go back; the chunks that stand are the truth."""

    @initialize(kept=st.integers(0, 4))
    def begin(self, kept: int) -> None:
        self.kept = kept
        self.borders: Borders[State, int] = Borders(START, kept)
        self.stands: list[int] = []
        self.next_chunk = 1
        # Of each border: how many of the chunks before it its state has really seen.
        self.seen = [0]

    @rule()
    def generate(self) -> None:
        self.rebuild(10)
        self.borders.move_on(after(self.borders.state, self.next_chunk))
        self.stands.append(self.next_chunk)
        self.seen.append(self.seen[-1] + 1)
        self.next_chunk += 1

    @rule(steps=st.integers(0, 3))
    def rebuild(self, steps: int) -> None:
        for _ in range(min(steps, len(self.borders.replay))):
            chunk = self.borders.replay.popleft()
            self.borders.move_on(after(self.borders.state, chunk))

    @precondition(lambda self: self.stands)
    @rule(data=st.data(), replayed=st.integers(0, REACH + 1))
    def go_back(self, data: st.DataObject, replayed: int) -> None:
        border = data.draw(st.integers(max(0, len(self.stands) - self.kept - 3), len(self.stands)))
        del self.stands[border:], self.seen[border + 1 :]
        replay = self.stands[max(0, border - replayed) :]
        way = self.borders.go_to(border, replay)
        assert way == "kept" or border
        assert way != "started_again" or not replay
        if way != "kept":
            self.seen[border] = len(replay)

    @invariant()
    def the_session_is_where_it_should_be(self) -> None:
        assert self.borders.chunk_index + len(self.borders.replay) == len(self.stands)
        assert len(self.borders._kept) <= self.kept + 1
        if not self.borders.replay:
            seen = self.stands[len(self.stands) - self.seen[-1] :]
            assert self.borders.state == tuple([0] * REACH + seen)[-REACH:]


TestSessionOfChunks = SessionOfChunks.TestCase
TestSessionOfChunks.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_the_last_borders_are_kept_and_the_start_always_is() -> None:
    borders: Borders[str, str] = Borders("start", kept=2)
    for index in range(1, 6):
        borders.move_on(f"behind {index}")
    assert borders.go_to(3, []) == "kept"
    assert (borders.chunk_index, borders.state) == (3, "behind 3")
    assert borders.go_to(2, []) == "started_again"
    assert borders.go_to(0, []) == "kept"
    assert (borders.chunk_index, borders.state) == (0, "start")


def test_what_lies_behind_the_border_is_forgotten() -> None:
    borders: Borders[str, str] = Borders("start", kept=5)
    for index in range(1, 4):
        borders.move_on(f"old {index}")
    borders.go_to(1, [])
    borders.move_on("new 2")
    assert borders.go_to(3, ["x", "y"]) == "replayed"
    borders.go_to(0, [])
    borders.jump_to(9, "from elsewhere")
    assert borders.go_to(9, []) == "kept"
    assert borders.state == "from elsewhere"


def test_the_states_on_the_way_of_a_rebuild_are_not_kept() -> None:
    borders: Borders[str, str] = Borders("start", kept=5)
    assert borders.go_to(7, ["6", "7"]) == "replayed"
    assert borders.chunk_index == 5
    while borders.replay:
        borders.move_on(f"rebuilt {borders.replay.popleft()}")
    assert borders.go_to(7, []) == "kept"
    assert borders.go_to(6, ["6"]) == "replayed"


@pytest.mark.parametrize(
    ("setting", "state_bytes", "kept"),
    [(0, 352 << 20, 2), (0, 10 << 20, 6), (0, 1 << 10, 8), (0, 0, 8), (5, 1 << 30, 5)],
)
def test_as_many_borders_are_kept_as_memory_allows(setting: int, state_bytes: int, kept: int) -> None:
    assert kept_borders(setting, state_bytes) == kept


@pytest.mark.parametrize(
    ("way", "border", "replayed", "level", "counted"),
    [
        ("kept", 9, 0, "INFO", "kept"),
        ("replayed", 9, 5, "INFO", "rebuilt"),
        ("replayed", 3, 3, "INFO", "rebuilt"),
        ("replayed", 9, 4, "WARNING", "approximate"),
        ("started_again", 9, 0, "WARNING", "approximate"),
    ],
)
def test_a_border_that_is_not_exact_is_a_warning_and_every_one_is_counted(
    caplog: pytest.LogCaptureFixture, way: Way, border: int, replayed: int, level: str, counted: str
) -> None:
    log = BorderLog()
    with caplog.at_level(logging.INFO):
        log.note("s1", border, way, replayed, replay_chunks=5)
    assert [record.levelname for record in caplog.records if record.name == BorderLog.__module__] == [level]
    assert log.counts == {"kept": 0, "rebuilt": 0, "approximate": 0, counted: 1}
