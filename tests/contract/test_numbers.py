"""The numbers in visavis/contract.py follow from each other and are those that the protos' comments say."""

from __future__ import annotations

import pytest

from tools.generate_stubs import PROTO_ROOT
from visavis import contract
from visavis.v1 import chunk_pb2, media_pb2, talking_head_pb2
from visavis.v1.tensor_pb2 import Tensor

MIB = 1024 * 1024


def test_a_chunk_is_the_same_length_in_every_unit() -> None:
    assert contract.CHUNK_FRAMES == contract.CHUNK_LATENT_FRAMES * 8
    assert contract.CHUNK_FRAMES * contract.SAMPLE_RATE_HZ == contract.CHUNK_SAMPLES * contract.FRAME_RATE
    assert contract.CHUNK_SECONDS == contract.CHUNK_FRAMES / contract.FRAME_RATE


@pytest.mark.parametrize("rate", [contract.MIN_CLIENT_SAMPLE_RATE_HZ, contract.MAX_CLIENT_SAMPLE_RATE_HZ])
def test_the_limits_of_sample_rates_hold_whole_frames(rate: int) -> None:
    assert rate % contract.FRAME_RATE == 0


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        ("chunk", f"{contract.CHUNK_FRAMES} frames, {contract.CHUNK_SECONDS} s, {contract.CHUNK_SAMPLES:,} samples"),
        ("chunk", f"{contract.CHUNK_LATENT_FRAMES} latent frames"),
        ("chunk", f"samples [{contract.CHUNK_SAMPLES} (i - 1), {contract.CHUNK_SAMPLES} i)"),
        ("audio_encoder", f"Exactly {contract.CHUNK_SAMPLES:,} samples, 16 kHz mono"),
        ("audio_encoder", f"up to {contract.LOOKAHEAD_SAMPLES:,} samples"),
        ("media", f"{contract.MIN_CLIENT_SAMPLE_RATE_HZ:,} to {contract.MAX_CLIENT_SAMPLE_RATE_HZ:,} and a multiple"),
        ("media", f"a multiple of {contract.FRAME_RATE}"),
        ("talking_head", f"(first_frame_index - 1) / {contract.FRAME_RATE} s"),
        ("talking_head", f"At most {contract.MAX_AUDIO_BYTES // MIB} MiB"),
        ("talking_head", f"at most {contract.MAX_PORTRAIT_BYTES // MIB} MiB"),
        ("talking_head", f"and {contract.MAX_PORTRAIT_PIXELS // 10**6} megapixels"),
        ("decoder", f"at most {contract.MAX_PORTRAIT_PIXELS // 10**6} megapixels"),
    ],
)
def test_the_protos_say_the_same(proto: str, words: str) -> None:
    assert words in PROTO_ROOT.joinpath("visavis", "v1", f"{proto}.proto").read_text()


def test_the_largest_regular_messages_fit_the_limit() -> None:
    portrait = talking_head_pb2.RegisterAvatarRequest(portrait=bytes(contract.MAX_PORTRAIT_BYTES))
    audio = talking_head_pb2.TalkRequest(audio=talking_head_pb2.AudioInput(pcm=bytes(contract.MAX_AUDIO_BYTES)))
    # A raw frame at 512 x 512 with the sound of a whole chunk, 96 kHz stereo float32.
    sound = bytes(int(contract.CHUNK_SECONDS * contract.MAX_CLIENT_SAMPLE_RATE_HZ) * 2 * 4)
    frame = media_pb2.Frame(data=bytes(512 * 512 * 3))
    segment = talking_head_pb2.TalkResponse(segment=talking_head_pb2.VideoSegment(frames=[frame], pcm=sound))
    for message in (portrait, audio, segment):
        assert message.ByteSize() < contract.MAX_MESSAGE_BYTES


def test_latents_of_base_are_what_the_design_says() -> None:
    """196 KB a chunk in bfloat16 is what the star relays (design, section 1)."""
    latents = Tensor(shape=[contract.CHUNK_LATENT_FRAMES, 16, 16, 128], data=bytes(3 * 16 * 16 * 128 * 2))
    size = chunk_pb2.VideoLatents(header=chunk_pb2.ChunkHeader(chunk_index=1), latents=latents).ByteSize()
    assert 196_608 <= size < 196_700
