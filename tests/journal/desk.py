"""A journal, and security keys that touch themselves and are written down in it."""

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from fido2.utils import websafe_encode

from killswitch.authority.changes import (
    adoption_scope,
    enrolment_scope,
    recovery_scope,
    removal_scope,
)
from killswitch.authority.enrolment import enroll
from killswitch.authority.proof import verify as verify_touch
from killswitch.authority.recovery import Recovery, RecoveryRecord, new_recovery
from killswitch.authority.ring import SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.authority.touch import ask_for_touch
from killswitch.document import enrolment_document, proof_document
from killswitch.journal.check import check
from killswitch.journal.store import Head, Journal, NewEvent
from killswitch.journal.verify import Verdict
from killswitch.model import Mode, Order
from killswitch.orders import make_order
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice

RP_ID = "killswitch.example"
NOW = datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC)


class Desk:
    """A journal, and security keys that touch themselves and are written down in it."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.soft: dict[str, SoftKey] = {}
        self.keys: dict[str, EnrolledKey] = {}
        self.enrolments: dict[str, tuple[Order, dict[str, object]]] = {}

    def make_key(self, label: str, *, role: str = "both", rp_id: str = RP_ID) -> EnrolledKey:
        """Make a key, with its own touch on the order that enrols it; nothing is written yet."""
        soft = self.soft[label] = SoftKey(
            touch=lambda _: True, rp_ids={rp_id}, aaguid=os.urandom(16)
        )
        orders: list[Order] = []

        def challenge(key: EnrolledKey) -> bytes:
            order = self.order(Mode.KEYS)
            orders.append(replace(order, scope=enrolment_scope(key)))
            return orders[-1].challenge()

        enrolment = enroll(
            SoftKeyDevice(soft),
            ring=KeyRing(),
            label=label,
            operator="anna",
            rp_id=rp_id,
            now=NOW,
            cancel=threading.Event(),
            on_touch=lambda _number, _of: None,
            challenge=challenge,
            role=role,
        )
        self.keys[label] = enrolment.key
        proof = verify_touch(
            orders[-1], enrolment.assertion, [enrolment.key], sandbox=rp_id == SANDBOX_RP_ID
        )
        self.enrolments[label] = (
            orders[-1],
            enrolment_document(enrolment, orders[-1], proof, None),
        )
        return enrolment.key

    def write(self, id_: str, type_: str, data: dict[str, object]) -> None:
        self.journal.append(NewEvent(id_, type_, "2026-11-21T03:14:07Z", data))

    def enrol(
        self,
        label: str,
        *,
        by: str = "",
        role: str = "both",
        sandbox: bool = False,
        changes: dict[str, object] | None = None,
    ) -> None:
        """Write an enrolment down, admitted by another key if `by` names one."""
        self.make_key(label, role=role, rp_id=SANDBOX_RP_ID if sandbox else RP_ID)
        order, data = self.enrolments[label]
        if by:
            data["admitted_by"] = self.touch(order, by)
        self.write(f"{order.id}.enrolled", "key.enrolled", data | (changes or {}))

    def remove(self, label: str, *, by: str = "", changes: dict[str, object] | None = None) -> None:
        order = replace(self.order(Mode.KEYS), scope=removal_scope(self.keys[label]))
        data: dict[str, object] = {
            "key": msgspec.to_builtins(self.keys[label]),
            "order": order.to_bytes().decode(),
            "proof": self.touch(order, by or label),
        }
        self.write(f"{order.id}.removed", "key.removed", data | (changes or {}))

    def set_recovery(
        self, *, by: str = "blue", changes: dict[str, object] | None = None
    ) -> Recovery:
        """Write a new recovery phrase down, with the touch of a key."""
        recovery = new_recovery()[1]
        order = replace(self.order(Mode.KEYS), scope=recovery_scope(recovery.record))
        data: dict[str, object] = {
            "recovery": msgspec.to_builtins(recovery.record),
            "order": order.to_bytes().decode(),
            "proof": self.touch(order, by),
        }
        self.write(f"{order.id}.set", "recovery.set", data | (changes or {}))
        return recovery

    def adopt(
        self,
        labels: list[str],
        *,
        by: str,
        recovery: RecoveryRecord | None = None,
        changes: dict[str, object] | None = None,
    ) -> None:
        """Write down that the journal begins with keys that were enrolled elsewhere."""
        keys = [self.keys[label] for label in labels]
        order = replace(self.order(Mode.KEYS), scope=adoption_scope(keys, recovery))
        data: dict[str, object] = {
            "keys": [msgspec.to_builtins(key) for key in keys],
            "recovery": msgspec.to_builtins(recovery),
            "order": order.to_bytes().decode(),
            "proof": self.touch(order, by),
        }
        self.write(f"{order.id}.adopted", "keys.adopted", data | (changes or {}))

    def admit(self, label: str, recovery: Recovery, *, by: str = "") -> None:
        """Write down the enrolment of a key that a phrase admits, and perhaps a key as well."""
        self.make_key(label)
        order, data = self.enrolments[label]
        data["admitted_by_recovery"] = websafe_encode(recovery.admit(order.to_bytes()))
        if by:
            data["admitted_by"] = self.touch(order, by)
        self.write(f"{order.id}.enrolled", "key.enrolled", data)

    def order(self, mode: Mode = Mode.LIVE, head: Head | None = None) -> Order:
        return make_order(
            mode=mode,
            scope=["vault prod"],
            config_sha256="4f" * 32,
            head=head or self.journal.head(),
            now=NOW,
            random_bytes=os.urandom,
            reason="Drawdown, dégagé",
        )

    def touch(self, order: Order, label: str = "blue") -> dict[str, object]:
        touched = ask_for_touch(
            challenge=order.challenge(),
            keys=[self.keys[label]],
            rp_id=self.keys[label].rp_id,
            devices=lambda: [SoftKeyDevice(self.soft[label])],
            timeout_s=5,
            cancel=threading.Event(),
            on_state=lambda _: None,
        )
        key = self.keys[label]
        return proof_document(verify_touch(order, touched.assertion, [key], sandbox=key.sandbox))

    def raw_touch(self, order: Order, label: str) -> dict[str, object]:
        """Let a key sign whatever its role: what a patched killswitch would do."""
        key = self.keys[label]
        self.keys[label] = replace(key, role="both")
        try:
            return self.touch(order, label)
        finally:
            self.keys[label] = key

    def record(self, order: Order, proof: object, type_: str = "halt.ordered") -> None:
        data: dict[str, object] = {"order": order.to_bytes().decode(), "proof": proof}
        self.write(f"{order.id}.ordered", type_, data)

    def check(self) -> tuple[Verdict, int]:
        verdict, touches, *_ = check(self.journal.events())
        return verdict, touches - 1  # without blue's own, when it was enrolled
