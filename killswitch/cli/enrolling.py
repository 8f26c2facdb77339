"""The enrolment of one key after the other: the new key signs, an enrolled one admits it."""

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from killswitch.authority.attestation import AttestationPolicy, Level
from killswitch.authority.changes import enrolment_scope, may
from killswitch.authority.enrolment import enroll as enroll_key
from killswitch.authority.files import read_guarded
from killswitch.authority.proof import verify
from killswitch.authority.ring import SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.authority.unsealing import Unsealed
from killswitch.cli.authorise import Authority, pin_required, remember_counter
from killswitch.cli.changing import change_order, covering, reseal_for, touch_for_change
from killswitch.cli.devices import find_devices
from killswitch.cli.pin_prompt import pin_policy
from killswitch.cli.record import append, demand_admitted, ring_as_known
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.document import enrolment_document
from killswitch.errors import ConfigError, NotAuthorizedError, UsageError
from killswitch.journal.history import KEY_ENROLLED
from killswitch.model import Mode, Order, Proof

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

    from killswitch.authority.recovery import Recovery

_POLL_S: Final = 0.2
_WAIT_S: Final = 60.0
_NOT_ENROLLED: Final = "the key is not enrolled"


@dataclass(frozen=True, slots=True)
class _Admission:
    """Who let a new key in, and what seals the secrets to it; the first key has neither."""

    by: Proof | None = None
    by_recovery: bytes | None = None
    authority: Authority | None = None


class Enrolling:
    """Enrols keys of one operator; `ring` is what the ring is by now.

    With `recovery` the recovery phrase admits them, in the place of an enrolled key.
    """

    def __init__(
        self,
        session: Session,
        config: Config,
        ring: KeyRing,
        *,
        operator: str,
        role: str,
        yes: bool,
        recovery: "Recovery | None" = None,
    ) -> None:
        self.ring = ring
        self._recovery = recovery
        self._session = session
        self._config = config
        self._operator = operator
        self._role = role
        self._yes = yes
        self._sandbox = config.sandbox is not None
        self._found = find_devices(config, yes=yes, no_input=session.no_input)
        self._policy = _attestation(config)

    def enrol(self, label: str) -> None:
        """Take the touches of a new key, have it admitted, and write it down."""
        if self.ring.keys:
            checked = demand_admitted(self._config, self.ring, effect=_NOT_ENROLLED)
            if any(key.label == label for key in checked.keys):
                raise ConfigError(
                    f'the journal has a key "{label}" that the key ring lacks',
                    effect=_NOT_ENROLLED,
                    hint="killswitch keys restore takes the ring from the journal",
                )
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
        admission = self._admitted(order, proof)
        event = enrolment_document(enrolment, order, proof, admission.by, admission.by_recovery)
        with ring_as_known(self._config, self.ring, effect=_NOT_ENROLLED) as ring:
            append(
                self._session,
                self._config,
                KEY_ENROLLED,
                f"{order.id}.enrolled",
                event,
                effect=_NOT_ENROLLED,
            )
            self.ring = self._beside_phrase(ring).add(key)
            self.ring.save(self._config.key_file)
        if admission.authority:
            reseal_for(self._session, self._config, order, admission.authority)
            remember_counter(self._session, self._config, admission.authority.proof)
        pin = "" if any(one.uv for one in key.recipients) else "; it has no PIN"
        self._session.terminal.result(
            f'enrolled "{label}" of {key.operator}: may {may(key)}, '
            f"attestation {key.attestation}{pin}"
        )

    def _beside_phrase(self, ring: KeyRing) -> KeyRing:
        """Return the ring with the phrase that admits a key, which a ring begun anew lacks."""
        return replace(ring, recovery=self._recovery.record.recipient) if self._recovery else ring

    def _admitted(self, order: Order, own: Proof) -> _Admission:
        """Take the touch of an enrolled key on the same order; the first key needs none."""
        if self.ring.keys and not self._recovery:
            self._ask("now a key that is enrolled already: it admits the new one")
            authority = touch_for_change(
                self._session,
                self._config,
                order,
                covering(self.ring, self._role, effect=_NOT_ENROLLED),
                yes=self._yes,
                effect=_NOT_ENROLLED,
            )
            return _Admission(by=authority.proof, authority=authority)
        if pin_required(self._config, Mode.KEYS) and not own.user_verified:
            raise NotAuthorizedError(
                "the key has no PIN, and enrolling asks for one",
                effect=_NOT_ENROLLED,
                hint='set a PIN with the maker\'s tool, or leave "keys" out of [keys] require_pin',
            )
        if self._recovery is None:
            return _Admission()
        # The new key's own touch stands under the secrets that are sealed to it.
        unsealed = Unsealed(
            {}, lambda _name: "the recovery phrase does not open it", self._recovery.identity
        )
        return _Admission(
            by_recovery=self._recovery.admit(order.to_bytes()), authority=Authority(own, unsealed)
        )

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
                    "every software key of the sandbox is enrolled",
                    effect=f'"{label}" is not enrolled',
                    hint="see them: killswitch keys list",
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


def _attestation(config: Config) -> AttestationPolicy:
    try:
        roots = tuple(
            read_guarded(config.resolve(it), what="root certificate")
            for it in config.keys.attestation_roots
        )
    except OSError as error:
        raise ConfigError(
            f"a root certificate cannot be read: {error.filename}: {error.strerror}",
            effect=_NOT_ENROLLED,
            hint="[keys] attestation_roots names PEM files",
        ) from error
    return AttestationPolicy(Level(config.keys.attestation), roots, config.keys.aaguids)
