import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.decoder.synthetic_mark import insert_sei, sei_note


def without_emulation_prevention(payload: bytes) -> bytes:
    return payload.replace(b"\x00\x00\x03", b"\x00\x00")


@given(st.text(alphabet="\x00\x01\x02\x03ab", max_size=600))
def test_a_note_never_holds_a_start_code_and_reads_back(text: str) -> None:
    note = sei_note(text)
    body = note[4:]
    assert not any(b"\x00\x00" + bytes([low]) in body for low in (0, 1, 2))
    assert without_emulation_prevention(body).endswith(text.encode() + b"\x80")


@pytest.mark.parametrize("start_code", [b"\x00\x00\x01", b"\x00\x00\x00\x01"])
def test_the_note_follows_the_parameter_sets(start_code: bytes) -> None:
    parameters = start_code + b"\x67abc" + start_code + b"\x68def"
    slice_unit = start_code + b"\x65ghi"
    assert insert_sei(parameters + slice_unit, b"NOTE") == parameters + b"NOTE" + slice_unit


def test_an_access_unit_without_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="no slice"):
        insert_sei(b"\x00\x00\x00\x01\x67abc", b"NOTE")
