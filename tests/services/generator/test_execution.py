"""The generator carries its passes out as it is told to, or says at its start why it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
import torch

from services.generator.engine import GeneratorEngine
from services.generator.settings import read_generator_settings
from tests.models.reruns import Reruns
from tests.services.engine_driver import outputs_of, run_dry
from tests.services.generator.messages import config, speech
from tests.services.tiny_settings import generator_settings
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.execution import EXECUTIONS, Execution
from visavis.models.graphed_runner import GraphedRunner
from visavis.models.step_runner import StepRunner, eager_runner
from visavis.runtime.engine import SessionOutput
from visavis.runtime.settings import Environment, SettingsError
from visavis.v1 import generator_pb2


@pytest.mark.parametrize(
    ("execution", "why"),
    [
        ("graphed", "needs a CUDA device"),
        ("compiled-graphed", "packed for a CPU; set the execution"),
        ("compiled", "packed for a CPU; set the execution"),
    ],
)
def test_what_a_cpu_with_packed_weights_has_not_is_refused(execution: Execution, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        GeneratorEngine(generator_settings(execution=execution)).warm_up()


def test_the_setting_takes_each_execution_and_no_other() -> None:
    assert read_generator_settings(Environment({})).execution == "eager"
    for execution in EXECUTIONS:
        assert read_generator_settings(Environment({"VISAVIS_EXECUTION": execution})).execution == execution
    with pytest.raises(SettingsError, match="VISAVIS_EXECUTION"):
        read_generator_settings(Environment({"VISAVIS_EXECUTION": "fast"}))


def test_all_graphs_are_captured_before_the_first_session(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    capture = Reruns()

    def graphed(transformer: A2VTransformer, execution: Execution, graphed_rows: Iterable[int]) -> StepRunner:
        return GraphedRunner(eager_runner(transformer), graphed_rows, capture)

    monkeypatch.setattr("services.generator.model.step_runner", graphed)
    engine = GeneratorEngine(generator_settings(max_batch=3))
    engine.warm_up()
    # One, two and three sessions: velocities, those with the next context, and the context alone.
    assert capture.captures == 9
    warm = capture.replays
    outputs: list[SessionOutput] = []
    for count, name in enumerate("abc", start=1):
        engine.open(name, config(name, count))
        for index in range(1, 4):
            engine.submit(name, speech(index, count), time.monotonic())
        # The next one joins in the middle of this one's chunk.
        outputs += engine.step()
    outputs += run_dry(engine)
    assert capture.replays > warm
    assert capture.captures == 9
    assert all(len(outputs_of(outputs, name, generator_pb2.GeneratedChunk)) == 3 for name in "abc")
