"""What stands in an event about touches and keys, read back; every failure is a ValueError."""

from collections.abc import Mapping

import msgspec
from fido2.utils import websafe_decode

from killswitch.authority.recovery import RecoveryRecord
from killswitch.authority.ring import EnrolledKey
from killswitch.model import Mode, Proof


class SignedOrder(msgspec.Struct, frozen=True):
    """An order as it was signed, as far as it is compared with its event."""

    id: str
    mode: Mode
    reason: str
    incident: str
    scope: tuple[str, ...]
    journal_size: int
    journal_head: str


class _Proof(msgspec.Struct):
    credential_id: str
    client_data_json: str
    authenticator_data: str
    signature: str
    key_label: str
    operator: str
    user_verified: bool
    counter: int
    flags: int
    counter_regressed: bool = False


def read_order(data: Mapping[str, object]) -> tuple[bytes, SignedOrder]:
    """Return an order's exact bytes, and what they say."""
    raw = str(data.get("order")).encode(errors="replace")
    return raw, msgspec.json.decode(raw, type=SignedOrder)


def read_proof(stored: object) -> Proof:
    """Return a proof as `document.proof_document` wrote it."""
    fields = msgspec.convert(stored, type=_Proof)
    return Proof(
        credential_id=websafe_decode(fields.credential_id),
        client_data_json=websafe_decode(fields.client_data_json),
        authenticator_data=websafe_decode(fields.authenticator_data),
        signature=websafe_decode(fields.signature),
        key_label=fields.key_label,
        operator=fields.operator,
        user_verified=fields.user_verified,
        counter=fields.counter,
        flags=fields.flags,
        counter_regressed=fields.counter_regressed,
    )


def read_key(stored: object) -> EnrolledKey | None:
    """Return the record of a key, or None when it is none."""
    try:
        return msgspec.convert(stored, type=EnrolledKey, strict=False)
    except (msgspec.ValidationError, ValueError):
        return None


def read_recovery(stored: object) -> RecoveryRecord | None:
    """Return what is public of a recovery phrase, or None when it is nothing of the kind."""
    try:
        return msgspec.convert(stored, type=RecoveryRecord)
    except (msgspec.ValidationError, ValueError):
        return None
