"""The real python-fido2 client and server on a device, as tests of the software key use them."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from fido2.client import DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap import CtapDevice
from fido2.ctap2.pin import ClientPin
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from killswitch.authority.ring import SANDBOX_RP_ID

DISCOURAGED = UserVerificationRequirement.DISCOURAGED
REQUIRED = UserVerificationRequirement.REQUIRED


def touched(_cancel: threading.Event) -> bool:
    return True


class Person(UserInteraction):
    """Knows a PIN, or does not."""

    def __init__(self, pin: str | None = None) -> None:
        self.pin = pin
        self.asked = 0

    def request_pin(
        self,
        permissions: ClientPin.PERMISSION,  # noqa: ARG002 (its signature)
        rp_id: str | None,  # noqa: ARG002 (its signature)
    ) -> str | None:
        self.asked += 1
        return self.pin


def listed(credential: AttestedCredentialData) -> list[Mapping[str, Any]]:
    """Return an allow list of one credential, as CTAP takes it."""
    return [{"id": credential.credential_id, "type": "public-key"}]


def server() -> Fido2Server:
    return Fido2Server(
        PublicKeyCredentialRpEntity(id=SANDBOX_RP_ID, name="killswitch"),
        attestation=AttestationConveyancePreference.NONE,
    )


def client(device: CtapDevice, person: Person | None = None) -> Fido2Client:
    collector = DefaultClientDataCollector(f"https://{SANDBOX_RP_ID}")
    return Fido2Client(device, collector, person or Person())


def registered(
    device: CtapDevice,
    person: Person | None = None,
    *,
    uv: UserVerificationRequirement = DISCOURAGED,
    user: str = "anna",
    resident: bool = False,
    extensions: Mapping[str, Any] | None = None,
) -> tuple[AttestedCredentialData, RegistrationResponse]:
    options, state = server().register_begin(
        PublicKeyCredentialUserEntity(id=user.encode(), name=user),
        user_verification=uv,
        resident_key_requirement=(
            ResidentKeyRequirement.REQUIRED if resident else ResidentKeyRequirement.DISCOURAGED
        ),
        extensions=extensions,
    )
    made = client(device, person).make_credential(options.public_key)
    credential = server().register_complete(state, made).credential_data
    assert credential is not None
    return credential, made


def signed(
    device: CtapDevice,
    allowed: Sequence[AttestedCredentialData],
    person: Person | None = None,
    *,
    uv: UserVerificationRequirement = DISCOURAGED,
    extensions: Mapping[str, Any] | None = None,
) -> AuthenticationResponse:
    """Return a verified assertion of one of the credentials."""
    options, state = server().authenticate_begin(
        allowed, user_verification=uv, extensions=extensions
    )
    answer = client(device, person).get_assertion(options.public_key).get_response(0)
    server().authenticate_complete(state, allowed, answer)
    return answer
