"""A software security key for the sandbox: CTAP 2.1 without a chip, its touch is a callable.

It speaks the wire format of the FIDO Client to Authenticator Protocol 2.1, so that the code that
talks to a real key talks to this one unchanged. In production it is of no use: it makes
credentials for the sandbox's relying party only, and says openly that it is nobody's product.
"""

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor
from fido2.cose import ES256
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY, CTAPHID
from fido2.webauthn import Aaguid, AttestedCredentialData, AuthenticatorData

from killswitch.authority.ring import (
    SANDBOX_AAGUID,
    SANDBOX_RP_ID,
    locked,
    read_guarded,
    write_private,
)
from killswitch.errors import ConfigError
from killswitch.sandbox.softkey_requests import Descriptor, GetAssertion, MakeCredential, decode

Touch = Callable[[threading.Event], bool | None]
"""Waits for a person, or for the event that calls the request off.

True: touched; False: refused; None: nobody came in the key's own time.
"""
Answer = Mapping[int, object]
Keepalive = Callable[[STATUS], None] | None

_ERR = CtapError.ERR
_FLAG = AuthenticatorData.FLAG
_NONCE_BYTES: Final = 12
_TURN_S: Final = 0.05


class SoftKey:
    """One software authenticator: everything but the transport.

    A credential id wraps its own private key under the master secret, so the key stores nothing
    per credential. `rp_ids` are the relying parties it makes credentials for.
    """

    def __init__(
        self,
        *,
        touch: Touch,
        master: bytes | None = None,
        counter: int = 0,
        aaguid: bytes = SANDBOX_AAGUID,
        rp_ids: Collection[str] = (SANDBOX_RP_ID,),
        path: Path | None = None,
    ) -> None:
        self.touch = touch
        self.counter = counter
        self.aaguid = aaguid
        self.rp_ids = frozenset(rp_ids)
        self._master = master or os.urandom(32)
        self._path = path
        self._turn = threading.Lock()

    @classmethod
    def load(cls, path: Path, *, touch: Touch) -> "SoftKey":
        """Return the sandbox key kept at `path`, made now if there is none.

        Several processes may use one file: each signature takes the next counter from it.
        """
        with locked(path):
            try:
                state = _read(path)
            except FileNotFoundError:
                state = _State(master=os.urandom(32), counter=0)
                write_private(path, msgspec.json.encode(state))
        return cls(touch=touch, master=state.master, counter=state.counter, path=path)

    def handle(
        self, request: bytes, cancel: threading.Event, on_keepalive: Keepalive = None
    ) -> bytes:
        """Carry out one CTAP2 command: command byte and CBOR in, status byte and CBOR out."""
        while not self._turn.acquire(timeout=_TURN_S):  # a key serves one request at a time
            if cancel.is_set():
                return bytes([_ERR.KEEPALIVE_CANCEL])
        try:
            answer = self._dispatch(request, lambda: self._await_touch(cancel, on_keepalive))
        except CtapError as error:
            return bytes([error.code])
        finally:
            self._turn.release()
        return bytes([_ERR.SUCCESS]) + (cbor.encode(answer) if answer else b"")

    def get_info(self) -> Answer:
        """Say what this key can do (CTAP 2.1 section 6.4)."""
        return {
            0x01: ["FIDO_2_0", "FIDO_2_1"],
            0x03: self.aaguid,
            0x04: {"rk": False, "up": True, "plat": False},
            0x05: 1200,  # the longest message
            0x07: 8,  # credentials in one list
            0x08: 128,  # the longest credential id
            0x09: ["usb"],
            0x0A: [{"alg": ES256.ALGORITHM, "type": "public-key"}],
        }

    def make_credential(self, request: MakeCredential, await_touch: Callable[[], None]) -> Answer:
        """MakeCredential a credential and attest it with itself (section 6.1)."""
        if request.pin_auth is not None:
            raise CtapError(_ERR.PIN_NOT_SET)
        if ES256.ALGORITHM not in [one.get("alg") for one in request.parameters]:
            raise CtapError(_ERR.UNSUPPORTED_ALGORITHM)
        if request.options.rk:
            raise CtapError(_ERR.UNSUPPORTED_OPTION)
        if request.options.uv or not request.options.up:
            raise CtapError(_ERR.INVALID_OPTION)
        rp_hash = hashlib.sha256(request.rp.id.encode()).digest()
        known = self._known(request.excluded, rp_hash)
        await_touch()
        if known:
            raise CtapError(_ERR.CREDENTIAL_EXCLUDED)
        if request.rp.id not in self.rp_ids:
            raise CtapError(_ERR.NOT_ALLOWED)
        private = ec.generate_private_key(ec.SECP256R1())
        credential = AttestedCredentialData.create(
            Aaguid(self.aaguid),
            self._wrap(private, rp_hash),
            ES256.from_cryptography_key(private.public_key()),  # type: ignore[no-untyped-call]  # upstream's
        )
        head = struct.pack(">BI", _FLAG.UP | _FLAG.AT, self._advance())
        signed = rp_hash + head + credential
        statement = {"alg": ES256.ALGORITHM, "sig": _sign(private, signed + request.digest)}
        return {0x01: "packed", 0x02: signed, 0x03: statement}

    def get_assertion(self, request: GetAssertion, await_touch: Callable[[], None]) -> Answer:
        """Sign for one of the listed credentials (section 6.2); with `up` false, without touch."""
        if request.pin_auth is not None:
            raise CtapError(_ERR.PIN_NOT_SET)
        if request.options.rk is not None:
            raise CtapError(_ERR.UNSUPPORTED_OPTION)
        if request.options.uv:
            raise CtapError(_ERR.INVALID_OPTION)
        rp_hash = hashlib.sha256(request.rp_id.encode()).digest()
        known = self._known(request.allowed, rp_hash)
        if request.options.up:
            await_touch()  # even for a stranger's credential: otherwise it tells who owns what
        if not known:
            raise CtapError(_ERR.NO_CREDENTIALS)
        credential_id, private = known
        present = (_FLAG.UP, self._advance()) if request.options.up else (0, self.counter)
        signed = rp_hash + struct.pack(">BI", *present)
        descriptor = {"id": credential_id, "type": "public-key"}
        return {0x01: descriptor, 0x02: signed, 0x03: _sign(private, signed + request.digest)}

    def _dispatch(self, request: bytes, await_touch: Callable[[], None]) -> Answer:
        body = request[1:]
        match request[0] if request else None:
            case Ctap2.CMD.GET_INFO:
                return self.get_info()
            case Ctap2.CMD.MAKE_CREDENTIAL:
                return self.make_credential(decode(body, MakeCredential), await_touch)
            case Ctap2.CMD.GET_ASSERTION:
                return self.get_assertion(decode(body, GetAssertion), await_touch)
            case Ctap2.CMD.SELECTION:
                await_touch()
                return {}
            case _:
                raise CtapError(_ERR.INVALID_COMMAND)

    def _await_touch(self, cancel: threading.Event, on_keepalive: Keepalive) -> None:
        if on_keepalive:
            on_keepalive(STATUS.UPNEEDED)
        touched = None if cancel.is_set() else self.touch(cancel)
        if cancel.is_set():
            raise CtapError(_ERR.KEEPALIVE_CANCEL)
        if touched is None:
            raise CtapError(_ERR.USER_ACTION_TIMEOUT)
        if not touched:
            raise CtapError(_ERR.OPERATION_DENIED)

    def _wrap(self, private: ec.EllipticCurvePrivateKey, rp_hash: bytes) -> bytes:
        scalar = private.private_numbers().private_value.to_bytes(32, "big")
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._master).encrypt(nonce, scalar, rp_hash)

    def _known(
        self, descriptors: list[Descriptor], rp_hash: bytes
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey] | None:
        for credential_id in (descriptor.id for descriptor in descriptors):
            nonce, wrapped = credential_id[:_NONCE_BYTES], credential_id[_NONCE_BYTES:]
            try:
                scalar = AESGCM(self._master).decrypt(nonce, wrapped, rp_hash)
            except (InvalidTag, ValueError):
                continue
            value = int.from_bytes(scalar, "big")
            return credential_id, ec.derive_private_key(value, ec.SECP256R1())
        return None

    def _advance(self) -> int:
        if self._path is None:
            self.counter += 1
            return self.counter
        with locked(self._path):
            state = _read(self._path)
            self.counter = state.counter + 1
            write_private(self._path, msgspec.json.encode(replace(state, counter=self.counter)))
        return self.counter


class SoftKeyDevice(CtapDevice):
    """A `SoftKey` plugged into this process: what `Fido2Client` takes for a device."""

    def __init__(self, key: SoftKey) -> None:
        self.key = key

    @property
    def capabilities(self) -> int:
        """CTAP2 only."""
        return CAPABILITY.CBOR | CAPABILITY.NMSG

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Keepalive = None,
    ) -> bytes:
        """Hand one request to the key and return its reply."""
        if cmd != CTAPHID.CBOR:
            raise CtapError(_ERR.INVALID_COMMAND)
        return self.key.handle(data, event or threading.Event(), on_keepalive)

    @classmethod
    def list_devices(cls) -> Iterator["SoftKeyDevice"]:
        """Find nothing: a software key is handed over, never discovered."""
        return iter(())


@dataclass(frozen=True, slots=True)
class _State:
    master: bytes = field(repr=False)
    counter: int


def _read(path: Path) -> _State:
    raw = read_guarded(path, what="sandbox key")
    try:
        return msgspec.json.decode(raw, type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(
            f"the sandbox key {path} is damaged", hint="delete it: the sandbox makes a new one"
        ) from None


def _sign(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return private.sign(message, ec.ECDSA(SHA256()))
