"""The enrolment of one key after the other: the new key signs, an enrolled one admits it."""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from killswitch.authority.attestation import AttestationPolicy, Level
from killswitch.authority.bundle import Bundle
from killswitch.authority.bundle import update as update_bundle
from killswitch.authority.changes import enrolment_scope, may
from killswitch.authority.enrolment import enroll as enroll_key
from killswitch.authority.proof import verify
from killswitch.authority.ring import SANDBOX_RP_ID, EnrolledKey, KeyRing, update
from killswitch.cli.authorise import (
    Authority,
    pin_required,
    refuse_regressed,
    remember_counter,
    take_touch,
)
from killswitch.cli.devices import find_devices
from killswitch.cli.pin_prompt import pin_policy
from killswitch.cli.record import append, demand_admitted, head_of, record
from killswitch.cli.sealed import recipients_of
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.document import enrolment_document, proof_document
from killswitch.errors import ConfigError, NotAuthorizedError, UsageError
from killswitch.journal.history import KEY_ENROLLED, SECRETS_RESEALED
from killswitch.model import Mode, Order, Proof
from killswitch.orders import make_order

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

_POLL_S: Final = 0.2
_WAIT_S: Final = 60.0
_NOT_ENROLLED: Final = "the key is not enrolled"


class Enrolling:
    """Enrols keys of one operator; `ring` is what the ring is by now."""

    def __init__(
        self,
        session: Session,
        config: Config,
        ring: KeyRing,
        *,
        operator: str,
        role: str,
        yes: bool,
    ) -> None:
        self.ring = ring
        self._session = session
        self._config = config
        self._operator = operator
        self._role = role
        self._yes = yes
        self._sandbox = config.sandbox is not None
        self._found = find_devices(config, yes=yes, no_input=session.no_input)
        self._policy = _attestation(config)

    def check(self, label: str) -> None:
        """Raise UsageError unless a key may have this label."""
        self.ring.check_new(label, self._operator, self._role)

    def enrol(self, label: str) -> None:
        """Take the touches of a new key, have it admitted, and write it down."""
        orders: list[Order] = []

        def challenge(key: EnrolledKey) -> bytes:
            orders.append(change_order(self._session, self._config, enrolment_scope(key)))
            return orders[-1].challenge()

        enrolment = enroll_key(
            self._new_device(label),
            ring=self.ring,
            label=label,
            operator=self._operator,
            rp_id=SANDBOX_RP_ID if self._sandbox else self._config.keys.rp_id,
            now=self._session.now(),
            cancel=threading.Event(),
            on_touch=lambda number, of: self._ask(f'touch the key "{label}", {number} of {of}'),
            challenge=challenge,
            role=self._role,
            attestation=self._policy,
            ask_pin=pin_policy(self._session, required=False).ask,
            force_pin=self._session.force_pin,
        )
        order, key = orders[-1], enrolment.key
        proof = verify(order, enrolment.assertion, [key], sandbox=self._sandbox)
        authority = self._admitted(order, proof)
        append(
            self._session,
            self._config,
            KEY_ENROLLED,
            f"{order.id}.enrolled",
            enrolment_document(enrolment, order, proof, authority.proof if authority else None),
        )
        self.ring = update(self._config.key_file, lambda keys: keys.add(key))
        if authority:
            reseal_for(self._session, self._config, self.ring, order, authority)
            remember_counter(self._session, self._config, authority.proof)
        pin = "" if any(one.uv for one in key.recipients) else "; it has no PIN"
        self._session.terminal.result(
            f'enrolled "{label}" of {key.operator}: may {may(key)}, make {key.attestation}{pin}'
        )

    def _admitted(self, order: Order, own: Proof) -> Authority | None:
        """Take the touch of an enrolled key on the same order; the first key needs none."""
        if self.ring.keys:
            self._ask("now a key that is enrolled already: it admits the new one")
            return touch_for_change(
                self._session, self._config, order, self.ring, yes=self._yes, effect=_NOT_ENROLLED
            )
        if pin_required(self._config, Mode.KEYS) and not own.user_verified:
            raise NotAuthorizedError(
                "the key has no PIN, and enrolling asks for one",
                effect=_NOT_ENROLLED,
                hint='set a PIN with the maker\'s tool, or leave "keys" out of [keys] require_pin',
            )
        return None

    def _new_device(self, label: str) -> "CtapDevice":
        """Return the one plugged-in key that is not enrolled, waiting for it for a minute."""
        end = time.monotonic() + _WAIT_S
        asked = ""
        while time.monotonic() < end:
            new, known = self._plugged_in()
            if len(new) == 1:
                return new[0]
            if len(new) > 1:
                raise UsageError(
                    f"{len(new)} security keys are plugged in that are not enrolled",
                    effect=_NOT_ENROLLED,
                    hint="leave only the one that is to be enrolled",
                )
            if known and self._sandbox:
                raise UsageError(
                    "every software key of the sandbox is enrolled", effect=_NOT_ENROLLED
                )
            why = f"{known} is enrolled already" if known else self._found.diagnose()
            text = f'plug in the key to be called "{label}"{f" ({why})" if why else ""}'
            if text != asked:
                asked = text
                self._ask(text)
            time.sleep(_POLL_S)
        raise NotAuthorizedError(
            f"no new security key within {_WAIT_S:g} s", effect=_NOT_ENROLLED, hint="run it again"
        )

    def _plugged_in(self) -> "tuple[list[CtapDevice], str]":
        """Return the devices that are not enrolled, and the name of one that is."""
        from fido2.ctap import CtapError
        from fido2.hid import ConnectionFailure

        from killswitch.authority.asking import U2fOnlyError, meet

        new, known = [], ""
        for device in self._found.devices():
            try:
                ours = meet(device, self.ring.keys, threading.Event())
            except U2fOnlyError:
                ours = ()  # the enrolment says why it is refused
            except (CtapError, ConnectionFailure, OSError):
                continue  # busy, or pulled out: asked again in a moment
            if len(ours) == 1:
                known = f'"{ours[0].label}"'
            else:
                new.append(device)
        return new, known

    def _ask(self, text: str) -> None:
        enter = "press Enter: " if self._sandbox and not self._yes else ""
        self._session.terminal.ask("KEYS", f"{enter}{text}")


