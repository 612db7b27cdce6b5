"""What stands for CUDA graphs on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from visavis.models.graphed_runner import Replay


class Reruns:
    """A capture whose replay computes again, from and to the same addresses."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def __call__(self, function: Callable[[], None]) -> Replay:
        self.captures += 1
        function()

        def replay() -> None:
            self.replays += 1
            function()

        return replay
