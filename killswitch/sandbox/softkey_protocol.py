"""The PIN/UV auth protocols of the software key, and what a token may be used for (section 6.5)."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final, TypeVar

from fido2.ctap import CtapError
from fido2.ctap2.pin import PinProtocolV1, PinProtocolV2

from killswitch.sandbox.softkey_requests import ClientPin

PROTOCOLS: Final[Mapping[int, PinProtocolV1]] = {2: PinProtocolV2(), 1: PinProtocolV1()}

_ERR = CtapError.ERR
Given = TypeVar("Given")


class Permission(IntFlag):
    """What a token may be used for (section 6.5.5.7)."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02
    CREDENTIAL_MANAGEMENT = 0x04
    CONFIGURE = 0x20


_SUPPORTED: Final = (
    Permission.MAKE_CREDENTIAL
    | Permission.GET_ASSERTION
    | Permission.CREDENTIAL_MANAGEMENT
    | Permission.CONFIGURE
)


def permissions_of(request: ClientPin) -> Permission:
    """Return the permissions that a token is asked for."""
    wanted = given(request.permissions)
    if not wanted:
        raise CtapError(_ERR.INVALID_PARAMETER)
    permissions = Permission(wanted & _SUPPORTED)
    if wanted & ~_SUPPORTED:
        raise CtapError(_ERR.UNAUTHORIZED_PERMISSION)
    if permissions & (Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION) and not request.rp_id:
        raise CtapError(_ERR.MISSING_PARAMETER)
    return permissions


def protocol_of(number: int | None) -> PinProtocolV1:
    """Return the protocol of that number."""
    if number is None:
        raise CtapError(_ERR.MISSING_PARAMETER)
    if number not in PROTOCOLS:
        raise CtapError(_ERR.INVALID_PARAMETER)
    return PROTOCOLS[number]


def given(value: Given | None) -> Given:
    """Return a parameter that this subcommand cannot do without."""
    if value is None:
        raise CtapError(_ERR.MISSING_PARAMETER)
    return value


@dataclass(frozen=True, slots=True)
class Shared:
    """A secret shared with the platform for one exchange."""

    protocol: PinProtocolV1
    secret: bytes = field(repr=False)

    def verify(self, message: bytes, auth: bytes) -> None:
        """Raise PIN_AUTH_INVALID unless the platform authenticated `message`."""
        if not hmac.compare_digest(self.protocol.authenticate(self.secret, message), auth):  # type: ignore[no-untyped-call]  # upstream's
            raise CtapError(_ERR.PIN_AUTH_INVALID)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Decrypt what the platform sent."""
        try:
            plain: bytes = self.protocol.decrypt(self.secret, encrypted)  # type: ignore[no-untyped-call]  # upstream's
        except ValueError:  # not whole blocks
            raise CtapError(_ERR.INVALID_PARAMETER) from None
        return plain

    def encrypt(self, plain: bytes) -> bytes:
        """Encrypt for the platform."""
        encrypted: bytes = self.protocol.encrypt(self.secret, plain)  # type: ignore[no-untyped-call]  # upstream's
        return encrypted
