"""The rules that the contract keeps beyond what buf lints, and the stubs that are generated from it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

from tools.generate_stubs import PROTO_ROOT, stale_stubs

PROTOS = sorted(path.stem for path in PROTO_ROOT.glob("visavis/v1/*.proto"))


def descriptor_of(name: str) -> FileDescriptor:
    descriptor: FileDescriptor = importlib.import_module(f"visavis.v1.{name}_pb2").DESCRIPTOR
    return descriptor


def messages_of(container: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    nested = (
        container.message_types_by_name if isinstance(container, FileDescriptor) else container.nested_types_by_name
    )
    for message in nested.values():
        yield message
        yield from messages_of(message)


MESSAGES = [message for name in PROTOS for message in messages_of(descriptor_of(name))]
ENUMS: list[EnumDescriptor] = [enum for name in PROTOS for enum in descriptor_of(name).enum_types_by_name.values()]
SERVICES: list[ServiceDescriptor] = [
    service for name in PROTOS for service in descriptor_of(name).services_by_name.values()
]


def test_the_committed_stubs_are_what_the_protos_give() -> None:
    assert stale_stubs() == []


def test_every_proto_of_the_design_is_there() -> None:
    assert PROTOS == ["audio_encoder", "chunk", "decoder", "generator", "media", "operations", "talking_head", "tensor"]


@pytest.mark.parametrize("name", PROTOS)
def test_package_is_the_folder(name: str) -> None:
    descriptor = descriptor_of(name)
    assert descriptor.package == "visavis.v1"
    assert descriptor.name == f"visavis/v1/{name}.proto"


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_zero_is_unspecified_in_every_enum(enum: EnumDescriptor) -> None:
    assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_call_has_messages_of_its_own(service: ServiceDescriptor) -> None:
    for method in service.methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_stream_is_a_oneof_that_begins_with_its_config(service: ServiceDescriptor) -> None:
    for method in service.methods:
        if method.client_streaming:
            assert method.server_streaming
            (requests,) = method.input_type.oneofs
            (responses,) = method.output_type.oneofs
            assert (requests.name, responses.name) == ("request", "response")
            assert requests.fields[0].name == "config"
            assert responses.fields[0].name in {"ready", "started"}


def test_only_a_hand_over_answers_one_request_with_many_parts() -> None:
    methods = [method for service in SERVICES for method in service.methods]
    parts = {method.full_name for method in methods if method.server_streaming and not method.client_streaming}
    assert parts == {"visavis.v1.GeneratorService.TransferSession"}


def test_the_stages_are_streamed_and_the_public_service_talks() -> None:
    streams = {method.full_name for service in SERVICES for method in service.methods if method.client_streaming}
    assert streams == {
        "visavis.v1.AudioEncoderService.Encode",
        "visavis.v1.DecoderService.Decode",
        "visavis.v1.GeneratorService.Generate",
        "visavis.v1.TalkingHeadService.Talk",
    }


def type_name(descriptor: FieldDescriptor) -> str:
    return descriptor.message_type.name if descriptor.message_type else ""


def field(message: str, name: str) -> FieldDescriptor:
    (found,) = [candidate for candidate in MESSAGES if candidate.name == message]
    return found.fields_by_name[name]


@pytest.mark.parametrize("message", ["ChunkHeader", "VideoSegment"])
@pytest.mark.parametrize("name", ["epoch", "utterance_id", "chunk_index"])
def test_chunks_carry_their_place_in_the_session(message: str, name: str) -> None:
    assert field(message, name).type == FieldDescriptor.TYPE_UINT64


@pytest.mark.parametrize("name", ["SpeechChunk", "SpeechLatents", "VideoLatents", "DecodedPictures"])
def test_what_stages_exchange_begins_with_the_chunk_header(name: str) -> None:
    assert field(name, "header").number == 1
    assert type_name(field(name, "header")) == "ChunkHeader"


def test_pictures_are_marked_as_synthetic_and_avatars_need_consent() -> None:
    assert field("VideoSegment", "synthetic").type == FieldDescriptor.TYPE_BOOL
    assert type_name(field("RegisterAvatarRequest", "consent")) == "ConsentRecord"
    assert type_name(field("Avatar", "consent")) == "ConsentRecord"
