"""The decoder as a gRPC service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from services.decoder.config import check_config
from services.decoder.metrics import DecoderMetrics
from services.decoder.settings import DecoderSettings
from visavis.runtime.service import EngineSpec, ServiceDefinition, ServiceRuntime, bind_servicer
from visavis.runtime.stream_rules import StreamRules
from visavis.v1 import decoder_pb2, decoder_pb2_grpc

STAGE: Final = "decoder"

RULES: Final = StreamRules(
    item_field="video",
    response_type=decoder_pb2.DecodeResponse,
    output_field="pictures",
    check_config=check_config,
    # Latents are judged by the model, in the worker.
    check_item=lambda video: None,
    completes_item=lambda pictures: bool(pictures.last_in_chunk),
)


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    """Hands streams and portraits to the worker."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._stage = runtime.stage()
        self._rules = replace(RULES, on_output=DecoderMetrics(runtime.metrics).pictures_encoded)

    async def Decode(self, request_iterator: AsyncIterator[decoder_pb2.DecodeRequest], context: Any) -> None:
        """One session: config -> ready, then the pictures of each chunk."""
        await self._stage.serve_session(request_iterator, context, self._rules)

    async def EncodePortrait(
        self, request: decoder_pb2.EncodePortraitRequest, context: Any
    ) -> decoder_pb2.EncodePortraitResponse:
        """A portrait's latent."""
        response: decoder_pb2.EncodePortraitResponse = await self._stage.call(context, request)
        return response


def define_service(settings: DecoderSettings) -> ServiceDefinition:
    """What `run_service` needs to know about the decoder."""
    return ServiceDefinition(
        stage=STAGE,
        grpc_name="visavis.v1.DecoderService",
        bind=bind_servicer(decoder_pb2_grpc.add_DecoderServiceServicer_to_server, DecoderServicer),
        engine=EngineSpec("services.decoder.engine:DecoderEngine", settings),
    )
