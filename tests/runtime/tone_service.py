"""The tone engine as a whole service, run as a process by test_server.py."""

import sys
from pathlib import Path
from typing import Any

from tests.runtime.tone_engine import Gate, ToneSettings
from visavis.runtime.errors import InvalidInput
from visavis.runtime.server import run_main
from visavis.runtime.service import EngineSpec, ServiceDefinition, ServiceRuntime, bind_servicer
from visavis.runtime.settings import Environment, ServiceSettings, read_service_settings
from visavis.runtime.stream_rules import StreamRules
from visavis.v1 import audio_encoder_pb2, audio_encoder_pb2_grpc


def check_samples(item: audio_encoder_pb2.SpeechChunk) -> None:
    if len(item.samples) != 15_360 * 4:
        raise InvalidInput(f"samples must be 61,440 bytes, not {len(item.samples)}", "chunk.samples")


RULES = StreamRules(
    item_field="chunk",
    response_type=audio_encoder_pb2.EncodeResponse,
    output_field="chunk",
    check_config=lambda config: None,
    check_item=check_samples,
)


class ToneServicer(audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    def __init__(self, runtime: ServiceRuntime) -> None:
        self._stage = runtime.stage()

    async def Encode(self, request_iterator: Any, context: Any) -> None:
        await self._stage.serve_session(request_iterator, context, RULES)


def build(environment: Environment) -> tuple[ServiceDefinition, ServiceSettings]:
    engine = ToneSettings(
        slots=environment.integer("TONE_SLOTS", 4),
        step_seconds=environment.seconds("TONE_STEP_SECONDS", 0.0),
        warm_up_seconds=environment.seconds("TONE_WARM_UP_SECONDS", 0.0),
        gate=Gate(Path(environment.text("TONE_GATE", ""))),
        gated=environment.text("TONE_GATED", ""),
        fails_to_start=environment.flag("TONE_FAILS_TO_START", default=False),
    )
    definition = ServiceDefinition(
        stage="audio_encoder",
        grpc_name="visavis.v1.AudioEncoderService",
        bind=bind_servicer(audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server, ToneServicer),
        engine=EngineSpec("tests.runtime.tone_engine:create_engine", engine),
    )
    return definition, read_service_settings(environment, default_slots=8)


if __name__ == "__main__":
    sys.exit(run_main(build))
