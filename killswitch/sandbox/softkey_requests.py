"""What is asked of the software key: the CBOR maps of CTAP 2.1, as far as they are read."""

import struct
from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec
from fido2 import cbor
from fido2.ctap import CtapError

_ERR = CtapError.ERR


class RelyingParty(msgspec.Struct, frozen=True):
    """Whom a credential is for."""

    id: str


class Descriptor(msgspec.Struct, frozen=True):
    """A credential by its id."""

    id: bytes


class Options(msgspec.Struct, frozen=True):
    """What is wanted: a resident key, the user verified, the user present."""

    rk: bool | None = None
    uv: bool = False
    up: bool = True


class MakeCredential(msgspec.Struct, frozen=True):
    """The parameters of authenticatorMakeCredential (section 6.1)."""

    digest: bytes = msgspec.field(name="1")
    rp: RelyingParty = msgspec.field(name="2")
    user: dict[str, object] = msgspec.field(name="3")
    parameters: list[dict[str, object]] = msgspec.field(name="4")
    excluded: list[Descriptor] = msgspec.field(name="5", default_factory=list)
    options: Options = msgspec.field(name="7", default=Options())
    pin_auth: bytes | None = msgspec.field(name="8", default=None)


class GetAssertion(msgspec.Struct, frozen=True):
    """The parameters of authenticatorGetAssertion (section 6.2)."""

    rp_id: str = msgspec.field(name="1")
    digest: bytes = msgspec.field(name="2")
    allowed: list[Descriptor] = msgspec.field(name="3", default_factory=list)
    options: Options = msgspec.field(name="5", default=Options())
    pin_auth: bytes | None = msgspec.field(name="6", default=None)


Request = TypeVar("Request", MakeCredential, GetAssertion)


def decode(raw: bytes, kind: type[Request]) -> Request:
    """Read one request, or raise CtapError with the status that a key answers."""
    try:
        fields = {
            str(key): value
            for key, value in cast("Mapping[object, object]", cbor.decode(raw)).items()
        }
    # All that the decoder throws at bytes that are not a CBOR map.
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, RecursionError):
        raise CtapError(_ERR.INVALID_CBOR) from None
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        code = _ERR.MISSING_PARAMETER if missing else _ERR.CBOR_UNEXPECTED_TYPE
        raise CtapError(code) from None
