"""A software security key for the sandbox: CTAP 2.1 without a chip, its touch is a callable.

It speaks the wire format of the FIDO Client to Authenticator Protocol 2.1, so that the code that
talks to a real key talks to this one unchanged. In production it is of no use: it makes
credentials for the sandbox's relying party only, and says openly that it is nobody's product.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from fido2 import cbor
from fido2.cose import ES256
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY, CTAPHID

from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID
from killswitch.sandbox import softkey_hmac as hmac_secret
from killswitch.sandbox.softkey_assertions import Signer
from killswitch.sandbox.softkey_credentials import Chain
from killswitch.sandbox.softkey_making import MAX_RESIDENTS, AwaitTouch, Maker
from killswitch.sandbox.softkey_management import MAX_MIN_PIN_RP_IDS, Caretaker
from killswitch.sandbox.softkey_pin import PinUv
from killswitch.sandbox.softkey_protocol import PROTOCOLS
from killswitch.sandbox.softkey_requests import (
    ClientPin,
    GetAssertion,
    MakeCredential,
    Managed,
    decode,
)
from killswitch.sandbox.softkey_state import InFile, InMemory, Store, fresh

Touch = Callable[[threading.Event], bool | None]
"""Waits for a person, or for the event that calls the request off.

True: touched; False: refused; None: nobody came in the key's own time.
"""
Answer = Mapping[int, object]
Keepalive = Callable[[STATUS], None] | None

MAX_MESSAGE: Final = 1200

_ERR = CtapError.ERR
_TURN_S: Final = 0.05


class SoftKey:
    """One software authenticator: everything but the transport.

    A credential id wraps its own private key under the master secret, so the key stores nothing
    per credential, except for discoverable ones.

    Args:
        touch: stands for the person.
        pin: the PIN to start with; without one the key has none until it is given one.
        always_uv: demand the PIN for every touch.
        attestation: the private key and the chain (DER, lowest first) that attest new
            credentials; by default each attests itself.
        hmac_secret_mc: evaluate PRF already when a credential is made, as the newest keys do.
        aaguid: the model that the key says it is.
        rp_ids: the relying parties that it makes credentials for.
        store: what it remembers, by default as long as it lives.
    """

    def __init__(
        self,
        *,
        touch: Touch,
        pin: str | None = None,
        always_uv: bool = False,
        attestation: Chain | None = None,
        hmac_secret_mc: bool = False,
        aaguid: bytes = SANDBOX_AAGUID,
        rp_ids: Collection[str] = (SANDBOX_RP_ID,),
        store: Store | None = None,
    ) -> None:
        self.touch = touch
        self.aaguid = aaguid
        self._mc = hmac_secret_mc
        self._store = store or InMemory(fresh())
        self._pin_uv = PinUv(self._store)
        self._maker = Maker(
            self._store, self._pin_uv, aaguid, frozenset(rp_ids), attestation, hmac_secret_mc
        )
        self._signer = Signer(self._store, self._pin_uv)
        self._caretaker = Caretaker(self._store, self._pin_uv)
        self._turn = threading.Lock()
        if pin is not None:
            self.set_pin(pin)
        if always_uv:
            self.always_uv = True

    @classmethod
    def load(cls, path: Path, *, touch: Touch) -> "SoftKey":
        """Return the sandbox key kept at `path`, made now if there is none.

        Several processes may use one file: each signature takes the next counter from it.
        """
        return cls(touch=touch, store=InFile(path))

    @property
    def counter(self) -> int:
        """The signature counter: what was given out last."""
        return self._store.read().counter

    @property
    def always_uv(self) -> bool:
        """Whether the key demands its PIN for every touch; its owner switches that."""
        return self._store.read().always_uv

    @always_uv.setter
    def always_uv(self, wanted: bool) -> None:
        self._store.change(lambda state: replace(state, always_uv=wanted))

    def set_pin(self, pin: str) -> None:
        """Give the key this PIN, with all retries, whatever it had before."""
        self._pin_uv.set(pin)

    def replug(self) -> None:
        """Pull the key out and plug it in again: three wrong PINs in a row are forgiven."""
        with self._turn:
            self._pin_uv.replug()
            self._signer.forget()
            self._caretaker.forget()

    def handle(
        self, request: bytes, cancel: threading.Event, on_keepalive: Keepalive = None
    ) -> bytes:
        """Carry out one CTAP2 command: command byte and CBOR in, status byte and CBOR out."""
        if len(request) > MAX_MESSAGE:
            return bytes([_ERR.REQUEST_TOO_LARGE])
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
        state = self._store.read()
        extensions = [hmac_secret.NAME, "credProtect", "minPinLength"]
        return {
            0x01: ["FIDO_2_0", "FIDO_2_1"],
            0x02: extensions + ([hmac_secret.NAME_WHEN_MADE] if self._mc else []),
            0x03: self.aaguid,
            0x04: {
                "rk": True,
                "up": True,
                "plat": False,
                "alwaysUv": state.always_uv,
                "authnrCfg": True,
                "credMgmt": True,
                "setMinPINLength": True,
                "clientPin": state.pin_hash is not None,
                "makeCredUvNotRqd": not state.always_uv,
                "pinUvAuthToken": True,
            },
            0x05: MAX_MESSAGE,
            0x06: list(PROTOCOLS),
            0x07: 8,  # credentials in one list
            0x08: 128,  # the longest credential id
            0x09: ["usb"],
            0x0A: [{"alg": ES256.ALGORITHM, "type": "public-key"}],
            0x0C: state.force_pin_change,
            0x0D: state.min_pin_length,
            0x10: MAX_MIN_PIN_RP_IDS,
            0x14: MAX_RESIDENTS - len(state.residents),
        }

    def _dispatch(self, request: bytes, await_touch: AwaitTouch) -> Answer:
        command, body = (request[0] if request else None), request[1:]
        if command != Ctap2.CMD.GET_NEXT_ASSERTION:
            self._signer.forget()
        if command != Ctap2.CMD.CREDENTIAL_MGMT:
            self._caretaker.forget()
        commands: dict[int | None, Callable[[], Answer]] = {
            Ctap2.CMD.MAKE_CREDENTIAL: lambda: self._maker.make(
                decode(body, MakeCredential), await_touch
            ),
            Ctap2.CMD.GET_ASSERTION: lambda: self._signer.sign(
                decode(body, GetAssertion), await_touch
            ),
            Ctap2.CMD.GET_NEXT_ASSERTION: self._signer.sign_next,
            Ctap2.CMD.GET_INFO: self.get_info,
            Ctap2.CMD.CLIENT_PIN: lambda: self._pin_uv.handle(decode(body, ClientPin)),
            Ctap2.CMD.RESET: lambda: self._reset(await_touch),
            Ctap2.CMD.CREDENTIAL_MGMT: lambda: self._caretaker.manage(decode(body, Managed)),
            Ctap2.CMD.SELECTION: lambda: self._select(await_touch),
            Ctap2.CMD.CONFIG: lambda: self._caretaker.configure(decode(body, Managed)),
        }
        if command not in commands:
            raise CtapError(_ERR.INVALID_COMMAND)
        return commands[command]()

    def _select(self, await_touch: AwaitTouch) -> Answer:
        await_touch()
        return {}

    def _reset(self, await_touch: AwaitTouch) -> Answer:
        # A real key refuses this later than ten seconds after it was plugged in.
        await_touch()
        self._store.change(lambda state: replace(fresh(), counter=state.counter))
        self._pin_uv.replug()
        return {}

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
