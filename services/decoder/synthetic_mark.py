"""Marks that say a picture was generated, in the form each codec has for it.

IPTC's digital source type `trainedAlgorithmicMedia` is what viewers and platforms read; it travels as XMP in JPEG and
as an unregistered user-data SEI message in H.264 (ITU-T H.264, annex D.1.7).
"""

from __future__ import annotations

import uuid

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

XMP_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()

SEI_UUID = uuid.uuid5(uuid.NAMESPACE_URL, DIGITAL_SOURCE_TYPE)

_START_CODE = b"\x00\x00\x00\x01"
_NAL_SEI = 6
_NAL_PARAMETER_SETS = frozenset({7, 8, 9})  # SPS, PPS, access unit delimiter: these stay in front
_USER_DATA_UNREGISTERED = 5


def sei_note(text: str = DIGITAL_SOURCE_TYPE) -> bytes:
    """Returns one Annex B NAL unit that carries `text` as unregistered user data under `SEI_UUID`."""
    payload = SEI_UUID.bytes + text.encode()
    size = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])
    message = bytes([_USER_DATA_UNREGISTERED]) + size + payload + b"\x80"
    return _START_CODE + bytes([_NAL_SEI]) + _with_emulation_prevention(message)


def insert_sei(access_unit: bytes, note: bytes) -> bytes:
    """Returns the access unit with `note` after its parameter sets and before everything else.

    Raises:
        ValueError: `access_unit` holds no NAL unit that `note` could precede.
    """
    position = access_unit.find(b"\x00\x00\x01")
    while position >= 0 and position + 3 < len(access_unit):
        if access_unit[position + 3] & 0x1F not in _NAL_PARAMETER_SETS:
            # A four-byte start code has one zero more in front.
            start = position - 1 if position and access_unit[position - 1] == 0 else position
            return access_unit[:start] + note + access_unit[start:]
        position = access_unit.find(b"\x00\x00\x01", position + 3)
    raise ValueError("the access unit holds no slice")


def _with_emulation_prevention(payload: bytes) -> bytes:
    """Puts 0x03 between two zero bytes and a byte of at most 3, which would look like a start code (7.4.1)."""
    result = bytearray()
    zeros = 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            result.append(3)
            zeros = 0
        result.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(result)
