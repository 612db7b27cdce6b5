"""The audio encoder as a gRPC service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from services.audio_encoder.settings import AudioEncoderSettings
from visavis.runtime.service import EngineSpec, ServiceDefinition, ServiceRuntime, bind_servicer
from visavis.runtime.stream_rules import StreamRules
from visavis.v1 import audio_encoder_pb2, audio_encoder_pb2_grpc

STAGE: Final = "audio_encoder"

RULES: Final = StreamRules(
    item_field="chunk",
    response_type=audio_encoder_pb2.EncodeResponse,
    output_field="chunk",
    # A config is a session id, which the stage handler checks; samples are judged where they are read, in the worker.
    check_config=lambda config: None,
    check_item=lambda chunk: None,
)


class AudioEncoderServicer(audio_encoder_pb2_grpc.AudioEncoderServiceServicer):
    """Hands streams to the worker."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._stage = runtime.stage()

    async def Encode(self, request_iterator: AsyncIterator[audio_encoder_pb2.EncodeRequest], context: Any) -> None:
        """One session: config -> ready, then the speech latents of each chunk."""
        await self._stage.serve_session(request_iterator, context, RULES)


def define_service(settings: AudioEncoderSettings) -> ServiceDefinition:
    """What `run_service` needs to know about the audio encoder."""
    return ServiceDefinition(
        stage=STAGE,
        grpc_name="visavis.v1.AudioEncoderService",
        bind=bind_servicer(audio_encoder_pb2_grpc.add_AudioEncoderServiceServicer_to_server, AudioEncoderServicer),
        engine=EngineSpec("services.audio_encoder.engine:AudioEncoderEngine", settings),
    )
