"""The proof: does this signature authorise this very order, whoever asked for the touch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError
from killswitch.model import ORDER_DOMAIN, Order, Proof

if TYPE_CHECKING:
    from fido2.webauthn import AuthenticationResponse

EVIDENCE_FAILS: Final = "the evidence does not hold"
_USER_VERIFIED: Final = 0x04
_FLAGS_AT: Final = 32  # after the hash of the relying party's id (WebAuthn 6.1)
_COUNTER_AT: Final = slice(33, 37)


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a key answered to a challenge (WebAuthn), in its exact bytes."""

    credential_id: bytes
    client_data_json: bytes
    authenticator_data: bytes
    signature: bytes

    @classmethod
    def of(cls, response: "AuthenticationResponse") -> "Assertion":
        """Keep what python-fido2's client answered."""
        return cls(
            credential_id=response.raw_id,
            client_data_json=bytes(response.response.client_data),
            authenticator_data=bytes(response.response.authenticator_data),
            signature=response.response.signature,
        )

    @property
    def flags(self) -> int:
        """The flags of the authenticator data."""
        return self.authenticator_data[_FLAGS_AT]

    @property
    def user_verified(self) -> bool:
        """Whether the key verified its user: by PIN or fingerprint."""
        return bool(self.flags & _USER_VERIFIED)

    @property
    def counter(self) -> int:
        """The signature counter."""
        return int.from_bytes(self.authenticator_data[_COUNTER_AT], "big")


def verify(
    order: Order,
    assertion: Assertion,
    keys: Sequence[EnrolledKey],
    *,
    sandbox: bool = False,
    user_verification: bool = False,
) -> Proof:
    """Return the proof that one of `keys` signed `order`; raises NotAuthorizedError.

    The key's role must allow the order's mode. With `user_verification` the key must have verified
    its user (PIN or fingerprint), and have said so in what it signed.

    A signature counter that did not grow is flagged, not refused: the caller decides by the mode.
    Software keys count only with `sandbox`, and then they alone.
    """
    key = next((key for key in keys if key.credential_id == assertion.credential_id), None)
    if key is None:
        raise NotAuthorizedError(
            "the security key that signed is not enrolled",
            hint="touch an enrolled key: killswitch keys list",
        )
    if key.sandbox is not sandbox:
        raise NotAuthorizedError(
            f'the key "{key.label}" belongs to the sandbox'
            if key.sandbox
            else f'the key "{key.label}" is a real one, and this is the sandbox',
            hint="keep the sandbox's key ring apart from the real one",
        )
    if not key.may(order.mode):
        raise NotAuthorizedError(
            f'the key "{key.label}" may not authorise this: its role is {key.role}',
            hint="touch a key with another role: killswitch keys list",
        )
    why = mismatch(order.challenge(), assertion, keys, key.rp_id)
    if not why and user_verification and not assertion.user_verified:
        why = "the key did not verify its user (no PIN)"
    if why:
        raise NotAuthorizedError(
            f"the signature does not fit this order: {why}",
            hint="run it again; if it happens again, do not trust this machine",
        )
    return Proof(
        credential_id=assertion.credential_id,
        client_data_json=assertion.client_data_json,
        authenticator_data=assertion.authenticator_data,
        signature=assertion.signature,
        key_label=key.label,
        operator=key.operator,
        user_verified=assertion.user_verified,
        counter=assertion.counter,
        flags=assertion.flags,
        counter_regressed=regressed(key.counter, assertion.counter),
    )


def verify_stored(order_bytes: bytes, proof: Proof, key: EnrolledKey) -> None:
    """Check a proof from the journal against the order's exact bytes; raises NotAuthorizedError.

    Needs no security key and no network. What the proof says of itself must be what was signed.
    """
    assertion = Assertion(
        credential_id=proof.credential_id,
        client_data_json=proof.client_data_json,
        authenticator_data=proof.authenticator_data,
        signature=proof.signature,
    )
    challenge = hashlib.sha256(ORDER_DOMAIN + order_bytes).digest()
    why = mismatch(challenge, assertion, [key], key.rp_id)
    if not why:
        signed = (assertion.flags, assertion.counter, assertion.user_verified)
        if signed != (proof.flags, proof.counter, proof.user_verified):
            why = "its flags or counter are not the signed ones"
        elif (proof.key_label, proof.operator) != (key.label, key.operator):
            why = "it names another key or operator"
    if why:
        raise NotAuthorizedError(
            f"the signature does not fit this order: {why}",
            effect=EVIDENCE_FAILS,
            hint="compare with an off-box copy: killswitch journal verify",
        )


def regressed(old: int, new: int) -> bool:
    """Whether a signature counter tells of a cloned key; keys without one always answer 0."""
    return not (new > old or new == old == 0)


def mismatch(
    challenge: bytes, assertion: Assertion, keys: Sequence[EnrolledKey], rp_id: str
) -> str:
    """Return why `assertion` is no answer of one of `keys` to `challenge`, or "" if it is.

    Demands the relying party, its own origin and no other page's frame, the challenge, a touch
    (UP) and the signature.
    """
    from fido2.server import Fido2Server  # noqa: PLC0415 (slow, and the halt needs it late)
    from fido2.webauthn import (  # noqa: PLC0415 (the same)
        AttestedCredentialData,
        AuthenticationResponse,
        AuthenticatorAssertionResponse,
        AuthenticatorData,
        CollectedClientData,
        PublicKeyCredentialRpEntity,
        UserVerificationRequirement,
    )

    server = Fido2Server(
        PublicKeyCredentialRpEntity(id=rp_id, name="killswitch"),
        verify_origin=lambda origin: origin == f"https://{rp_id}",
    )
    _, state = server.authenticate_begin(
        user_verification=UserVerificationRequirement.DISCOURAGED, challenge=challenge
    )
    try:
        client_data = CollectedClientData(assertion.client_data_json)
        server.authenticate_complete(
            state,
            [AttestedCredentialData(key.credential) for key in keys if key.rp_id == rp_id],
            AuthenticationResponse(
                raw_id=assertion.credential_id,
                response=AuthenticatorAssertionResponse(
                    client_data=client_data,
                    authenticator_data=AuthenticatorData(assertion.authenticator_data),
                    signature=assertion.signature,
                ),
            ),
        )
    # Whatever a parser throws at bytes that nobody signed means the same: not authorised.
    except Exception as error:  # noqa: BLE001
        return str(error).rstrip(".").lower() or type(error).__name__
    return "it was signed inside another page" if client_data.cross_origin else ""
