"""Messages of the audio encoder's contract, as the runtime's tests send them."""

import numpy as np

from visavis.v1 import audio_encoder_pb2, chunk_pb2

SAMPLES = np.linspace(-1, 1, 15_360, dtype="<f4")


def config(session_id: str = "s1") -> audio_encoder_pb2.EncodeConfig:
    return audio_encoder_pb2.EncodeConfig(session_id=session_id)


def chunk(index: int = 1, *, epoch: int = 1, order: bytes = b"") -> audio_encoder_pb2.SpeechChunk:
    """`order` makes the tone engine misbehave."""
    header = chunk_pb2.ChunkHeader(epoch=epoch, chunk_index=index)
    return audio_encoder_pb2.SpeechChunk(header=header, samples=SAMPLES.tobytes(), lookahead=order)


def rewind(index: int, *, epoch: int, replayed: int = 0) -> audio_encoder_pb2.EncodeRewind:
    border = chunk_pb2.ChunkBorder(epoch=epoch, chunk_index=index)
    return audio_encoder_pb2.EncodeRewind(border=border, replay=[chunk()] * replayed)


def rewind_request(index: int, *, epoch: int, replayed: int = 0) -> audio_encoder_pb2.EncodeRequest:
    return audio_encoder_pb2.EncodeRequest(rewind=rewind(index, epoch=epoch, replayed=replayed))


def config_request(session_id: str = "s1") -> audio_encoder_pb2.EncodeRequest:
    return audio_encoder_pb2.EncodeRequest(config=config(session_id))


def resume_request(index: int, *, epoch: int = 1, session_id: str = "s1") -> audio_encoder_pb2.EncodeRequest:
    request = config_request(session_id)
    request.config.resume.CopyFrom(rewind(index, epoch=epoch))
    return request


def chunk_request(index: int = 1, *, epoch: int = 1, order: bytes = b"") -> audio_encoder_pb2.EncodeRequest:
    return audio_encoder_pb2.EncodeRequest(chunk=chunk(index, epoch=epoch, order=order))
