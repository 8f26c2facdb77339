"""Checking the touches in a journal: each against the key that was enrolled when it was made."""

import json
from typing import Any

import msgspec
from fido2.utils import websafe_decode

from killswitch.authority.proof import verify_stored
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError
from killswitch.journal.history import KEY_ENROLLED
from killswitch.journal.store import Event
from killswitch.model import Proof


class _StoredProof(msgspec.Struct):
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


class TouchBook:
    """The enrolled keys as the journal tells of them, event by event."""

    def __init__(self) -> None:
        self._keys: dict[bytes, EnrolledKey] = {}
        self.count = 0
        """How many touches were checked and found good."""

    def check(self, event: Event) -> str:
        """Take in one event; return what is wrong with the touch in it, or nothing."""
        body = event.body
        if body.type == KEY_ENROLLED:
            return self._enrol(body.data)
        if "order" not in body.data or "proof" not in body.data or body.data["proof"] is None:
            return ""
        if not isinstance(body.data["order"], str):
            return ""  # a report repeats the order as fields; the signed bytes stand before it
        return self._check_order(body.data["order"], body.data["proof"])

    def _enrol(self, data: dict[str, Any]) -> str:
        try:
            key = msgspec.convert(data.get("key"), type=EnrolledKey, strict=False)
        except msgspec.ValidationError:
            return "an enrolment without a key"
        self._keys[key.credential_id] = key
        return ""

    def _check_order(self, order: str, stored: object) -> str:
        try:
            fields = msgspec.convert(stored, type=_StoredProof)
            proof = Proof(
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
            json.loads(order)
        except (msgspec.ValidationError, ValueError):
            return "its touch cannot be read"
        key = self._keys.get(proof.credential_id)
        if key is None:
            return "its touch is by a key that was not enrolled before"
        try:
            verify_stored(order.encode(), proof, key)
        except NotAuthorizedError as error:
            return error.problem
        self.count += 1
        return ""
