"""The generator carries its passes out as it is told to, or says at its start why it cannot."""

from __future__ import annotations

import pytest

from services.generator.engine import GeneratorEngine
from services.generator.settings import read_generator_settings
from tests.services.tiny_settings import generator_settings
from visavis.models.execution import EXECUTIONS, Execution
from visavis.runtime.settings import Environment, SettingsError


@pytest.mark.parametrize(
    ("execution", "why"),
    [("graphed", "needs a CUDA device"), ("compiled-graphed", "packed weights"), ("compiled", "packed weights")],
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
