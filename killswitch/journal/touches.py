"""Checking the touches in a journal: each against the key that was enrolled when it was made."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from fido2.utils import websafe_decode

from killswitch.authority.changes import (
    adoption_scope,
    covers,
    enrolment_scope,
    fingerprint,
    recovery_scope,
    removal_scope,
    reseal_scope,
)
from killswitch.authority.proof import verify_stored
from killswitch.authority.recovery import RecoveryRecord, admitted
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError
from killswitch.journal import history
from killswitch.journal.store import GENESIS, Body, Event
from killswitch.journal.stored import (
    SignedOrder,
    read_key,
    read_order,
    read_proof,
    read_recovery,
)
from killswitch.model import Mode, Proof

_MODES: Final = {
    history.ORDERED: Mode.LIVE,
    history.DRILL_ORDERED: Mode.DRILL,
    history.LOOK_ORDERED: Mode.LOOK,
    history.RESOLVED: Mode.RELEASE,
    history.KEY_ENROLLED: Mode.KEYS,
    history.KEY_REMOVED: Mode.KEYS,
    history.KEYS_ADOPTED: Mode.KEYS,
    history.RECOVERY_SET: Mode.KEYS,
    history.SECRETS_RESEALED: Mode.KEYS,
}
"""The events that are nothing without a touch, and the mode that it must have been for."""

_NEVER_BLIND: Final = {*Mode} - {Mode.LIVE}
"""What is not ordered when the journal cannot be read; a halt is, and then signs an empty one."""
_STRANGER: Final = "its touch is by a key that was not enrolled then"


class TouchBook:
    """The enrolled keys as the journal tells of them, event by event.

    The first key is taken at its word. Every later one needs the touch of one before it, or the
    signature of the newest recovery phrase, which stands here because a key was touched for it. A
    journal is a sandbox's or it is real: a software key has no place in a real one.

    Args:
        known: the keys of the ring. They count only until this journal tells of a key itself.
    """

    def __init__(self, known: Sequence[EnrolledKey] = ()) -> None:
        self._known = {key.credential_id: key for key in known}
        self._keys: dict[bytes, EnrolledKey] = {}
        self._began = False
        self._sandbox: bool | None = None
        self._ids: set[str] = set()
        self._heads = [GENESIS.hex()]
        self.recovery: RecoveryRecord | None = None
        """The newest recovery phrase that a key was touched for."""
        self.count = 0
        """How many touches were checked and found good."""

    @property
    def keys(self) -> tuple[EnrolledKey, ...]:
        """The keys that this journal says are enrolled now, each with its highest counter."""
        return tuple(self._keys.values())

    def check(self, event: Event) -> str:
        """Take in one event; return what is wrong with the touch in it, or nothing."""
        problem = self._check(event.body)
        self._heads.append(event.hash.hex())
        return problem

    def _check(self, body: Body) -> str:
        if body.id in self._ids:  # which a journal that is only appended to never has
            return "an event of this id stands before it: a touch or a report counts once"
        self._ids.add(body.id)
        if body.type not in _MODES:
            return ""  # a report repeats order and proof; the signed bytes stand before it
        try:
            raw, order = read_order(body.data)
            problem = self._not_allowed(body, raw, order) or self._misplaced(body, order)
            if not problem:
                self._take_in(body)
                self.count += 1
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "its touch cannot be read"
        return problem

    def _not_allowed(self, body: Body, raw: bytes, order: SignedOrder) -> str:
        """Return why what the event tells of was not allowed, or nothing."""
        match body.type:
            case history.KEY_ENROLLED:
                return self._enrolled(raw, order, body.data)
            case history.KEY_REMOVED:
                return self._removed(raw, order, body.data)
            case history.KEYS_ADOPTED:
                return self._adopted(raw, order, body.data)
            case history.RECOVERY_SET:
                return self._recovery_set(raw, order, body.data)
            case _:
                return self._signed(raw, order, read_proof(body.data.get("proof")))

    def _take_in(self, body: Body) -> None:
        """Learn from an event that was found good who may sign what comes after it."""
        match body.type:
            case history.KEY_ENROLLED if key := read_key(body.data.get("key")):
                self._enter(key)
            case history.KEY_REMOVED if key := read_key(body.data.get("key")):
                self._keys.pop(key.credential_id, None)
                self._known.pop(key.credential_id, None)
            case history.KEYS_ADOPTED:
                for key in _keys(body.data):
                    self._enter(key)
                self.recovery = read_recovery(body.data.get("recovery"))
            case history.RECOVERY_SET:
                self.recovery = read_recovery(body.data.get("recovery"))
            case _:
                pass
        self._count_up(read_proof(body.data.get("proof")))
        if body.type == history.KEY_ENROLLED and body.data.get("admitted_by") is not None:
            self._count_up(read_proof(body.data["admitted_by"]))

    def _enter(self, key: EnrolledKey) -> None:
        self._began, self._sandbox = True, key.sandbox
        self._keys[key.credential_id] = key

    def _count_up(self, proof: Proof) -> None:
        key = self._keys.get(proof.credential_id)
        if key:
            counter = max(key.counter, proof.counter)
            self._keys[proof.credential_id] = replace(key, counter=counter)

    def _enrolled(self, raw: bytes, order: SignedOrder, data: dict[str, Any]) -> str:
        key = read_key(data.get("key"))
        if key is None:
            return "an enrolment without a key"
        if order.scope != enrolment_scope(key):
            return "its touch was for another key"
        if key.credential_id in self._keys:
            return "a key that was enrolled already"
        if not key.sandbox and any(one.label == key.label for one in self._keys.values()):
            return f'a second key with the label "{key.label}"'
        problem = self._mixed(key) or _unfit(raw, read_proof(data.get("proof")), key)
        return problem or self._admitted(raw, order, key, data)

    def _admitted(
        self, raw: bytes, order: SignedOrder, key: EnrolledKey, data: dict[str, Any]
    ) -> str:
        phrase, by = data.get("admitted_by_recovery"), data.get("admitted_by")
        if phrase is None and by is None and self._began and not key.sandbox:
            return "a key that no key enrolled before it has admitted"
        problem = "" if phrase is None else self._by_recovery(raw, str(phrase))
        if by is not None and not problem:
            problem = self._signed(raw, order, read_proof(by), role=key.role)
        return problem

    def _by_recovery(self, raw: bytes, signature: str) -> str:
        if self.recovery is None:
            return "a key admitted by a recovery phrase, and none was set"
        fits = admitted(raw, websafe_decode(signature), self.recovery.verifying_key)
        return "" if fits else "a key that the recovery phrase of that time did not admit"

    def _removed(self, raw: bytes, order: SignedOrder, data: dict[str, Any]) -> str:
        key = read_key(data.get("key"))
        if key is None:
            return "a removal without a key"
        enrolled = self._keys.get(key.credential_id, key)
        if order.scope != removal_scope(key) or fingerprint(enrolled) != fingerprint(key):
            return "its touch was for another key"
        return self._signed(raw, order, read_proof(data.get("proof")), role=key.role)

    def _adopted(self, raw: bytes, order: SignedOrder, data: dict[str, Any]) -> str:
        keys = _keys(data)
        if self._began or not keys:
            return "keys adopted by a journal that has its own, or none"
        recovery = read_recovery(data.get("recovery"))
        # What the phrase signs with cannot be adopted: nobody was touched for it here.
        if order.scope != adoption_scope(keys, recovery) or (recovery and recovery.verifying_key):
            return "its touch was for other keys"
        proof = read_proof(data.get("proof"))
        signer = next((key for key in keys if key.credential_id == proof.credential_id), None)
        mixed = next(filter(None, map(self._mixed, keys)), "")
        return mixed or (_unfit(raw, proof, signer) if signer else _STRANGER)

    def _recovery_set(self, raw: bytes, order: SignedOrder, data: dict[str, Any]) -> str:
        record = read_recovery(data.get("recovery"))
        if record is None:
            return "a recovery phrase without its public keys"
        if order.scope != recovery_scope(record):
            return "its touch was for another recovery phrase"
        return self._signed(raw, order, read_proof(data.get("proof")), role="both")

    def _signed(self, raw: bytes, order: SignedOrder, proof: Proof, *, role: str = "") -> str:
        """Return what is wrong with a touch of an enrolled key on this order, or nothing.

        With `role` the key's own role has to cover it: no key gives away more than it has.
        """
        ring = self._keys if self._began else self._known
        key = ring.get(proof.credential_id)
        if key is None:
            return _STRANGER
        if not key.may(order.mode.value) or (role and not covers(key.role, role)):
            return f'its touch is by key "{key.label}", whose role does not allow it'
        return self._mixed(key) or _unfit(raw, proof, key)

    def _mixed(self, key: EnrolledKey) -> str:
        if self._sandbox is None:
            self._sandbox = key.sandbox
        return "" if self._sandbox is key.sandbox else "a software key and real ones in one journal"

    def _misplaced(self, body: Body, order: SignedOrder) -> str:
        """Return why a good touch does not belong to this event of this journal, or nothing."""
        if order.mode is not _MODES[body.type]:
            return f"its touch was for a {order.mode} order"
        if body.id != f"{order.id}.{body.type.rpartition('.')[2]}":
            return f"its touch was for order {order.id}"
        return self._elsewhen(order) or _told_otherwise(body, order)

    def _elsewhen(self, order: SignedOrder) -> str:
        """Return why a touch was not made on this journal as it was, or nothing.

        What was signed includes the journal's head: whoever rewrote it cannot sign again.
        """
        if order.mode in _NEVER_BLIND and order.journal_size == 0 and len(self._heads) > 1:
            return "its touch was made on an empty journal"
        if self._heads[order.journal_size : order.journal_size + 1] != [order.journal_head]:
            return f"its touch was made on another journal, with {order.journal_size} events"
        return ""


def _told_otherwise(body: Body, order: SignedOrder) -> str:
    """Return what an event tells that its touch was not for, or nothing."""
    told = (body.data.get("halt"), body.data.get("note"))
    if body.type == history.RESOLVED and told != (order.incident, order.reason):
        return "its touch was for another halt or note"
    if body.type == history.SECRETS_RESEALED and order.scope != reseal_scope(body.data):
        return "its touch was for other secrets or recipients"
    return ""


def _keys(data: dict[str, Any]) -> list[EnrolledKey]:
    stored = data.get("keys")
    keys = [read_key(each) for each in stored] if isinstance(stored, list) else []
    return [key for key in keys if key] if all(keys) else []


def _unfit(raw: bytes, proof: Proof, key: EnrolledKey) -> str:
    try:
        verify_stored(raw, proof, key)
    except NotAuthorizedError as error:
        return error.problem
    return ""
