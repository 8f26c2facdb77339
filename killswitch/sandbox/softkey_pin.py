"""The PIN of the software key: authenticatorClientPIN (CTAP 2.1 section 6.5).

The timers of a pinUvAuthToken are left out: a token lives until it is used, replaced or unplugged.
"""

import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from fido2.ctap import CtapError

from killswitch.sandbox.softkey_protocol import (
    Permission,
    Shared,
    given,
    permissions_of,
    protocol_of,
)
from killswitch.sandbox.softkey_requests import ClientPin, GetAssertion, MakeCredential
from killswitch.sandbox.softkey_state import PIN_RETRIES, State, Store

MAX_PIN_BYTES: Final = 63

_ERR = CtapError.ERR
_TRIES_PER_PLUG: Final = 3
_PADDED_PIN_BYTES: Final = 64
_HASH_BYTES: Final = 16

Answer = dict[int, object]


class _Sub(IntEnum):
    RETRIES = 1
    KEY_AGREEMENT = 2
    SET = 3
    CHANGE = 4
    TOKEN = 5
    TOKEN_WITH_PERMISSIONS = 9


@dataclass(slots=True)
class _Token:
    value: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    permissions: Permission = field(default_factory=lambda: Permission(0))
    rp_id: str | None = None


class PinUv:
    """The PIN, its retries, the key agreement and the one token of a key."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.replug()

    def replug(self) -> None:
        """Forget what power kept: the tries of this plug, the agreement key and the token."""
        self._tries = 0
        self._token = _Token()
        self._agreement = ec.generate_private_key(ec.SECP256R1())

    @property
    def is_set(self) -> bool:
        """Whether the key has a PIN."""
        return self._store.read().pin_hash is not None

    def set(self, pin: str) -> None:
        """Give the key a PIN at once, as its owner would have done before."""
        self._store.change(lambda state: with_pin(state, pin.encode()))
        self._token = _Token()

    def handle(self, request: ClientPin) -> Answer:
        """Carry out one subcommand."""
        match request.subcommand:
            case _Sub.RETRIES:
                return self._retries()
            case _Sub.KEY_AGREEMENT:
                protocol_of(request.protocol)
                return {0x01: self._public_key()}
            case _Sub.SET:
                return self._set(request)
            case _Sub.CHANGE:
                return self._change(request)
            case _Sub.TOKEN:
                if request.permissions is not None or request.rp_id is not None:
                    raise CtapError(_ERR.INVALID_PARAMETER)
                both = Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION
                return self._give_token(request, both)
            case _Sub.TOKEN_WITH_PERMISSIONS:
                return self._give_token(request, permissions_of(request))
            case _:
                raise CtapError(_ERR.INVALID_SUBCOMMAND)

    def verify(
        self,
        message: bytes,
        auth: bytes,
        protocol: int | None,
        *,
        permission: Permission,
        rp_id: str | None = None,
    ) -> None:
        """Check that `auth` over `message` was made with a token for this purpose.

        Raises:
            CtapError: PIN_AUTH_INVALID, or what is wrong with the protocol number.
        """
        chosen, token = protocol_of(protocol), self._token
        genuine = hmac.compare_digest(chosen.authenticate(token.value, message), auth)  # type: ignore[no-untyped-call]  # upstream's
        if not genuine or not token.permissions & permission:
            raise CtapError(_ERR.PIN_AUTH_INVALID)
        if token.rp_id not in {None, rp_id}:
            raise CtapError(_ERR.PIN_AUTH_INVALID)
        token.rp_id = rp_id  # the first relying party that it serves is the only one

    def user_verified(
        self,
        request: MakeCredential | GetAssertion,
        permission: Permission,
        rp_id: str,
        await_touch: Callable[[], None],
    ) -> bool:
        """Return whether the request carries the proof that its user knows the PIN.

        Raises:
            CtapError: a wrong proof; or an empty one, which only asks which key is touched.
        """
        if request.pin_auth is None:
            return False
        if not request.pin_auth:
            await_touch()
            raise CtapError(_ERR.PIN_INVALID if self.is_set else _ERR.PIN_NOT_SET)
        self.verify(
            request.digest,
            request.pin_auth,
            request.pin_protocol,
            permission=permission,
            rp_id=rp_id,
        )
        return True

    def used(self) -> None:
        """Take the permissions from the token: one token, one act of a person (section 6.1.2)."""
        self._token.permissions = Permission(0)

    def shared_secret(self, protocol: int | None, key_agreement: Mapping[int, Any]) -> "Shared":
        """Agree on a secret with the platform's public key.

        Raises:
            CtapError: the protocol is unknown or the key is no point of the curve.
        """
        chosen = protocol_of(protocol)
        try:
            x, y = (int.from_bytes(key_agreement[label], "big") for label in (-2, -3))
            peer = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except (LookupError, TypeError, ValueError):
            raise CtapError(_ERR.INVALID_PARAMETER) from None
        secret: bytes = chosen.kdf(self._agreement.exchange(ec.ECDH(), peer))
        return Shared(chosen, secret)

    def _retries(self) -> Answer:
        if not self.is_set:
            raise CtapError(_ERR.PIN_NOT_SET)
        blocked = self._tries >= _TRIES_PER_PLUG
        return {0x03: self._store.read().retries, 0x04: blocked}

    def _public_key(self) -> dict[int, object]:
        point = self._agreement.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (point.x, point.y))
        return {1: 2, 3: -25, -1: 1, -2: x, -3: y}

    def _set(self, request: ClientPin) -> Answer:
        key_agreement, auth = given(request.key_agreement), given(request.auth)
        new_pin = given(request.new_pin)
        shared = self.shared_secret(request.protocol, key_agreement)
        if self.is_set:
            raise CtapError(_ERR.PIN_AUTH_INVALID)
        shared.verify(new_pin, auth)
        pin = _unpadded(shared.decrypt(new_pin))
        self._store.change(lambda state: with_pin(state, pin))
        return {}

    def _change(self, request: ClientPin) -> Answer:
        key_agreement, auth = given(request.key_agreement), given(request.auth)
        new_pin, pin_hash = given(request.new_pin), given(request.pin_hash)
        shared = self.shared_secret(request.protocol, key_agreement)
        self._check_not_blocked()
        shared.verify(new_pin + pin_hash, auth)
        self._check_pin(shared.decrypt(pin_hash))
        pin = _unpadded(shared.decrypt(new_pin))
        if self._store.read().force_pin_change and _hash(pin) == self._store.read().pin_hash:
            raise CtapError(_ERR.PIN_POLICY_VIOLATION)
        self._store.change(lambda state: with_pin(state, pin))
        self._token = _Token()
        return {}

    def _give_token(self, request: ClientPin, permissions: Permission) -> Answer:
        key_agreement, pin_hash = given(request.key_agreement), given(request.pin_hash)
        shared = self.shared_secret(request.protocol, key_agreement)
        self._check_not_blocked()
        self._check_pin(shared.decrypt(pin_hash))
        if self._store.read().force_pin_change:
            raise CtapError(_ERR.PIN_INVALID)
        self._token = _Token(permissions=permissions, rp_id=request.rp_id)
        return {0x02: shared.encrypt(self._token.value)}

    def _check_not_blocked(self) -> None:
        if not self.is_set:
            raise CtapError(_ERR.PIN_NOT_SET)
        if self._store.read().retries == 0:
            raise CtapError(_ERR.PIN_BLOCKED)
        if self._tries >= _TRIES_PER_PLUG:
            raise CtapError(_ERR.PIN_AUTH_BLOCKED)

    def _check_pin(self, claimed: bytes) -> None:
        # Counted before it is compared: pulling the plug must not give a try back.
        state = self._store.change(lambda state: replace(state, retries=max(state.retries - 1, 0)))
        if hmac.compare_digest(claimed, state.pin_hash or b""):
            self._tries = 0
            self._store.change(lambda state: replace(state, retries=PIN_RETRIES))
            return
        self._agreement = ec.generate_private_key(ec.SECP256R1())
        self._tries += 1
        if state.retries == 0:
            raise CtapError(_ERR.PIN_BLOCKED)
        if self._tries >= _TRIES_PER_PLUG:
            raise CtapError(_ERR.PIN_AUTH_BLOCKED)
        raise CtapError(_ERR.PIN_INVALID)


def with_pin(state: State, pin: bytes) -> State:
    """Return the state with a new PIN, all retries, and no demand for a change.

    Raises:
        CtapError: PIN_POLICY_VIOLATION, the PIN is too short or too long.
    """
    length = len(pin.decode(errors="replace"))
    if length < state.min_pin_length or len(pin) > MAX_PIN_BYTES:
        raise CtapError(_ERR.PIN_POLICY_VIOLATION)
    return replace(
        state,
        pin_hash=_hash(pin),
        pin_length=length,
        retries=PIN_RETRIES,
        force_pin_change=False,
    )


def _hash(pin: bytes) -> bytes:
    return sha256(pin).digest()[:_HASH_BYTES]


def _unpadded(padded: bytes) -> bytes:
    if len(padded) != _PADDED_PIN_BYTES:
        raise CtapError(_ERR.INVALID_PARAMETER)
    return padded.rstrip(b"\0")
