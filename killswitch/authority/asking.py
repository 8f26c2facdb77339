"""Asking one security key: is it enrolled, and would it sign; for the thread that does it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from killswitch.authority.pin import PinPolicy
from killswitch.authority.proof import Assertion
from killswitch.authority.ring import EnrolledKey
from killswitch.authority.sealing import PRF_SALT, Identity

if TYPE_CHECKING:
    from fido2.client import WebAuthnClient
    from fido2.ctap import CtapDevice
    from fido2.webauthn import (
        AuthenticationResponse,
        PublicKeyCredentialRequestOptions,
        RegistrationResponse,
    )

PRF: Final[Mapping[str, object]] = {"prf": {"eval": {"first": PRF_SALT}}}
"""The extension that makes a key evaluate its PRF: the same salt for every key and order."""

_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Touched:
    """What a touched key answered.

    `prf` is its PRF output, if that was asked for and it has one. `uv` is True when it verified
    its user for this answer: the other of its two outputs then, and another identity.
    """

    assertion: Assertion
    prf: bytes | None = field(repr=False)
    uv: bool

    @classmethod
    def of(cls, response: "AuthenticationResponse") -> "Touched":
        """Keep what python-fido2's client answered."""
        assertion = Assertion.of(response)
        return cls(assertion, prf_output(response), assertion.user_verified)

    def identity(self) -> Identity | None:
        """Return what opens the secrets sealed to this key; raises SealError."""
        if self.prf is None:
            return None
        return Identity.from_prf(self.prf, credential_id=self.assertion.credential_id, uv=self.uv)


@dataclass(frozen=True, slots=True)
class Question:
    """What every key is asked; see `touch.ask_for_touch`."""

    challenge: bytes
    keys: tuple[EnrolledKey, ...]
    rp_id: str
    unseal: bool
    pin: PinPolicy | None


class U2fOnlyError(Exception):
    """The key is from before CTAP2, so it was never enrolled."""


def meet(
    device: "CtapDevice", keys: tuple[EnrolledKey, ...], over: threading.Event
) -> tuple[EnrolledKey, ...]:
    """Ask without a touch which of `keys` this device is; only then may it blink.

    More than one only where that cannot be asked: the answer itself will tell.
    """
    from fido2.ctap import CtapError  # noqa: PLC0415 (as above)
    from fido2.ctap2.base import Ctap2  # noqa: PLC0415
    from fido2.hid import CAPABILITY  # noqa: PLC0415

    from killswitch.authority.system_key import SystemKey  # noqa: PLC0415

    if isinstance(device, SystemKey):
        return keys
    if not device.capabilities & CAPABILITY.CBOR:
        raise U2fOnlyError
    ctap2 = Ctap2(device)
    longest = ctap2.info.max_cred_id_length
    for key in keys:
        if longest and len(key.credential_id) > longest:
            continue
        listed: list[Mapping[str, object]] = [{"type": "public-key", "id": key.credential_id}]
        try:
            ctap2.get_assertion(key.rp_id, bytes(32), listed, None, {"up": False}, event=over)
        except CtapError as error:
            if error.code == CtapError.ERR.PUAT_REQUIRED:
                return keys
            if error.code not in {CtapError.ERR.NO_CREDENTIALS, CtapError.ERR.INVALID_CREDENTIAL}:
                raise
        else:
            return (key,)
    return ()


def options(
    challenge: bytes, rp_id: str, credential_ids: Sequence[bytes], *, verify: bool, unseal: bool
) -> "PublicKeyCredentialRequestOptions":
    """Return the request for one of the credentials: with `verify` its PIN, `unseal` its PRF."""
    from fido2.webauthn import (  # noqa: PLC0415 (as above)
        PublicKeyCredentialDescriptor,
        PublicKeyCredentialRequestOptions,
        PublicKeyCredentialType,
        UserVerificationRequirement,
    )

    kind = PublicKeyCredentialType.PUBLIC_KEY
    # Never "preferred": python-fido2 then fails on a key without a PIN.
    return PublicKeyCredentialRequestOptions(
        challenge=challenge,
        rp_id=rp_id,
        allow_credentials=[
            PublicKeyCredentialDescriptor(type=kind, id=credential_id)
            for credential_id in credential_ids
        ],
        user_verification=UserVerificationRequirement.REQUIRED
        if verify
        else UserVerificationRequirement.DISCOURAGED,
        extensions=PRF if unseal else None,
    )


def signed(
    client: "WebAuthnClient",
    request: "PublicKeyCredentialRequestOptions",
    over: threading.Event,
) -> Touched | None:
    """Let a key blink until it is touched; None when it is over."""
    from fido2.client import ClientError  # noqa: PLC0415 (as above)

    while not over.is_set():
        try:
            response = client.get_assertion(request, over).get_response(0)
        except ClientError as error:
            if error.code != ClientError.ERR.TIMEOUT:
                raise
            over.wait(_PAUSE_S)  # the key's own time is up, not ours: ask it again
        else:
            return Touched.of(response)
    return None


def prf_output(response: "AuthenticationResponse | RegistrationResponse") -> bytes | None:
    """Return what the key's PRF made of our salt, if it did."""
    # The mapping itself holds base64, and more: only the attributes are the values.
    prf = response.client_extension_results.prf
    return bytes(prf.results.first) if prf and prf.results else None
