"""The ceremony of an enrolment, touch by touch: made, learned, proven."""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fido2.client import DefaultClientDataCollector, WebAuthnClient
from fido2.cose import ES256
from fido2.ctap import CtapDevice
from fido2.ctap2.base import Ctap2, Info
from fido2.hid import CAPABILITY
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticatorData,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from killswitch.authority.asking import PRF, Touched, options, prf_output
from killswitch.authority.pin import PinDesk, PinPolicy, can_verify
from killswitch.authority.proof import Assertion, mismatch, regressed
from killswitch.authority.ring import UNCHANGED, EnrolledKey, KeyRing
from killswitch.authority.sealing import Identity, Recipient, SealError, seal
from killswitch.authority.system_key import SystemKey, client_for
from killswitch.errors import NotAuthorizedError

_PRF_EXTENSION: Final = "hmac-secret"  # what CTAP calls the extension behind WebAuthn's PRF
_PRF_WHEN_MADE: Final = "hmac-secret-mc"
_PROBE_INFO: Final = b"killswitch/probe/v1"
_PROBE_BYTES: Final = 32
_UNSTABLE: Final = "the key gave another secret at its second touch"

OnTouch = Callable[[int, int], None]
"""Told which touch comes next, and of how many."""


def begin(
    device: CtapDevice,
    *,
    label: str,
    rp_id: str,
    cancel: threading.Event,
    on_touch: OnTouch,
    pin: PinPolicy | None,
) -> "Ceremony":
    """Look at what a key can do, ask for its PIN if it has one, and plan the touches.

    Raises NotAuthorizedError for a key that could never open a secret, PinTroubleError for one
    whose PIN cannot be had.
    """
    collector = DefaultClientDataCollector(f"https://{rp_id}")
    modes: tuple[bool, ...] = (False,)
    if isinstance(device, SystemKey):  # of which nothing can be known before the touch
        client, of = device.client(collector), 3
    else:
        if not device.capabilities & CAPABILITY.CBOR:
            raise refusal("the key speaks only U2F", "use a FIDO2 key")
        ctap2 = Ctap2(device)
        if _PRF_EXTENSION not in ctap2.info.extensions:
            raise _no_prf()
        desk = PinDesk(ctap2, label=label, rp_id=rp_id, policy=pin)
        desk.prepare(ctap2.info)
        modes = _modes(ctap2.info)
        if ctap2.info.options.get("clientPin") and not ctap2.info.options.get("uv"):
            desk.obtain()
        client = client_for(device, collector, desk.as_interaction())
        of = 1 + 2 * len(modes) - (_PRF_WHEN_MADE in ctap2.info.extensions)
    return Ceremony(client, label, rp_id, cancel, on_touch, modes, of)


def _modes(info: Info) -> tuple[bool, ...]:
    """Return how the key can be touched: without its user verified, and with."""
    if info.options.get("alwaysUv"):
        return (True,)
    return (False, True) if can_verify(info) else (False,)


