"""What is asked of the software key: the CBOR maps of CTAP 2.1, as far as they are read."""

import struct
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec
from fido2 import cbor
from fido2.ctap import CtapError

_ERR = CtapError.ERR


class RelyingParty(msgspec.Struct, frozen=True):
    """Whom a credential is for."""

    id: str


class User(msgspec.Struct, frozen=True):
    """Whose credential it is; the names are optional."""

    id: bytes
    name: str | None = None
    display_name: str | None = msgspec.field(name="displayName", default=None)


class Descriptor(msgspec.Struct, frozen=True):
    """A credential by its id."""

    id: bytes


class Options(msgspec.Struct, frozen=True):
    """What is wanted: a resident key, the user verified, the user present."""

    rk: bool | None = None
    uv: bool = False
    up: bool = True


class MakeExtensions(msgspec.Struct, frozen=True):
    """The extensions of a new credential (section 12)."""

    hmac_secret: bool = msgspec.field(name="hmac-secret", default=False)
    hmac_secret_mc: dict[int, Any] | None = msgspec.field(name="hmac-secret-mc", default=None)
    protection: int = msgspec.field(name="credProtect", default=0)
    min_pin_length: bool = msgspec.field(name="minPinLength", default=False)


class GetExtensions(msgspec.Struct, frozen=True):
    """The extensions of an assertion."""

    hmac_secret: dict[int, Any] | None = msgspec.field(name="hmac-secret", default=None)


class HmacSecret(msgspec.Struct, frozen=True):
    """The salts of hmac-secret, encrypted to this key (section 12.5)."""

    key_agreement: dict[int, Any] = msgspec.field(name="1")
    salts: bytes = msgspec.field(name="2")
    salts_auth: bytes = msgspec.field(name="3")
    protocol: int = msgspec.field(name="4", default=1)


class MakeCredential(msgspec.Struct, frozen=True):
    """The parameters of authenticatorMakeCredential (section 6.1)."""

    digest: bytes = msgspec.field(name="1")
    rp: RelyingParty = msgspec.field(name="2")
    user: User = msgspec.field(name="3")
    parameters: list[dict[str, object]] = msgspec.field(name="4")
    excluded: list[Descriptor] = msgspec.field(name="5", default_factory=list)
    extensions: MakeExtensions = msgspec.field(name="6", default=MakeExtensions())
    options: Options = msgspec.field(name="7", default=Options())
    pin_auth: bytes | None = msgspec.field(name="8", default=None)
    pin_protocol: int | None = msgspec.field(name="9", default=None)


class GetAssertion(msgspec.Struct, frozen=True):
    """The parameters of authenticatorGetAssertion (section 6.2)."""

    rp_id: str = msgspec.field(name="1")
    digest: bytes = msgspec.field(name="2")
    allowed: list[Descriptor] = msgspec.field(name="3", default_factory=list)
    extensions: GetExtensions = msgspec.field(name="4", default=GetExtensions())
    options: Options = msgspec.field(name="5", default=Options())
    pin_auth: bytes | None = msgspec.field(name="6", default=None)
    pin_protocol: int | None = msgspec.field(name="7", default=None)


class ClientPin(msgspec.Struct, frozen=True):
    """The parameters of authenticatorClientPIN (section 6.5)."""

    subcommand: int = msgspec.field(name="2")
    protocol: int | None = msgspec.field(name="1", default=None)
    key_agreement: dict[int, Any] | None = msgspec.field(name="3", default=None)
    auth: bytes | None = msgspec.field(name="4", default=None)
    new_pin: bytes | None = msgspec.field(name="5", default=None)
    pin_hash: bytes | None = msgspec.field(name="6", default=None)
    permissions: int | None = msgspec.field(name="9", default=None)
    rp_id: str | None = msgspec.field(name="10", default=None)


class Managed(msgspec.Struct, frozen=True):
    """The parameters of authenticatorCredentialManagement and of authenticatorConfig alike."""

    subcommand: int = msgspec.field(name="1")
    parameters: dict[int, Any] | None = msgspec.field(name="2", default=None)
    protocol: int | None = msgspec.field(name="3", default=None)
    auth: bytes | None = msgspec.field(name="4", default=None)

    @property
    def signed(self) -> bytes:
        """What `auth` is made over, without the head that authenticatorConfig puts before it."""
        parameters = b"" if self.parameters is None else cbor.encode(self.parameters)
        return bytes([self.subcommand & 0xFF]) + parameters


Request = TypeVar("Request", bound=msgspec.Struct)


def decode(raw: bytes, kind: type[Request]) -> Request:
    """Read one request, or raise CtapError with the status that a key answers."""
    try:
        fields = dict(cast("Mapping[object, object]", cbor.decode(raw)).items())
    # All that the decoder throws at bytes that are not a CBOR map.
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, RecursionError):
        raise CtapError(_ERR.INVALID_CBOR) from None
    return convert(fields, kind)


def convert(fields: Mapping[Any, object], kind: type[Request]) -> Request:
    """Read a map that is decoded already."""
    try:
        return msgspec.convert({str(key): value for key, value in fields.items()}, kind)
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        code = _ERR.MISSING_PARAMETER if missing else _ERR.CBOR_UNEXPECTED_TYPE
        raise CtapError(code) from None
