"""Checking the touches in a journal: each against the key that was enrolled when it was made."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from fido2.utils import websafe_decode

from killswitch.authority.changes import enrolment_scope, removal_scope
from killswitch.authority.proof import verify_stored
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError
from killswitch.journal.history import (
    DRILL_ORDERED,
    KEY_ENROLLED,
    KEY_REMOVED,
    ORDERED,
    RESOLVED,
    SECRETS_RESEALED,
)
from killswitch.journal.store import GENESIS, Body, Event
from killswitch.model import Mode, Proof

_MODES: Final = {
    ORDERED: Mode.LIVE,
    DRILL_ORDERED: Mode.DRILL,
    RESOLVED: Mode.RELEASE,
    KEY_ENROLLED: Mode.KEYS,
    KEY_REMOVED: Mode.KEYS,
    SECRETS_RESEALED: Mode.KEYS,
}
"""The events that are nothing without a touch, and the mode that it must have been for."""

_NEVER_BLIND: Final = {Mode.KEYS, Mode.RELEASE}
"""What is not ordered when the journal cannot be read; a halt is, and then signs an empty one."""
_FIRST: Final = 1  # how many heads there are before the first event


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
    scope: tuple[str, ...]
    journal_size: int
    journal_head: str


class TouchBook:
    """The enrolled keys as the journal tells of them, event by event.

    The first key is taken at its word, every later one needs the touch of one before it. A
    journal is a sandbox's or it is real: a software key has no place in a real one.

    Args:
        known: keys that were enrolled elsewhere, with another laptop or an older journal. They
            count only until this journal tells of a first key of its own.
    """

    def __init__(self, known: Sequence[EnrolledKey] = ()) -> None:
        self._elsewhere = {key.credential_id: key for key in known}
        self._keys: dict[bytes, EnrolledKey] = {}
        self._sandbox: bool | None = None
        self._began = False
        self._orders: set[str] = set()
        self._heads = [GENESIS.hex()]
        self.count = 0
        """How many touches were checked and found good."""

    @property
    def keys(self) -> tuple[EnrolledKey, ...]:
        """The keys that this journal says are enrolled now."""
        return tuple(self._keys.values())

    def check(self, event: Event) -> str:
        """Take in one event; return what is wrong with the touch in it, or nothing."""
        problem = self._check(event.body)
        self._heads.append(event.hash.hex())
        return problem

    def _check(self, body: Body) -> str:
        if body.type not in _MODES:
            return ""  # a report repeats order and proof; the signed bytes stand before it
        raw = body.data.get("order")
        try:
            order = msgspec.json.decode(str(raw), type=_SignedOrder)
            if body.type == KEY_ENROLLED:
                problem = self._enrol(str(raw).encode(), order, body.data)
            else:
                problem = self._signed(str(raw).encode(), order, _proof(body.data.get("proof")))
                if body.type == KEY_REMOVED and not problem:
                    problem = self._remove(order, body.data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "its touch cannot be read"
        problem = problem or self._misplaced(body, order)
        self._orders.add(body.id)
        self.count += not problem
        return problem

    def _enrol(self, raw: bytes, order: "_SignedOrder", data: dict[str, Any]) -> str:
        key = _key(data)
        if key is None:
            return "an enrolment without a key"
        if order.scope != enrolment_scope(key):
            return "its touch was for another key"
        problem = self._mixed(key) or _unfit(raw, _proof(data.get("proof")), key)
        if not problem and data.get("admitted_by") is not None:
            problem = self._signed(raw, order, _proof(data["admitted_by"]))
        elif not problem and self._began and not key.sandbox:
            problem = "a key that no key enrolled before it has admitted"
        elif not problem:
            self._elsewhere.clear()  # a first key, or a new sandbox's: all trust begins with it
        if not problem:
            self._began = True
            self._keys[key.credential_id] = key
        return problem

    def _remove(self, order: "_SignedOrder", data: dict[str, Any]) -> str:
        key = _key(data)
        if key is None:
            return "a removal without a key"
        if order.scope != removal_scope(key):
            return "its touch was for another key"
        self._keys.pop(key.credential_id, None)  # perhaps enrolled elsewhere, long ago
        self._elsewhere.pop(key.credential_id, None)
        return ""

    def _signed(self, raw: bytes, order: "_SignedOrder", proof: Proof) -> str:
        """Return what is wrong with a touch of an enrolled key on this order, or nothing."""
        key = self._keys.get(proof.credential_id) or self._elsewhere.get(proof.credential_id)
        if key is None:
            return "its touch is by a key that was not enrolled then"
        if not key.may(order.mode.value):
            return f'its touch is by key "{key.label}", whose role does not allow it'
        return self._mixed(key) or _unfit(raw, proof, key)

    def _mixed(self, key: EnrolledKey) -> str:
        if self._sandbox is None:
            self._sandbox = key.sandbox
        if self._sandbox is not key.sandbox:
            return "a software key and real ones in one journal"
        return ""

    def _misplaced(self, body: Body, order: _SignedOrder) -> str:
        """Return why a good touch does not belong to this event of this journal, or nothing."""
        if order.mode is not _MODES[body.type]:
            return f"its touch was for a {order.mode} order"
        if body.id != f"{order.id}.{body.type.rpartition('.')[2]}":
            return f"its touch was for order {order.id}"
        if body.id in self._orders:
            return "its touch was used before"
        if body.type == RESOLVED and (body.data.get("halt"), body.data.get("note")) != (
            order.incident,
            order.reason,
        ):
            return "its touch was for another halt or note"
        return self._elsewhen(order)

    def _elsewhen(self, order: _SignedOrder) -> str:
        """Return why a touch was not made on this journal as it was, or nothing.

        What was signed includes the journal's head: whoever rewrote it cannot sign again.
        """
        if order.mode in _NEVER_BLIND and order.journal_size == 0 and len(self._heads) > _FIRST:
            return "its touch was made on an empty journal"
        if self._heads[order.journal_size : order.journal_size + 1] != [order.journal_head]:
            return f"its touch was made on another journal, with {order.journal_size} events"
        return ""


def _unfit(raw: bytes, proof: Proof, key: EnrolledKey) -> str:
    try:
        verify_stored(raw, proof, key)
    except NotAuthorizedError as error:
        return error.problem
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