def change_order(session: Session, config: Config, scope: Sequence[str]) -> Order:
    """Return an order to change who may halt, or what the keys open."""
    return make_order(
        mode=Mode.KEYS,
        scope=scope,
        config_sha256=config.sha256,
        head=head_of(config),
        now=session.now(),
        random_bytes=session.random_bytes,
        bundle_sha256=Bundle.load(config.bundle_file).sha256,
    )


def touch_for_change(
    session: Session,
    config: Config,
    order: Order,
    ring: KeyRing,
    *,
    yes: bool,
    effect: str = "the key ring is unchanged",
) -> Authority:
    """Take the touch of one of `ring` on a change; a key that may have been copied is refused."""
    demand_admitted(config, ring, effect=effect)
    bundle = Bundle.load(config.bundle_file)
    authority = take_touch(session, config, order, ring, bundle=bundle, yes=yes)
    refuse_regressed(authority.proof, effect=effect)
    return authority


def reseal_for(
    session: Session, config: Config, ring: KeyRing, order: Order, authority: Authority
) -> tuple[str, ...]:
    """Seal what the touch opened to the ring as it is now; return all names that were sealed."""
    before = Bundle.load(config.bundle_file)
    if not before.entries:
        return ()
    identity = authority.unsealed.identity
    if identity is None:
        why = authority.unsealed.why_closed(before.names[0])
        session.terminal.hint(f"the secrets stay sealed as they were: {why}")
        session.terminal.hint("seal them anew with another key: killswitch secrets reseal")
        return before.names
    to = recipients_of(config, ring)
    bundle = update_bundle(
        config.bundle_file, lambda now: now.resealed(now.open(identity).secrets, to)
    )
    data = {
        "order": order.to_bytes().decode(),
        "proof": proof_document(authority.proof),
        "bundle_sha256": bundle.sha256,
    }
    record(session, config, SECRETS_RESEALED, f"{order.id}.resealed", data)
    for name in bundle.not_for(to):
        why = authority.unsealed.why_closed(name)
        session.terminal.hint(f"sealed:{name} stays as it was: {why}")
    return before.names


def _attestation(config: Config) -> AttestationPolicy:
    try:
        roots = tuple(config.resolve(it).read_bytes() for it in config.keys.attestation_roots)
    except OSError as error:
        raise ConfigError(
            f"a root certificate cannot be read: {error.filename}: {error.strerror}",
            effect=_NOT_ENROLLED,
            hint="[keys] attestation_roots names PEM files",
        ) from error
    return AttestationPolicy(Level(config.keys.attestation), roots, config.keys.aaguids)
