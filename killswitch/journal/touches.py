"""Checking the touches in a journal: each against the key that was enrolled when it was made."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from fido2.utils import websafe_decode

from killswitch.authority.proof import verify_stored
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError
from killswitch.journal.history import DRILL_ORDERED, KEY_ENROLLED, KEY_REMOVED, ORDERED, RESOLVED
from killswitch.journal.store import GENESIS, Body, Event
from killswitch.model import Mode, Proof

_MODES: Final = {ORDERED: Mode.LIVE, DRILL_ORDERED: Mode.DRILL, RESOLVED: Mode.RELEASE}
"""The events that are nothing without a touch, and the mode that it must have been for."""


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


class _SignedOrder(msgspec.Struct):
    id: str
    mode: Mode
    reason: str
    incident: str
    journal_size: int
    journal_head: str


class TouchBook:
    """The enrolled keys as the journal tells of them, event by event.

    Args:
        known: keys that were enrolled elsewhere: with another laptop, or an older journal.
    """

    def __init__(self, known: Sequence[EnrolledKey] = ()) -> None:
        self._keys = {key.credential_id: key for key in known}
        self._heads = [GENESIS.hex()]
        self.count = 0
        """How many touches were checked and found good."""

    def check(self, event: Event) -> str:
        """Take in one event; return what is wrong with the touch in it, or nothing."""
        problem = self._check(event.body)
        self._heads.append(event.hash.hex())
        return problem

    def _check(self, body: Body) -> str:
        if body.type == KEY_ENROLLED:
            return self._enrol(body.data)
        if body.type == KEY_REMOVED:
            return self._remove(body.data)
        if body.type in _MODES:
            return self._check_order(body)
        return ""  # a report repeats order and proof; the signed bytes stand before it

    def _enrol(self, data: dict[str, Any]) -> str:
        key = _key(data)
        if key is None:
            return "an enrolment without a key"
        self._keys[key.credential_id] = key
        return ""

    def _remove(self, data: dict[str, Any]) -> str:
        key = _key(data)
        if key is None:
            return "a removal without a key"
        self._keys.pop(key.credential_id, None)  # perhaps enrolled elsewhere, long ago
        return ""

    def _check_order(self, body: Body) -> str:
        raw = body.data.get("order")
        try:
            proof = _proof(body.data.get("proof"))
            order = msgspec.json.decode(str(raw), type=_SignedOrder)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "its touch cannot be read"
        key = self._keys.get(proof.credential_id)
        if key is None:
            return "its touch is by a key that was not enrolled then"
        try:
            verify_stored(str(raw).encode(), proof, key)
        except NotAuthorizedError as error:
            return error.problem
        problem = self._misplaced(body, order)
        self.count += not problem
        return problem

    def _misplaced(self, body: Body, order: _SignedOrder) -> str:
        """Return why a good touch does not belong to this event of this journal, or nothing."""
        if order.mode is not _MODES[body.type]:
            return f"its touch was for a {order.mode} order"
        if body.id != f"{order.id}.{body.type.rpartition('.')[2]}":
            return f"its touch was for order {order.id}"
        if body.type == RESOLVED and (body.data.get("halt"), body.data.get("note")) != (
            order.incident,
            order.reason,
        ):
            return "its touch was for another halt or note"
        # What was signed includes the journal as it was: whoever rewrote it cannot sign again.
        if self._heads[order.journal_size : order.journal_size + 1] != [order.journal_head]:
            return f"its touch was made on another journal, with {order.journal_size} events"
        return ""


def _key(data: dict[str, Any]) -> EnrolledKey | None:
    try:
        return msgspec.convert(data.get("key"), type=EnrolledKey, strict=False)
    except msgspec.ValidationError:
        return None


def _proof(stored: object) -> Proof:
    fields = msgspec.convert(stored, type=_StoredProof)
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
