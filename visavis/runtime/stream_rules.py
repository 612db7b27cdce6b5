"""What differs between the stages' streams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from visavis.runtime.chunk_order import ChunkPosition


def resumed_border(config: Any, ready: Any) -> Any:
    """The border in `config.resume.border`, None where the session starts."""
    return config.resume.border if config.HasField("resume") else None


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What differs between the stages' streams.

    A request is a oneof of `config`, `rewind` and the item field, a response one of `ready`, `draining` and the output
    field.
    """

    # Name of the item in the request: "chunk", "speech" or "video".
    item_field: str
    response_type: type[Message]
    # Name of the output in the response: "chunk" or "pictures".
    output_field: str
    # Raise InvalidInput for what breaks a rule of the contract (sizes, ranges). Must be quick: they run on the loop.
    check_config: Callable[[Any], None]
    check_item: Callable[[Any], None]
    # Whether an output is the last one of its item, which carries the item's timing.
    completes_item: Callable[[Any], bool] = lambda output: True
    # Hears of every output; for the stage's own metrics.
    on_output: Callable[[Any], None] = lambda output: None
    # The border at which a stream begins, from its config and its ready message; None at the start of the session.
    border: Callable[[Any, Any], Any] = resumed_border

    def first_position(self, config: Any, ready: Any) -> ChunkPosition:
        """Where the stream begins; raises InvalidInput for a border that is none."""
        border = self.border(config, ready)
        return ChunkPosition() if border is None else ChunkPosition.at(border, field="config.resume.border")
