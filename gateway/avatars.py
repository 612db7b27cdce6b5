"""Registers avatars: checks the request, has a decoder encode the portrait, stores what comes back."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.avatar_store import AvatarStore, StoredAvatar
from gateway.placement import nothing_served, served_model
from gateway.stages import Stages
from visavis.contract import MAX_PORTRAIT_BYTES
from visavis.runtime.errors import InvalidInput
from visavis.v1 import talking_head_pb2
from visavis.v1.decoder_pb2 import EncodePortraitResponse
from visavis.v1.talking_head_pb2 import Avatar, ConsentRecord, RegisterAvatarRequest

MAX_NAME_CHARACTERS: Final = 200
MAX_STATEMENT_CHARACTERS: Final = 10_000
_CONSENT_BASES: Final = (
    talking_head_pb2.CONSENT_BASIS_SUBJECT_AGREED,
    talking_head_pb2.CONSENT_BASIS_SYNTHETIC_PERSON,
)


def check_registration(request: RegisterAvatarRequest) -> None:
    """Refuse a registration without portrait or without a consent record. Errors: `InvalidInput` names the field."""
    if not request.portrait:
        raise InvalidInput("the portrait is empty; send a JPEG or PNG", "portrait")
    if len(request.portrait) > MAX_PORTRAIT_BYTES:
        raise InvalidInput(
            f"the portrait has {len(request.portrait)} bytes; send at most {MAX_PORTRAIT_BYTES}", "portrait"
        )
    if len(request.display_name) > MAX_NAME_CHARACTERS:
        raise InvalidInput(f"display_name is longer than {MAX_NAME_CHARACTERS} characters", "display_name")
    _check_consent(request.consent)


def _check_consent(consent: ConsentRecord) -> None:
    if consent.basis not in _CONSENT_BASES:
        raise InvalidInput("consent.basis is missing; say why this face may be animated", "consent.basis")
    if not consent.granted_by.strip():
        raise InvalidInput("consent.granted_by is missing; say who answers for the consent", "consent.granted_by")
    if not consent.statement.strip():
        raise InvalidInput("consent.statement is missing; say what was agreed to", "consent.statement")
    if len(consent.granted_by) > MAX_NAME_CHARACTERS:
        raise InvalidInput(f"consent.granted_by is longer than {MAX_NAME_CHARACTERS} characters", "consent.granted_by")
    if len(consent.statement) > MAX_STATEMENT_CHARACTERS:
        raise InvalidInput(
            f"consent.statement is longer than {MAX_STATEMENT_CHARACTERS} characters", "consent.statement"
        )


async def register_avatar(request: RegisterAvatarRequest, store: AvatarStore, stages: Stages) -> Avatar:
    """Check, encode and store; gives the new avatar.

    Errors: `InvalidInput` for a bad picture or missing consent; `StageUnavailable`; `CapacityExhausted`;
    `ModelMismatch` for stages of different models; `StateStoreUnavailable`.
    """
    check_registration(request)
    encoded = await stages.on_current_lists("", lambda: _encode(request.portrait, stages))
    avatar = Avatar(
        avatar_id=secrets.token_urlsafe(12),
        display_name=request.display_name,
        consent=request.consent,
        create_time=_now(),
        portrait_sha256=hashlib.sha256(request.portrait).hexdigest(),
        model=encoded.model,
    )
    await store.save(StoredAvatar(avatar, encoded.portrait_latent, encoded.thumbnail))
    return avatar


async def _encode(portrait: bytes, stages: Stages) -> EncodePortraitResponse:
    instances = await stages.instances()
    model = served_model(instances)
    if model is None:
        raise nothing_served(instances)
    return await stages.encode_portrait(portrait, model.model_fingerprint)


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
