"""The hmac-secret extension of the software key (CTAP 2.1 section 12.5), PRF to WebAuthn."""

import hmac
from typing import Final

from fido2.ctap import CtapError

from killswitch.sandbox.softkey_credentials import Credential
from killswitch.sandbox.softkey_pin import PinUv
from killswitch.sandbox.softkey_requests import HmacSecret

NAME: Final = "hmac-secret"
NAME_WHEN_MADE: Final = "hmac-secret-mc"
_SALT_BYTES: Final = 32


def evaluate(pin_uv: PinUv, request: HmacSecret, credential: Credential, *, uv: bool) -> bytes:
    """Return the output for one or two salts, encrypted for the platform.

    With the user verified and without, the outputs differ.

    Raises:
        CtapError: the salts were tampered with, or are of another length.
    """
    shared = pin_uv.shared_secret(request.protocol, request.key_agreement)
    shared.verify(request.salts, request.salts_auth)
    salts = shared.decrypt(request.salts)
    if len(salts) not in {_SALT_BYTES, 2 * _SALT_BYTES}:
        raise CtapError(CtapError.ERR.INVALID_PARAMETER)
    random = credential.random(uv=uv)
    starts = range(0, len(salts), _SALT_BYTES)
    outputs = (
        hmac.digest(random, salts[start : start + _SALT_BYTES], "sha256") for start in starts
    )
    return shared.encrypt(b"".join(outputs))