@dataclass(slots=True)
class Ceremony:
    """One key, from the making of its credential to the signature that admits it."""

    client: WebAuthnClient
    label: str
    rp_id: str
    cancel: threading.Event
    on_touch: OnTouch
    modes: tuple[bool, ...]
    of: int
    _number: int = 0
    _counter: int = 0
    _learned: dict[bool, Identity] = field(default_factory=dict, repr=False)

    def make(
        self, ring: KeyRing, operator: str
    ) -> tuple[AttestedCredentialData, RegistrationResponse]:
        """Make a credential that no key of `ring` has yet: one touch."""
        server = Fido2Server(
            PublicKeyCredentialRpEntity(id=self.rp_id, name="killswitch"),
            attestation=AttestationConveyancePreference.DIRECT,  # judged by our own policy
        )
        # ES256 only: every FIDO2 key has it, and `openssl dgst` can verify it years later.
        kind = PublicKeyCredentialType.PUBLIC_KEY
        server.allowed_algorithms = [PublicKeyCredentialParameters(type=kind, alg=ES256.ALGORITHM)]
        request, state = server.register_begin(
            _user(operator, self.label),
            credentials=[
                AttestedCredentialData(key.credential)
                for key in ring.keys
                if key.rp_id == self.rp_id
            ],
            resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.DISCOURAGED,
            extensions=PRF,
        )
        self._next_touch()
        made = self.client.make_credential(request.public_key, self.cancel)
        data = server.register_complete(state, made)
        self._counter = data.counter
        return self._checked(data, made), made

    def learn(self, key: EnrolledKey) -> tuple[Recipient, ...]:
        """Return what secrets are sealed to for this key: one touch for each way to touch it."""
        for verify in self.modes:
            if verify not in self._learned:
                touched = self._touch(key, os.urandom(32), verify=verify)
                self._learned[touched.uv] = _identity(touched)
        return tuple(self._learned[uv].recipient for uv in sorted(self._learned))

    def prove(self, key: EnrolledKey, challenge: Callable[[EnrolledKey], bytes]) -> Assertion:
        """See a new touch open what is sealed to each recipient; the last one signs `challenge`."""
        for verify in self.modes[:-1]:
            self._open_probe(self._touch(key, os.urandom(32), verify=verify))
        last = self._touch(key, challenge(key), verify=self.modes[-1])
        self._open_probe(last)
        return last.assertion

    def _checked(
        self, data: AuthenticatorData, made: RegistrationResponse
    ) -> AttestedCredentialData:
        credential = data.credential_data
        if credential is None or not isinstance(credential.public_key, ES256):
            raise refusal("the key made no ES256 credential", "use a FIDO2 key")
        if data.flags & AuthenticatorData.FLAG.BE:
            raise refusal("the key may be copied to other devices", "use a key made of hardware")
        prf = made.client_extension_results.prf
        if not (prf and prf.enabled):
            raise _no_prf()
        output = prf_output(made)
        if output:
            uv = bool(data.flags & AuthenticatorData.FLAG.UV)
            self._learned[uv] = Identity.from_prf(
                output, credential_id=credential.credential_id, uv=uv
            )
        return credential

    def _touch(self, key: EnrolledKey, challenge: bytes, *, verify: bool) -> Touched:
        request = options(challenge, self.rp_id, [key.credential_id], verify=verify, unseal=True)
        self._next_touch()
        answer = self.client.get_assertion(request, self.cancel).get_response(0)
        touched = Touched.of(answer)
        why = mismatch(challenge, touched.assertion, [key], self.rp_id)
        if not why and verify and not touched.uv:
            why = "the key did not verify its user"
        if why:
            raise refusal(f"the key's test signature is wrong: {why}", "do not use this key")
        if regressed(self._counter, touched.assertion.counter):
            raise refusal("the key's counter went back", "do not use this key: it may be a copy")
        self._counter = touched.assertion.counter
        return touched

    def _open_probe(self, touched: Touched) -> None:
        learned = self._learned.get(touched.uv)
        probe = os.urandom(_PROBE_BYTES)
        try:
            sealed = seal(probe, learned.recipient, info=_PROBE_INFO) if learned else b""
            opened = _identity(touched).open(sealed, info=_PROBE_INFO)
        except SealError as error:
            raise refusal(_UNSTABLE, "do not use this key: it opens nothing") from error
        if opened != probe:
            raise refusal(_UNSTABLE, "do not use this key: it opens nothing")

    def _next_touch(self) -> None:
        self._number += 1
        self.of = max(self.of, self._number)
        self.on_touch(self._number, self.of)


def refusal(problem: str, hint: str) -> NotAuthorizedError:
    """Return what ends an enrolment that changed nothing."""
    return NotAuthorizedError(problem, effect=UNCHANGED, hint=hint)


def _no_prf() -> NotAuthorizedError:
    return refusal(
        "the key lacks PRF (the extension hmac-secret), so it cannot open secrets",
        "use a FIDO2 key that has it",
    )


def _identity(touched: Touched) -> Identity:
    identity = touched.identity()
    if identity is None:
        raise _no_prf()
    return identity


def _user(operator: str, label: str) -> PublicKeyCredentialUserEntity:
    # Keys that list their credentials tell them apart by this id; it has to hold no name.
    handle = hashlib.sha256(f"{operator}\n{label}".encode()).digest()
    return PublicKeyCredentialUserEntity(id=handle, name=operator, display_name=label)
