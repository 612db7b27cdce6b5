"""What the decoder tells Prometheus beside the metrics of every service."""

from __future__ import annotations

from prometheus_client import Counter

from visavis.runtime.telemetry import Metrics
from visavis.v1.decoder_pb2 import DecodedPictures


class DecoderMetrics:
    """Counts pictures."""

    def __init__(self, metrics: Metrics) -> None:
        self._frames = Counter("visavis_decoder_frames", "Frames encoded.", registry=metrics.registry)

    def pictures_encoded(self, pictures: DecodedPictures) -> None:
        """Pictures leave for the gateway."""
        self._frames.inc(len(pictures.frames))
